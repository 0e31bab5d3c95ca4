"""The CUDA launchers over NumPy arrays, run on a card: so that one set of checks serves the host and a GPU.

`python -m benchmarks gpu-check` sets TINYVAE_GPU=1, and then `launchers()` copies each array to the card, launches, and
copies back what the kernels wrote. Without it the launchers are given as they are, for the driver of host.py.
"""

import os

import numpy as np
from tinyvae_kernels import kernels_for
from tinyvae_kernels.launching import Launcher

ON_A_CARD = os.environ.get("TINYVAE_GPU") == "1"


class OnCard:
    """Stands in the place of `kernels_for("cuda")`."""

    def __getattr__(self, name):
        found = getattr(kernels_for("cuda"), name)
        return copying(found) if isinstance(found, Launcher) else found


def copying(launcher):
    """The launcher for NumPy arrays."""
    from tinyvae.engine.devices import require_cuda

    cupy = require_cuda()

    def call(*arrays, **named):
        pairs = []  # each array once, with its copy: one given twice stays one

        def there(value):
            if isinstance(value, tuple):
                return tuple(there(v) for v in value)
            if not isinstance(value, np.ndarray):
                return value
            for here, copy in pairs:
                if here is value:
                    return copy
            pairs.append((value, cupy.asarray(value)))
            return pairs[-1][1]

        def back(value):
            if isinstance(value, tuple):
                return tuple(back(v) for v in value)
            for here, copy in pairs:
                if copy is value:
                    return here
            return value if value is None else value.get()

        result = launcher(*map(there, arrays), **{key: there(value) for key, value in named.items()})
        for here, copy in pairs:
            here[...] = copy.get()
        return back(result)

    return call


def launchers():
    """The launchers of a GPU, or their stand-in on a card."""
    return OnCard() if ON_A_CARD else kernels_for("cuda")
