"""The fast twins: fused kernels over plain arrays. This package knows nothing of tinyvae.

`kernels_for(device)` gives the launchers of a device by name. A launcher has the same arguments on every device; one
that exists on a single device says for which reason (launching.py). To add a kernel, write its launcher in a file of
cpu/ and its twin in the file of the same name in cuda/: nothing else has to be edited.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tinyvae_kernels import launching

_importing = threading.RLock()  # so that a second thread waits until all files are there


@functools.cache
def kernels_for(device: str) -> Any:
    """The launchers of a device, "cpu" or "cuda", by name; ImportError if what they are written in is missing."""
    if device not in launching.REGISTRY:
        raise ImportError(f"found no kernels for {device!r}; expected one of {', '.join(launching.REGISTRY)}")
    folder = importlib.import_module(f"{__name__}.{device}")
    with _importing:
        for file in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            if not file.ispkg:
                importlib.import_module(file.name)
    return SimpleNamespace(**launching.REGISTRY[device])


def on_a_terminal(text: str) -> None:
    """A line on the standard error stream where that is a terminal, and nothing elsewhere."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


notify: Callable[[str], None] = on_a_terminal  # says why a user has to wait; a program may put its own here
