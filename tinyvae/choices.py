"""What a user chooses, checked: a name, a whole number, a path. Each mistake is one sentence with the cure."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def chosen(what: str, name: Any, table: Mapping[str, T]) -> T:
    """The entry of that name; ValueError lists the names of the table. `what` says what the table holds."""
    return table[known(what, name, table)]


def known(what: str, name: Any, names: Collection[str]) -> str:
    """The name, if it is one of `names`; ValueError otherwise."""
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"found {what} {name!r}; expected one of {', '.join(names)}")
    return name


def whole(what: str, value: Any, least: int = 0) -> int:
    """A whole number of at least `least` as Python's int, also from NumPy; ValueError otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise ValueError(f"found {what} {value!r}; expected a whole number, at least {least}")
    return number


def path_of(what: str, value: Any) -> Path:
    """A path from text or a path; TypeError otherwise. `what` says of what."""
    try:
        return Path(value)
    except TypeError:
        raise TypeError(f"found {value!r:.60} for {what}; expected a path, as text") from None
