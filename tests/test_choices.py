"""The sentences about a name that does not exist and a number that is none."""

import numpy as np
import pytest

from tinyvae.choices import an, chosen, counted, known, whole


def test_an_entry_by_its_name():
    assert chosen("letter", "b", {"a": 1, "b": 2}) == 2
    for name in ("c", None, 3, ["a"], {}):
        with pytest.raises(ValueError, match=r"^found letter .*; expected one of a, b$"):
            chosen("letter", name, {"a": 1, "b": 2})
    assert known("letter", "a", ("a", "b")) == "a"


def test_a_whole_number():
    for value in (3, np.int64(3), np.array(3)):
        found = whole("count", value, 1)
        assert found == 3
        assert type(found) is int
    for value in (0, -1, 2.5, "3", None, True, float("nan"), np.float64(2), [3]):
        with pytest.raises(ValueError, match=r"^found count .*; expected a whole number, at least 1$"):
            whole("count", value, 1)


def test_a_noun_has_its_article():
    assert [an(noun) for noun in ("vae", "autoencoder", "x", "int", "Array")] == [
        "a vae", "an autoencoder", "a x", "an int", "an Array"]
    assert [an(noun) for noun in ("m1", "m2", "m1m2", "M1", "miwae", "shot", "v2")] == [  # "em one", but "mi-wae"
        "an m1", "an m2", "an m1m2", "an M1", "a miwae", "a shot", "a v2"]


def test_a_number_of_things():
    assert [counted(number, "picture") for number in (0, 1, 2, 1234)] == [
        "0 pictures", "1 picture", "2 pictures", "1,234 pictures"]
