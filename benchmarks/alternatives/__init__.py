"""Slower alternatives of kernels, kept runnable, with what they teach.

Each module has OPERATION, the name of the operation; CASES, the labels of the cases (cases.py) for which it is
measured; and `value`, a function with the signature of the operation's value.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "numba_math", "numpy_only", "one_counter", "keeps_denormals", "wide_numbers", "zero_check", "parallel_adam",
)  # fmt: skip


def of(operation: str, case: str) -> dict[str, ModuleType]:
    """The alternatives of an operation in one of its cases, by name. The import is here because it compiles kernels."""
    modules = {name: importlib.import_module(f"benchmarks.alternatives.{name}") for name in NAMES}
    return {name: module for name, module in modules.items() if module.OPERATION == operation and case in module.CASES}
