"""The memory of the Numba kernels: broken memory and other types are refused, and bits do not depend on addresses.

A kernel sees addresses only; what they point to is the launcher's to check.
"""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits

from tests.kernels.test_kernels import FORMULAS, KINDS, UNREAD, as_tuple, cpu, make, one_or_all
from tests.kernels.test_steps import METHODS

# ---- unbroken memory of one type -----------------------------------------------------


def broken(array):
    """The same values, every second place of a longer array."""
    result = np.empty((*array.shape, 2), array.dtype)[..., 0]
    result[...] = array
    return result


def refused(name, arrays, out, attributes, expected):
    """Is memory of other strides refused, in clear words? If not, the result must be right and in its place."""
    try:
        found = getattr(cpu, name)(*arrays, out=out, **attributes)
    except ValueError as fault:
        return bool(re.search(r"strides \(.*\); a kernel needs unbroken \(C-contiguous\) memory", str(fault)))
    for y, reference in zip(as_tuple(found if out is None else out), expected, strict=True):
        assert_close(y, reference, 4, name)
    return False


@pytest.mark.parametrize("name", FORMULAS)
def test_broken_memory_is_refused_or_right(name):
    """Never a wrong result, never one written into a copy that is lost."""
    arrays, attributes = make(name, np.random.default_rng(2), 4, 6, 2)
    expected = as_tuple(getattr(cpu, name)(*arrays, out=None, **attributes))
    answers = [refused(name, [*arrays[:i], broken(arrays[i]), *arrays[i + 1 :]], None, attributes, expected)
               for i in range(len(arrays))]  # fmt: skip
    answers.append(refused(name, arrays, one_or_all([broken(y) for y in expected]), attributes, expected))
    assert any(answers), name


def test_normal_refuses_broken_memory():
    with pytest.raises(ValueError, match="unbroken"):
        cpu.normal(np.zeros(1, np.int64), np.empty((4, 2))[:, 0], 0, 0, 0)


@pytest.mark.parametrize("name", FORMULAS)
def test_other_types_are_refused(name):
    """A kernel sees addresses only: numbers of a second type beside the first would be read as what they are not."""
    arrays, attributes = make(name, np.random.default_rng(2), 4, 6, 2, np.float64)
    results = as_tuple(getattr(cpu, name)(*arrays, out=None, **attributes))
    narrow = [np.empty((2, y.size), np.float32)[0].reshape(y.shape) for y in results]  # room for all
    with pytest.raises(TypeError, match="float"):
        getattr(cpu, name)(*arrays, out=one_or_all(narrow), **attributes)
    read = [i for i in range(len(arrays)) if UNREAD.get(name, {}).get(i) != slice(None)]
    for i in read:
        for kind in (np.float16, np.int64, *[np.float32] * (len(read) > 1)):
            with pytest.raises(TypeError, match="float"):
                getattr(cpu, name)(*arrays[:i], arrays[i].astype(kind), *arrays[i + 1 :], out=None, **attributes)


# ---- the same for the kernels around a step ------------------------------------------


def launches(dtype=np.float64, size=6):
    """Each launcher of test_step_kernels.py with arguments that it takes: arrays and attributes."""
    rng, rates, status, counters = np.random.default_rng(size), np.ones(2, dtype), np.ones(4), np.zeros(3, np.int64)
    draw = lambda *shape: rng.random(shape).astype(dtype)
    g, few = draw(size), [draw(size), draw(size), np.array(1.0, dtype)]
    methods = {name: ([draw(size), g, *draw(moments, size), rates, status], hyper)
               for name, (moments, hyper) in METHODS.items()}  # fmt: skip
    return methods | {
        "guard": ([few[2], g, status], {"max_norm": 1.0}), "weight_prior": ([g, draw(size)], {"factor": 0.1}),
        "accumulate": ([*few, np.zeros(7), status], {}), "tick": ([counters], {"batch": 4}),
        "next_rates": ([np.ones((3, 2), dtype), counters, np.ones(2, dtype)], {}),
        "next_indices": ([np.arange(9), counters, np.zeros(4, np.int64)], {"batch": 4}),
        "grey_rows": ([np.ones((3, size), np.uint8), np.arange(4) % 3, draw(4, size)], {"scale": 3.0}),
    }  # fmt: skip


@pytest.mark.parametrize("name", launches())
def test_broken_memory_is_refused_around_a_step(name):
    """Every array of these: none is copied, so what a step writes is never lost."""
    arrays, attributes = launches()[name]
    getattr(cpu, name)(*arrays, **attributes)
    for i, array in enumerate(arrays):
        wide = np.repeat(array[..., None], 2, axis=-1)[..., 0]
        if wide.flags.c_contiguous:
            continue
        with pytest.raises(ValueError, match=r"strides \(.*\); a kernel needs unbroken \(C-contiguous\) memory"):
            getattr(cpu, name)(*arrays[:i], wide, *arrays[i + 1 :], **attributes)


@pytest.mark.parametrize("name", [*METHODS, "guard", "weight_prior", "accumulate", "next_rates"])
def test_other_types_are_refused_around_a_step(name):
    """Numbers of two types in one call would be read as what they are not."""
    arrays, attributes = launches(np.float64)[name]
    narrow = launches(np.float32)[name][0]
    for i in (i for i, (a, b) in enumerate(zip(arrays, narrow, strict=True)) if a.dtype != b.dtype):
        with pytest.raises(TypeError, match="float"):
            getattr(cpu, name)(*arrays[:i], np.repeat(narrow[i], 2)[: narrow[i].size].reshape(narrow[i].shape),
                               *arrays[i + 1 :], **attributes)  # fmt: skip


# ---- where arrays lie ----------------------------------------------------------------
# A compiler that cannot know whether a result lies over a factor makes two loops, a fast one and a careful one, and
# looks at the addresses. If both do not add in the same order, the bits of a sum depend on where the arrays happen to
# be: a replayed step, which has arrays of its own, is then another one than the step run anew.


def side_by_side(arrays, gap):
    """Copies in one piece of memory, so many bytes between them."""
    memory, places, start = np.zeros(sum(a.nbytes + gap + 16 for a in arrays), np.uint8), [], 0
    for a in arrays:
        place = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
        place[...] = a
        places.append(place)
        start += -(-a.nbytes // 16) * 16 + gap
    return places


def check_places(launcher, arrays, attributes, results=()):
    """Whatever lies between the arrays, and in whatever order they lie, all end with the same bits."""
    expected = None
    for gap in (8192, 0, 16, 32, 64, 96, 128, 192, 256, 512):
        for back in (False, True):
            places = side_by_side([*arrays, *results][:: -1 if back else 1], gap)[:: -1 if back else 1]
            given, outs = places[: len(arrays)], places[len(arrays) :]
            launcher(*given, **({"out": one_or_all(outs)} if results else {}), **attributes)
            expected = expected or [a.copy() for a in places]
            for place, right in zip(places, expected, strict=True):
                assert_same_bits(place, right, f"{gap} bytes between the arrays")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
@given(batch=st.integers(1, 3), width=st.integers(1, 70), samples=st.integers(0, 2), seed=st.integers(0, 2**31),
       data=st.data())  # fmt: skip
def test_bits_do_not_depend_on_where_arrays_lie(name, dtype, batch, width, samples, seed, data):
    kind = data.draw(st.sampled_from(KINDS.get(name, ["tanh"])))
    arrays, attributes = make(name, np.random.default_rng(seed), batch, width, samples, dtype, kind)
    results = as_tuple(getattr(cpu, name)(*arrays, out=None, **attributes))
    check_places(getattr(cpu, name), arrays, attributes, [np.zeros_like(y) for y in results])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", launches())
@given(size=st.integers(1, 70))
def test_bits_do_not_depend_on_where_arrays_lie_around_a_step(name, dtype, size):
    arrays, attributes = launches(dtype, size)[name]
    check_places(getattr(cpu, name), arrays, attributes)


def test_bits_that_depend_on_the_place_are_found():
    """A sum that runs backwards where the result comes soon after the factor."""
    def careful(g, out):
        apart = out.__array_interface__["data"][0] - g.__array_interface__["data"][0] - g.nbytes
        out[...] = np.add.accumulate(g if not 0 <= apart < 100 else g[::-1])[-1]

    g = np.random.default_rng(0).normal(size=(9, 5))
    check_places(cpu.bias_grad, [g], {}, [np.zeros(5)])
    with pytest.raises(AssertionError, match="between the arrays: the bits differ"):
        check_places(careful, [g], {}, [np.zeros(5)])
