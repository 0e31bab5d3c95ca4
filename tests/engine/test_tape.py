"""The tape: what it records, prints and replays, and the backward sweep over it."""

import gc
import math
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close, assert_same_bits, make_wrong

import tinyvae as tv
from tinyvae.engine.program import write_into
from tinyvae.engine.tape import TapeError, recording


def leaf(values, dtype=np.float64):
    return tv.Tensor(np.array(values, dtype), requires_grad=True)


# ---- replay --------------------------------------------------------------------------

UNARY = {
    "tanh": lambda a: a.tanh(), "sigmoid": lambda a: a.sigmoid(), "neg": lambda a: -a,
    "softplus": lambda a: a.softplus(),
    "sum": lambda a: a.sum(-1, keepdims=True), "mean": lambda a: a.mean(-1, keepdims=True),
    "logsumexp": lambda a: a.logsumexp(-1, keepdims=True), "flip": lambda a: a[..., ::-1],
    "spread": lambda a: a.broadcast_to((3, 4)), "copy": lambda a: a.apply("copy"), "stop": lambda a: a.detach(),
    "relu": lambda a: a.relu(), "turn": lambda a: a.broadcast_to((3, 4)).T.contiguous().T,
    "flat": lambda a: a.reshape(-1).reshape(a.shape),
    "halves": lambda a: a.broadcast_to((3, 4)).split(2)[1].sum(-1, True),
    "pick": lambda a: a.broadcast_to((3, 4))[[2, 0, 2]], "exp": lambda a: (0.1 * a.tanh()).exp(),
}  # fmt: skip
BINARY = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "max": lambda a, b: a.maximum(b),
    "choose": lambda a, b: (a > b).where(a, b), "join": lambda a, b: a.concatenate(a, axis=-1).sum(-1, True) * b,
    "product": lambda a, b: a.broadcast_to((3, 4)) @ b.broadcast_to((3, 4)).T @ a.broadcast_to((3, 4)),
}  # fmt: skip
SHAPES = ((3, 4), (4,), (3, 1))
programs = st.lists(st.one_of(
    st.tuples(st.sampled_from(list(UNARY)), st.integers(0, 99)),
    st.tuples(st.sampled_from(list(BINARY)), st.integers(0, 99), st.integers(0, 99)),
), min_size=1, max_size=8)  # fmt: skip


def run(program, leaves):
    """Each step takes earlier values by number; returns all values and the gradients of their bounded sum."""
    values = list(leaves)
    for name, *operands in program:
        values.append((UNARY.get(name) or BINARY[name])(*(values[i % len(values)] for i in operands)))
    total = sum(v.tanh().sum() for v in values)
    return [*values, total, *tv.grad(total, leaves)]


def check_replay(program, seed, dtype):
    rng = np.random.default_rng(seed)
    first, second = ([rng.normal(size=s).astype(dtype) for s in SHAPES] for _ in range(2))
    leaves = [tv.Tensor(a, requires_grad=True) for a in first]
    with tv.Tape() as tape:
        recorded = run(program, leaves)
    for buffer, new in zip(first, second, strict=True):
        buffer[...] = new
    for _ in range(2):  # a second replay finds nothing left over from the first
        tape.replay()
        expected = run(program, [tv.Tensor(a, requires_grad=True) for a in second])
        for found, reference in zip(recorded, expected, strict=True):
            assert_same_bits(found.data, reference.data, str(program))


@given(programs, st.integers(0, 2**31), st.sampled_from([np.float32, np.float64]))
def test_replay_equals_eager(program, seed, dtype):
    """A recorded program with its gradients, run again over new inputs, gives the bits of a fresh eager run."""
    check_replay(program, seed, dtype)


@pytest.mark.parametrize("value", [
    lambda xp, a, out: xp.tanh(a),  # forgets the buffer
    lambda xp, a, out: xp.add(out, xp.tanh(a), out=out) if out is not None else xp.tanh(a),  # adds to what was there
])  # fmt: skip
def test_a_row_that_cannot_be_replayed_is_found(monkeypatch, value):
    make_wrong(monkeypatch, "tanh", value=value)
    with pytest.raises(AssertionError, match="bits differ"):
        check_replay([("mul", 0, 1)], 1, np.float64)


def test_replay_allocates_no_results():
    """A replay writes where the first run wrote: the arrays are the same objects, and their number does not grow."""
    x = leaf(np.linspace(-1, 1, 200_000))
    with tv.Tape() as tape:
        y = (x.tanh() * x + 1.0).sum()
        g = tv.grad(y, x)
    before = [array for launch in tape.launches for array in launch.outputs]
    tape.replay()
    tracemalloc.start()
    tape.replay()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    after = [array for launch in tape.launches for array in launch.outputs]
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert g.data is after[[id(a) for a in after].index(id(g.data))]
    assert peak < x.data.nbytes / 10


def test_single_numbers_out_of_a_vector_are_renewed():
    """x[0] of a vector is a view: a copy would keep the value of the first run."""
    x = leaf([1.0, 2.0, 3.0])
    with tv.Tape() as tape:
        y = (x * 2)[0] + (x * 3)[1:][-1] + (x @ x)
    x.data[...] = (4.0, 5.0, 6.0)
    tape.replay()
    assert float(y.data) == 8 + 18 + 77


def test_a_tape_entered_again_goes_on():
    """Launches recorded after a replay belong to the program too."""
    x = leaf([1.0])
    tape = tv.Tape()
    with tape:
        y = x * 2.0
    tape.replay()
    with tape:
        z = y + 1.0
    x.data[...] = 5
    tape.replay()
    assert (y.data[0], z.data[0]) == (10, 11)


def test_nested_and_failed_recordings():
    """An inner tape takes the inner launches; an exception ends the recording; one tape does not record twice."""
    x = leaf([1.0])
    with tv.Tape() as outer:
        x * 1.0
        with tv.Tape() as inner:
            x * 2.0
            x * 3.0
        x * 4.0
        with pytest.raises(TapeError, match="recording already"), outer:
            pass
        with pytest.raises(TapeError, match="inside the recording"):
            outer.replay()
    assert (len(outer), len(inner)) == (2, 2)
    with pytest.raises(KeyError), tv.Tape():
        raise KeyError
    assert recording() is None


# ---- the table -----------------------------------------------------------------------


def test_print_is_a_table():
    """One line a launch: operation, shapes, FLOPs (2 m k n of a product), bytes; the sums below; views cost nothing."""
    x, w = leaf(np.ones((5, 3)), np.float32), leaf(np.ones((3, 2)), np.float32)
    with tv.Tape() as tape:
        (x @ w).tanh().reshape(-1)
    lines = str(tape).splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert cells[0] == ["operation", "inputs", "outputs", "FLOP", "bytes"]
    assert cells[1] == ["0", "matmul", "5x3 3x2", "5x2", "60", str(4 * (15 + 6 + 10))]
    assert cells[2] == ["1", "tanh", "5x2", "5x2", "10", "80"]
    assert cells[3] == ["2", "reshape (view)", "5x2", "10", "0", "0"]
    assert cells[4] == ["2 launches", "70", "204"]
    assert len({len(line) for line in lines}) == 1, "the columns line up"
    assert len(tape) == 3


def test_batched_products_count_every_batch():
    a, b = leaf(np.ones((7, 5, 3))), leaf(np.ones((3, 2)))
    with tv.Tape() as tape:
        a @ b
    assert f"{2 * 7 * 5 * 3 * 2} " in str(tape)


def test_profile_times_each_working_launch():
    x = leaf(np.ones(10))
    with tv.Tape() as tape:
        x.tanh()[1:].exp().sum()
    times = tv.measure.profile(tape, rounds=3)
    assert [launch.rule.name for launch, _ in times] == ["tanh", "exp", "sum"]
    assert all(0 <= seconds < 1 for _, seconds in times)


# ---- values that would be frozen -----------------------------------------------------


@pytest.mark.parametrize("use", [
    float, int, bool, np.asarray, lambda t: t.item(), lambda t: t.numpy(), lambda t: t if t else None,
    lambda t: np.add(np.ones(()), t.numpy()),
])  # fmt: skip
def test_values_cannot_be_frozen(use):
    """Under a tape a recorded value must not become a Python number or a NumPy array: a replay would not renew it."""
    x = leaf(2.0)
    use(x * 1.0)  # without a tape it may
    with tv.Tape():
        use(x)  # a leaf is not made by the tape
        y = x * x
        with pytest.raises(TapeError, match=r"value of a recorded mul .* frozen .* after the `with Tape"):
            use(y)
    use(y)


def test_an_input_made_outside_the_tape():
    """Data from outside are constants; what depends on a parameter would be stale in a replay, and is refused."""
    w = leaf([1.0, 2.0])
    outside, data = w * 3.0, tv.Tensor(np.ones(2)) * 3.0
    with tv.Tape():
        (w * data).sum()
        with pytest.raises(TapeError, match=r"mul was given the result of mul.* outside this tape"):
            w * outside
        w * outside.data  # as a plain array it is a choice


def test_backward_inside_a_tape():
    """x.grad would keep the gradient of the first run; tv.grad is renewed."""
    x = leaf([3.0])
    with tv.Tape():
        y = (x * x).sum()
        with pytest.raises(TapeError, match=r"use tinyvae\.grad"):
            y.backward()


# ---- write_into -------------------------------------------------------------------------


def recorded_gradient(x):
    return tv.grad((x * x * x).sum(), x)


def test_deposit_writes_into_its_home():
    """The launch that made the gradient writes straight into its part of the flat vector, in replays too."""
    x, flat = leaf([1.0, 2.0]), np.zeros(6)
    with tv.Tape() as tape:
        g = recorded_gradient(x)
        launches = len(tape)
        write_into(g, flat[2:4])
    assert len(tape) == launches, "no copy was recorded"
    assert_close(flat, [0, 0, 3, 12, 0, 0], 1)
    x.data[...] = (3.0, 4.0)
    tape.replay()
    assert_close(flat, [0, 0, 27, 48, 0, 0], 1)
    assert np.shares_memory(g.data, flat)


def test_deposit_copies_what_somebody_reads():
    """A launch bound to the old array would go on reading it, so the value is copied into its home instead."""
    x, home = leaf([1.0, 2.0]), np.zeros(2)
    with tv.Tape() as tape:
        g = recorded_gradient(x)
        norm = (g * g).sum()
        write_into(g, home)
    assert tape.launches[-1].rule.name == "store"
    x.data[...] = (3.0, 4.0)
    tape.replay()
    assert_close(home, [27, 48], 1)
    assert_close(norm.data, 27**2 + 48**2, 1)


def test_deposit_of_views_and_leaves_copies():
    x, homes = leaf([[1.0, 2.0], [3.0, 4.0]]), [np.zeros((2, 2)), np.zeros((2, 2))]
    with tv.Tape() as tape:
        write_into((x * 2.0).T, homes[0])
        write_into(x, homes[1])
    x.data[...] = [[5.0, 6.0], [7.0, 8.0]]
    tape.replay()
    assert_same_bits(homes[0], np.array([[10.0, 14.0], [12.0, 16.0]]))
    assert_same_bits(homes[1], x.data)


def test_two_homes_of_one_value():
    """Two parameters whose gradients are equal by construction: both homes are renewed, none forgotten."""
    a, b, scale = leaf([1.0, 2.0]), leaf([1.0, 2.0]), np.array([1.0, 10.0])
    homes = [np.zeros(2) for _ in range(3)]
    with tv.Tape() as tape:
        by_a, by_b = tv.grad(((a + b) * scale).sum(), [a, b])
        for g, home in zip((by_a, by_b, by_a), homes, strict=True):
            write_into(g, home)
    scale[...] = (7.0, 8.0)
    tape.replay()
    for home in homes:
        assert_same_bits(home, scale)


def test_deposit_into_broken_memory_copies():
    """A kernel writes unbroken memory only: every second place of a vector is reached by a copy."""
    pre, home = leaf(np.zeros((2, 3))), np.zeros((2, 6))[:, ::2]
    with tv.Tape() as tape:
        write_into(tv.apply("bias_activation", pre, np.ones(3), kind="tanh"), home)
        with pytest.raises(TypeError, match="store found float64 and float32"):
            write_into(pre * 2.0, np.zeros((2, 3), np.float32))
    pre.data[...] = 1
    tape.replay()
    assert_close(home, np.full((2, 3), np.tanh(2)), 2)


def test_deposit_without_a_tape():
    home = np.zeros(2)
    write_into(leaf([1.0, 2.0]) * 2.0, home)
    assert_same_bits(home, np.array([2.0, 4.0]))


# ---- the walk ------------------------------------------------------------------------


def test_the_example_of_four_tensors():
    """L = a exp(a) + exp(a), as the docstring of tape.py counts: dL/db = 1 + a, dL/da = b + (1 + a) b."""
    a = leaf(0.7)
    b = a.exp()
    c = a * b
    by_a, by_b, by_c = tv.grad(c + b, [a, b, c])
    assert by_c.item() == 1
    assert by_b.item() == 1 + 0.7
    assert_close(by_a.data, math.exp(0.7) + 1.7 * math.exp(0.7), 4)


def test_a_hundred_thousand_operations_in_a_chain():
    """Differentiated by a loop and released without recursion: depth is no limit."""
    x = leaf([1.0])
    y = x
    for _ in range(100_000):
        y = y + 1e-5
    g = tv.grad(y.sum(), x)
    assert g.data[0] == 1
    del y, g  # releasing the chain must not overflow the stack either
    y = x
    for _ in range(1_000):
        y = y * 1.001
    assert_close(tv.grad(y.sum(), x).data, [1.001**1000], 2000)


def train(graphs, keep=None):
    x = leaf(np.ones((50, 20)))
    for _ in range(graphs):
        y = (x.tanh() * x).sum()
        g = tv.grad(y, x)
        (g * x).sum().backward()
        x.grad = None
        if keep is not None:
            keep.append(y)


def memory_after(graphs, keep=None):
    """Bytes held after so many passes, with the garbage collector off: released by counting alone, without cycles."""
    gc.disable()
    tracemalloc.start()
    try:
        train(graphs, keep)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()


def check_memory(keep=None, many=600):
    train(1000)  # Python keeps a few thousand small objects for reuse: those first
    ten, after = memory_after(10, keep), memory_after(many, keep)
    assert after <= ten + 12_000, f"{ten} bytes after 10 graphs, {after} after {many}"


def test_graphs_are_released():
    """Memory after 600 graphs is that after 10; two graphs would hold more than the difference allowed."""
    check_memory()


def test_a_kept_graph_is_found():
    with pytest.raises(AssertionError, match="bytes after 10 graphs"):
        check_memory(keep=[], many=20)


def test_backward_twice_adds_twice():
    """c = 3 a^2 at a = 2 has slope 12: 24 after two calls. Stale gradients of inner values would make it 36."""
    a = leaf(2.0)
    c = (a * a) * 3.0
    c.backward()
    assert a.grad.item() == 12
    c.backward()
    assert a.grad.item() == 24
    a.grad = None
    c.backward()
    assert a.grad.item() == 12


def test_backward_reaches_all_leaves():
    """Every leaf with requires_grad gets its gradient, also one that is the output itself; others get none."""
    a, b, plain = leaf([1.0]), leaf([2.0]), tv.Tensor(np.array([3.0]))
    (a * b * plain + a).sum().backward()
    assert (a.grad.item(), b.grad.item(), plain.grad) == (7, 3, None)
    a.grad = None
    a.sum().backward()
    only = leaf(5.0)
    only.backward()
    assert (a.grad.item(), only.grad.item()) == (1, 1)


def test_grad_twice_is_the_same():
    x = leaf([1.0, 2.0])
    y = (x.exp() * x).sum()
    first, second = tv.grad(y, x), tv.grad(y, x)
    assert_same_bits(first.data, second.data)
    assert x.grad is None, "grad returns and leaves no trace"
    assert not np.shares_memory(first.data, second.data)


def test_fan_in_sums_in_a_fixed_order():
    """From the last use to the first: -1e16 + 1 + 1e16 is 0 in this order and 1 in another."""
    x = leaf([1.0])
    for _ in range(20):
        uses = [x * 1e16, x * 1.0, x * -1e16]
        assert tv.grad((uses[0] + uses[1] + uses[2]).sum(), x).data[0] == 0.0
        assert tv.grad((uses[2] + uses[1] + uses[0]).sum(), x).data[0] == 0.0


def test_fan_in_spares_the_contributions():
    """The sum of contributions goes into a buffer of its own: the seed and other gradients stay what they were."""
    x, seed = leaf([1.0, 2.0]), np.array([1.0, 10.0])
    y = x + x + x
    assert_same_bits(tv.grad(y, x, seed=seed).data, np.array([3.0, 30.0]))
    assert_same_bits(seed, np.array([1.0, 10.0]))


def launches_of(make):
    with tv.Tape() as tape:
        make()
    return [launch.rule.name for launch in tape.launches]


def test_only_asked_gradients_are_computed():
    """The gradient by one factor costs one product; branches without a wanted tensor are not visited."""
    a, b, c = leaf(np.ones((4, 3))), leaf(np.ones((3, 2))), leaf(np.ones((2, 2)))
    forward = ["matmul", "tanh", "sum"]

    def products(*wanted):
        names = launches_of(lambda: tv.grad(((a @ b).tanh() @ c).sum(), list(wanted)))
        return names.count("matmul") - 2, names.count("mul")

    assert launches_of(lambda: (a @ b).tanh().sum()) == forward
    assert products(c) == (1, 0)  # not even the slope of tanh
    assert products(a) == (2, 2)
    assert products(b) == (2, 2)
    assert products(a, b, c) == (4, 2)


def test_gradient_by_an_inner_value():
    """Also a value inside the graph can be asked for, beside a leaf before it, and the output itself."""
    x = leaf([1.0, 2.0])
    y = x * x
    z = (y * 3.0).sum()
    by_y, by_x, by_z = tv.grad(z, [y, x, z])
    assert_same_bits(by_y.data, np.array([3.0, 3.0]))
    assert_same_bits(by_x.data, np.array([6.0, 12.0]))
    assert by_z.item() == 1


def test_unreached_tensors_get_zeros():
    x, other = leaf([1.0]), leaf(np.ones((2, 3)), np.float32)
    by_x, by_other = tv.grad((x * 2.0).sum(), [x, other])
    assert by_x.data[0] == 2
    assert_same_bits(by_other.data, np.zeros((2, 3), np.float32))
    stopped = tv.grad((x.detach() * x).sum(), x)
    assert stopped.data[0] == 1


def test_several_outputs_of_which_one_is_used():
    """A row with several outputs gets zeros for those that the loss does not use."""
    x = leaf(np.arange(6.0))
    _, right = x.split(2)
    assert_same_bits(tv.grad((right * right).sum(), x).data, np.array([0, 0, 0, 6.0, 8.0, 10.0]))


def test_a_fused_row_has_no_second_derivative():
    """It says so, and what to do; the twin has one."""
    pre, bias = leaf(np.ones((2, 3))), leaf(np.zeros(3))

    def curvature():
        g = tv.grad(tv.apply("bias_activation", pre, bias, kind="tanh").sum(), bias)
        return tv.grad((g * g).sum(), bias)

    with pytest.raises(TapeError, match=r"no second derivative.*tinyvae.fused\(False\)"):
        curvature()
    with tv.fused(False):
        t = np.tanh(1.0)
        assert_close(curvature().data, np.full(3, 2 * (2 * (1 - t**2)) * 2 * (-2 * t) * (1 - t**2)), 8)


def test_third_derivative():
    x = leaf([0.3, -1.2])
    y = x**4
    for factor, power in ((4, 3), (12, 2), (24, 1)):
        y = tv.grad(y.sum(), x)
        assert_close(y.data, factor * x.data**power, 16)


def test_first_nonfinite_names_the_launch():
    """The first launch of the list, not the last one that the infinity reached."""
    x = leaf([1.0, 2.0])
    with tv.Tape() as tape:
        y = ((x.log() + 1.0).exp() * 2.0).sum()
    assert tape.first_nonfinite() is None
    x.data[...] = (0.0, 1.0)
    tape.replay()
    launch, values = tape.first_nonfinite()
    assert (launch.rule.name, str(launch)) == ("log", "log((2,))")
    assert np.isneginf(values[0])
    assert np.isfinite(y.data), "exp(-inf) is 0, so the loss alone would not have told"
