"""The fast twins: fused kernels over plain arrays. This package knows nothing of tinyvae.

`kernels_for(device)` gives the module whose functions serve arrays of that device; every such module has the
functions named in `NAMES`, with the same arguments.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "bias_activation", "bias_activation_grad", "gaussian_sample_kl", "gaussian_sample_kl_grad",
    "bernoulli_log_prob", "gaussian_log_prob", "scale_rows", "normal", "binarised_rows",
    "sum_of_squares", "add_scaled", "adam", "adagrad", "sgd",
)  # fmt: skip
_MODULES = {"cpu": "tinyvae_kernels.cpu"}


def kernels_for(device: str) -> ModuleType:
    """The kernels of a device; ImportError if what they are written in is missing."""
    return importlib.import_module(_MODULES[device])
