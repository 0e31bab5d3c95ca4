"""The ladder's losing alternatives: earlier or tempting forms of a kernel, kept runnable with what they taught.

Each module has OPERATION, the row it is a form of, CASES, the labels of the cases (cases.py) in which it has something
to say, and `value`, a function with the signature of that row's value.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "numba_math", "numpy_only", "one_counter", "keeps_denormals", "wide_numbers", "zero_check", "parallel_adam",
)  # fmt: skip


def of(operation: str, case: str) -> dict[str, ModuleType]:
    """The alternatives of an operation in one of its cases, by name; imported here, for they compile."""
    modules = {name: importlib.import_module(f"benchmarks.alternatives.{name}") for name in NAMES}
    return {name: module for name, module in modules.items() if module.OPERATION == operation and case in module.CASES}
