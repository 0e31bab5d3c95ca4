"""What a user chooses, checked: a name, a whole number, a path. Each mistake is one sentence with the cure."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def chosen(what: str, name: Any, table: Mapping[str, T]) -> T:
    """The entry of that name; ValueError lists the names of the table. `what` says what the table holds."""
    return table[known(what, name, table)]


def known(what: str, name: Any, names: Collection[str]) -> str:
    """The name, if it is one of `names`; ValueError otherwise."""
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"found {what} {name!r}; expected one of {', '.join(names)}")
    return name


def an(noun: str) -> str:
    """A noun with its article: "a vae", "an autoencoder"; a letter before a digit is read by its name, "an m2"."""
    return f"{'an' if re.match('[aeiou]|[fhlmnrsx][0-9]', noun, re.IGNORECASE) else 'a'} {noun}"


def counted(number: int, noun: str) -> str:
    """A number of things in words: "1 picture", "2 pictures"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def whole(what: str, value: Any, least: int = 0) -> int:
    """A whole number of at least `least` as Python's int, also from NumPy; ValueError otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise ValueError(f"found {what} {value!r}; expected a whole number, at least {least}")
    return number


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """Whole numbers, given one by one or together, as a tuple of Python's."""
    try:
        given = values[0] if len(values) == 1 and isinstance(values[0], Iterable) else values
        return tuple(map(operator.index, given))
    except TypeError:
        found = values[0] if len(values) == 1 else values
        raise TypeError(f"found {what} {found!r}; expected whole numbers") from None


def array_of(what: str, value: Any, dtype: Any = None) -> np.ndarray:
    """What `np.asarray` makes of a value; TypeError for rows of different lengths, and for what is no number."""
    try:
        found = np.asarray(value)
    except ValueError:
        raise TypeError(f"found {value!r:.60} for {what}, with rows of different lengths; expected an array of numbers"
                        ) from None
    if dtype is not None and found.dtype.kind not in "buif":
        raise TypeError(f"found {value!r:.60} for {what}; expected an array of numbers")
    return found if dtype is None else found.astype(dtype, copy=False)


def path_of(what: str, value: Any) -> Path:
    """A path from text or a path; TypeError otherwise. `what` says of what."""
    return Path(path_text(what, value))


def path_text(what: str, value: Any) -> str:
    """A path as text, as it was given; TypeError for anything else. `what` says of what."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"found {value!r:.60} for {what}; expected a path, as text")
    return text
