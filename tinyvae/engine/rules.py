"""The table of operations: one row each, with its value, one derivative for each input, and where to test it.

    rule(name, value, grads, domain)

`value(xp, *arrays, out, **attributes)` computes with plain arrays into `out` (None: a new array). A row marked
`view` takes no `out` and returns a view of its input, which costs nothing when the tape is replayed.

`grads` holds one function for each input: `(g, y, *inputs, **attributes)` gives the derivative of the loss by that
input, from g, the derivative by the output y. None in its place means that no gradient flows. These functions are
written in Tensor algebra, reached only as methods of their arguments. So this file imports nothing of tinyvae, a
gradient is itself differentiable, and the backward walk is made of ordinary operations that the tape records. An input
that was broadcast gets a gradient of the broadcast shape: the walk sums it back, once, for all rows.

`domain` gives each input the interval from which the property tests draw it.

A row may name its kernel, a faster form: `kernel="adam"` is the function `adam` of the kernels of a device (fusion.py).
If it has no `value` of its own, its `twin` is the readable form: a composition of other rows, run where the kernel
cannot serve. The other options are the fields of `Rule`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Interval(NamedTuple):
    """Where the tests draw an input from. Inputs of the kind "number" have derivatives and one floating type."""

    low: float
    high: float
    kind: str = "number"


ANY = Interval(-3, 3)
POSITIVE = Interval(0.1, 4)
NONZERO = Interval(0.3, 3)
ABOVE_MINUS_ONE = Interval(-0.8, 3)
UNIT = Interval(0, 1)
INDEX = Interval(0, 0, "index")  # whole numbers: indices, counters
FLAG = Interval(0, 1, "flag")  # truth values
DATA = Interval(0, 255, "data")  # stored pixels, state that operations change


@dataclass(eq=False)
class Rule:
    """A row of the table: an operation's name, value and derivatives, and what may run in place of the value."""

    name: str
    value: Callable | None
    grads: Any
    domain: tuple[Interval, ...] | Interval
    view: bool = False  # gives a view of its input
    outputs: int = 1
    writes: tuple[int, ...] = ()  # inputs that the operation changes in place instead of giving an output
    # ---- a twin in place of `value`, and a kernel
    twin: Callable | None = None  # the same operation composed of other rows: its specification
    kernel: str | None = None  # the name of its function in the kernels of a device; fusion.py looks it up
    replaced: bool = False  # does it stand in the place of another row of its name?
    prepare: Callable[..., dict[str, Any]] | None = None  # the kernel's attributes, of the arrays and the row's
    accepts: Callable[..., bool] | None = None  # can the kernel take these arrays?
    asks: str | None = None  # a function beside the kernel that is asked the same, of the attributes too
    strided: bool = False  # may the kernel's arrays be views with gaps?
    constants: tuple[int, ...] = ()  # inputs by which only the twin can differentiate
    # ---- for the property tests: the same value by another road, and the attributes to test it with
    reference: Callable | None = None
    example: dict[str, Any] = field(default_factory=dict)
    # ---- for tables: operations an element of the largest array, or a function `(y, *inputs)` of the arrays; exp, log,
    # a root and a division count as one each, integer arithmetic not at all
    flops: int | Callable[..., int] = 1
    picks: bool = False  # reads of its first input only as much as it writes
    overwrites: bool = False  # does not read what it writes
    kernels: dict[str, Any] = field(default_factory=dict)  # by device, as fusion.py found them

    def flows(self, i: int) -> bool:
        """Does a gradient flow from the output to input `i`?"""
        return not (isinstance(self.grads, tuple) and self.grads[i] is None)

    def domain_of(self, i: int) -> Interval:
        """The interval of input `i`; a row with any number of inputs has one interval for all of them."""
        return self.domain if isinstance(self.domain, Interval) else self.domain[i]


def of_shapes(condition: Callable[..., bool]) -> Callable[..., bool]:
    """For `accepts`: a condition on the shapes of the arrays."""
    return lambda *arrays: condition(*(array.shape for array in arrays))


TABLE: dict[str, Rule] = {}


def rule(name: str, value: Callable | None = None, grads: Any = None, domain: Any = (ANY,), replace: bool = False,
         **options: Any) -> Rule:
    """Add a row to the table, and return it; `options` are fields of `Rule`.

    Raises ValueError if the name is taken, unless `replace` says that the row is meant to change.
    """
    if not isinstance(name, str) or not (value is None or callable(value)):
        raise TypeError(f"found rule({name!r:.60}, {value!r:.60}); expected a name and a function (xp, *arrays, out)")
    if name in TABLE and not replace:
        raise ValueError(f"the operation {name!r} exists already; choose another name, or pass replace=True")
    TABLE[name] = Rule(name, value, grads, domain, replaced=name in TABLE, **options)
    return TABLE[name]


def into(out: Any, value: Any) -> Any:
    """What a row's value returns: `value`, or `out` with `value` written into it."""
    if out is None:
        return value
    out[...] = value
    return out


def elementwise(function: str) -> Callable:
    """The value of a row that is a NumPy function of the same name for one or two arrays."""
    return lambda xp, *arrays, out: getattr(xp, function)(*arrays, out=out)


# ---- arithmetic ------------------------------------------------------------------------------------------------------

rule("add", elementwise("add"), (lambda g, y, a, b: g, lambda g, y, a, b: g), (ANY, ANY))
rule("sub", elementwise("subtract"), (lambda g, y, a, b: g, lambda g, y, a, b: -g), (ANY, ANY))
rule("mul", elementwise("multiply"), (lambda g, y, a, b: g * b, lambda g, y, a, b: g * a), (ANY, ANY))
rule("div", elementwise("divide"), (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b), (ANY, NONZERO))
rule("neg", elementwise("negative"), (lambda g, y, a: -g,))


def _log_of_base(y: Any, a: Any, b: Any) -> Any:
    # This is log(a), but 0 where a^b = 0, because a^b log(a) -> 0 there, and 0 at a = b = 0, where it has no limit.
    return ((y == 0).where(0.0, (a == 0).where(b, 1.0)) == 0).where(1.0, a).log()


# The derivatives of a^b are b a^(b-1) by a, and a^b log(a) by b.
rule("pow", elementwise("power"),
     (lambda g, y, a, b: g * b.apply("scaled_pow", a, b - 1),
      lambda g, y, a, b: g * y * _log_of_base(y, a, b)), (POSITIVE, ANY))
# c a^b, and 0 where c = 0, also at a = 0 with b < 0. So the third derivative of a^2, which is 2 * 1 * 0 * a^-1, is 0.
rule("scaled_pow", lambda xp, c, a, b, out: xp.multiply(c, a ** xp.where(c == 0, xp.zeros_like(b), b), out=out),
     (lambda g, y, c, a, b: g * a**b,
      lambda g, y, c, a, b: g * (c * b).apply("scaled_pow", a, b - 1),
      lambda g, y, c, a, b: g * y * _log_of_base(y, a, b)), (ANY, POSITIVE, ANY))


def _per(g: Any, a: Any) -> Any:
    """g / a, a derivative that is infinite at a = 0; but where no gradient arrives (g = 0) none leaves."""
    return g / ((a == 0).where(g, 1.0) == 0).where(1.0, a)


rule("sqrt", elementwise("sqrt"), (lambda g, y, a: _per(g * 0.5, y),), (POSITIVE,))
# At a = 0 the derivative is 0, also where g is infinite; at a NaN it is NaN.
rule("abs", elementwise("absolute"), (lambda g, y, a: (a > 0).where(g, (a < 0).where(-g, a.detach())),), (NONZERO,))
rule("sign", elementwise("sign"), (None,), (NONZERO,))

# ---- exponentials ----------------------------------------------------------------------------------------------------

rule("exp", elementwise("exp"), (lambda g, y, a: g * y,))
rule("log", elementwise("log"), (lambda g, y, a: _per(g, a),), (POSITIVE,))
rule("expm1", elementwise("expm1"), (lambda g, y, a: g * (y + 1),))
rule("log1p", elementwise("log1p"), (lambda g, y, a: _per(g, a + 1),), (ABOVE_MINUS_ONE,))
rule("tanh", elementwise("tanh"), (lambda g, y, a: g * (1 - y * y),))
rule("tan", elementwise("tan"), (lambda g, y, a: g * (1 + y * y),), (UNIT,))


def sigmoid(xp: Any, a: Any, out: Any) -> Any:
    # 1 / (1 + exp(-a)) for a >= 0 and exp(a) / (1 + exp(a)) below: so exp never overflows, and small values keep digits
    small = xp.exp(-xp.abs(a))
    return xp.divide(xp.where(a >= 0, xp.ones_like(small), small), 1 + small, out=out)


# sigma(a) = 1 / (1 + exp(-a)) has the derivative exp(-a) / (1 + exp(-a))^2 = sigma(a) sigma(-a). The second factor is
# 1 - sigma(a), but that difference would lose its digits where sigma(a) is near 1.
rule("sigmoid", sigmoid, (lambda g, y, a: g * y * (-a).sigmoid(),))


def softplus(xp: Any, a: Any, out: Any) -> Any:
    # max(a, 0) + log(1 + exp(-|a|)), the same for either sign of a, where exp cannot overflow
    return xp.add(xp.maximum(a, 0), xp.log1p(xp.exp(-xp.abs(a))), out=out)


# softplus(a) = log(1 + exp(a)) has the derivative exp(a) / (1 + exp(a)) = sigma(a)
rule("softplus", softplus, (lambda g, y, a: g * a.sigmoid(),))

# ---- choices ---------------------------------------------------------------------------------------------------------
# Where two values tie, each gets half of the gradient. A NaN propagates: nothing is chosen then, so the value is NaN
# and so is the gradient of each candidate.


def _chosen(g: Any, a: Any, b: Any) -> Any:
    """The gradient of a, which is chosen where a > b."""
    return (a > b).where(g, (a == b).where(0.5 * g, (a < b).where(0.0, (g * float("nan")).detach())))


# Where a is not chosen, its gradient is y = max(a, 0), which is 0 there, and NaN at a NaN.
rule("relu", lambda xp, a, out: xp.maximum(a, 0, out=out), (lambda g, y, a: (a > 0).where(g, y),), (NONZERO,))
rule("maximum", elementwise("maximum"),
     (lambda g, y, a, b: _chosen(g, a, b), lambda g, y, a, b: _chosen(g, b, a)), (ANY, ANY))
rule("minimum", elementwise("minimum"),
     (lambda g, y, a, b: _chosen(g, b, a), lambda g, y, a, b: _chosen(g, a, b)), (ANY, ANY))


def _where(xp: Any, flag: Any, a: Any, b: Any, out: Any) -> Any:
    if out is None:
        return xp.where(flag, a, b)
    xp.copyto(out, b)
    xp.copyto(out, a, where=flag)
    return out


rule("where", _where, (None, lambda g, y, flag, a, b: flag.where(g, 0.0), lambda g, y, flag, a, b: flag.where(0.0, g)),
     (FLAG, ANY, ANY))
for _name in ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"):
    rule(_name, elementwise(_name), (None, None), (ANY, ANY))
# Truth values as the numbers 0 and 1.
rule("cast", lambda xp, flag, out, dtype: flag.astype(dtype) if out is None else xp.copyto(out, flag) or out,
     (None,), (FLAG,))

# ---- reductions ------------------------------------------------------------------------------------------------------
# `axis` is a tuple of axes, sorted and not negative; `keepdims` keeps them with length 1.


def _spread(g: Any, a: Any, axis: tuple[int, ...]) -> Any:
    """A reduced tensor back over the shape of `a`: the reduced axes return, as repetitions."""
    kept = tuple(1 if i in axis else n for i, n in enumerate(a.shape))
    return g.reshape(kept).broadcast_to(a.shape)


def _count(a: Any, axis: tuple[int, ...]) -> int:
    count = 1
    for i in axis:
        count *= a.shape[i]
    return count


def _max_grad(g: Any, y: Any, a: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    winners = (a == _spread(y, a, axis)).cast(g.dtype)
    return _spread(g, a, axis) * winners / _spread(winners.sum(axis), a, axis)


LONG = 256  # numbers of float32 that NumPy may add one after the other; each addition may lose half a rounding unit


def _sum(xp: Any, a: Any, out: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    # The sum of 2^20 equal numbers, added one by one in float32, is wrong by a hundredth; so long ones take float64.
    if _count(a, axis) <= LONG:
        return xp.sum(a, axis=axis, keepdims=keepdims, out=out)
    # The total gets memory of its own: into an `out` of float32 NumPy would round it after every 8,192 numbers.
    total = xp.sum(a, axis=axis, keepdims=keepdims, dtype=xp.float64)
    return total.astype(a.dtype) if out is None else into(out, total)


def _mean(xp: Any, a: Any, out: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    count = _count(a, axis)
    if not count:
        return into(out, xp.sum(a, axis=axis, keepdims=keepdims) * a.dtype.type("nan"))  # NumPy would also warn
    if count <= LONG:
        return xp.mean(a, axis=axis, keepdims=keepdims, out=out)
    mean = xp.mean(a, axis=axis, keepdims=keepdims, dtype=xp.float64)
    return mean.astype(a.dtype) if out is None else into(out, mean)


def _exponentials(xp: Any, a: Any, axis: tuple[int, ...]) -> tuple[Any, Any, Any]:
    # m = max a; a - m, whose exponential never overflows; and the sum of exp(a - m). a - m is 0 where a reaches m,
    # also an infinite one: so terms that go to infinity side by side share the sum, and all others count nothing.
    top = xp.amax(a, axis=axis, keepdims=True)
    tie, zeros = a == top, xp.zeros_like(a)
    below = xp.where(tie, zeros, a) - xp.where(tie, zeros, top)
    return top, below, _sum(xp, xp.exp(below), None, axis, True)


def logsumexp(xp: Any, a: Any, out: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    # log sum exp(a) = m + log sum exp(a - m)
    top, _, total = _exponentials(xp, a, axis)
    value = xp.add(xp.log(total), top)
    return into(out, value if keepdims else xp.squeeze(value, axis=axis))


def _softmax(xp: Any, a: Any, out: Any, axis: tuple[int, ...]) -> Any:
    _, below, total = _exponentials(xp, a, axis)
    return xp.divide(xp.exp(below), total, out=out)


def log_softmax(xp: Any, a: Any, out: Any, axis: tuple[int, ...]) -> Any:
    top, below, total = _exponentials(xp, a, axis)
    value = below - xp.log(total)
    return into(out, xp.where(top == -float("inf"), xp.full_like(a, float("nan")), value))  # no distribution


rule("sum", _sum, (lambda g, y, a, axis, keepdims: _spread(g, a, axis),))
rule("mean", _mean, (lambda g, y, a, axis, keepdims: _spread(g * (1 / max(1, _count(a, axis))), a, axis),))
rule("max", lambda xp, a, out, axis, keepdims: xp.amax(a, axis=axis, keepdims=keepdims, out=out), (_max_grad,))
# y = log sum_j exp(a_j) has dy/da_k = exp(a_k) / sum_j exp(a_j) = softmax(a)_k. Where all a_j are -inf, this is 1/n
# each, as for equal numbers that fall together; so it is finite, and 0 where no gradient arrives.
rule("logsumexp", logsumexp,
     (lambda g, y, a, axis, keepdims: _spread(g, a, axis) * a.apply("softmax", axis=axis),))
# y_i = a_i - log sum_j exp(a_j) has dy_i/da_k = [i = k] - softmax(a)_k, so sum_i g_i dy_i/da_k = g_k - y_k sum_i g_i
# with y = softmax(a); and softmax_i has the derivative y_i ([i = k] - y_k)
rule("log_softmax", log_softmax,
     (lambda g, y, a, axis: g - a.apply("softmax", axis=axis) * g.sum(axis, keepdims=True),))
rule("softmax", _softmax, (lambda g, y, a, axis: y * (g - (y * g).sum(axis, keepdims=True)),))

# ---- products --------------------------------------------------------------------------------------------------------
# The last two axes are multiplied, the others are batches: (..., m, k) @ (..., k, n) = (..., m, n).

# With Y = A B and G = dL/dY: y_ij = sum_k a_ik b_kj, hence dL/da_ik = sum_j g_ij b_kj, which is G B^T, and
# dL/db_kj = sum_i a_ik g_ij, which is A^T G. `tf32` lets a GPU round the factors (fusion.py).
rule("matmul", lambda xp, a, b, out, tf32=False: xp.matmul(a, b, out=out),
     (lambda g, y, a, b, **_: g @ b.swap(), lambda g, y, a, b, **_: a.swap() @ g), (ANY, ANY),
     kernel="matmul", asks="multiplies", strided=True, flops=lambda y, a, b: 2 * y.size * a.shape[-1])

# ---- shapes ----------------------------------------------------------------------------------------------------------

rule("reshape", lambda xp, a, shape: a.reshape(shape), (lambda g, y, a, shape: g.reshape(a.shape),), view=True)
rule("transpose", lambda xp, a, axes: a.transpose(axes),
     (lambda g, y, a, axes: g.transpose(tuple(axes.index(i) for i in range(len(axes)))),), view=True)
# The gradient keeps the broadcast shape; the walk sums it.
rule("broadcast_to", lambda xp, a, shape: xp.broadcast_to(a, shape), (lambda g, y, a, shape: g,), view=True)
rule("slice", lambda xp, a, key: a[key], (lambda g, y, a, key: g.unslice(key=key, shape=a.shape),), view=True)
rule("detach", lambda xp, a: a[...], (None,), view=True)
# A copy in unbroken memory, whatever the strides of the input.
rule("copy", lambda xp, a, out: xp.array(a, order="C") if out is None else xp.copyto(out, a) or out,
     (lambda g, y, a: g,))

# Copies `a` into the array `home`.
rule("store", lambda xp, a, home: xp.copyto(home, a), domain=(ANY, ANY), writes=(1,), overwrites=True)


def _unslice(xp: Any, g: Any, out: Any, key: Any, shape: tuple[int, ...]) -> Any:
    out = xp.empty(shape, dtype=g.dtype) if out is None else out
    out[...] = 0
    out[key] = g
    return out


rule("unslice", _unslice, (lambda g, y, a, key, shape: g[key],))
rule("split", lambda xp, a, axis, parts: tuple(xp.split(a, parts, axis=axis)),
     lambda gs, ys, a, axis, parts: (gs[0].concatenate(*gs[1:], axis=axis),), view=True, outputs=-1)


def _concatenate_grads(g: Any, y: Any, *parts: Any, axis: int) -> tuple[Any, ...]:
    start, slices = 0, []
    for part in parts:
        stop = start + part.shape[axis]
        slices.append(g[(slice(None),) * axis + (slice(start, stop),)])
        start = stop
    return tuple(slices)


rule("concatenate", lambda xp, *arrays, out, axis: xp.concatenate(arrays, axis=axis, out=out), _concatenate_grads, ANY)


def _gather(xp: Any, a: Any, index: Any, out: Any) -> Any:
    if index.dtype.kind not in "iu":
        raise TypeError(f"gather found indices of type {index.dtype}; expected whole numbers (for a mask: flag.where)")
    if index.size and not -len(a) <= xp.read(index.min()) <= xp.read(index.max()) < len(a):
        raise IndexError(f"gather found indices from {index.min()} to {index.max()}; expected them below {len(a)}")
    return xp.take(a, index, axis=0, out=out, **xp.checked)  # all are in bounds, as `checked` assumes


def _scatter(xp: Any, g: Any, index: Any, out: Any, rows: int) -> Any:
    out = xp.empty((rows, *g.shape[index.ndim :]), dtype=g.dtype) if out is None else out
    out[...] = 0
    xp.add_rows(out, index, g)
    return out


rule("gather", _gather, (lambda g, y, a, index: g.scatter(index, rows=a.shape[0]), None), (ANY, INDEX),
     picks=True)
rule("scatter", _scatter, (lambda g, y, a, index, rows: g[index], None), (ANY, INDEX))

# ---- special functions -----------------------------------------------------------------------------------------------

def _lgamma(xp: Any, a: Any, out: Any) -> Any:
    value, tiny = xp.special.gammaln(a), (a != 0) & (xp.abs(a) < 1e-300)  # SciPy's is infinite there
    return into(out, xp.where(tiny, -xp.log(xp.where(tiny, xp.abs(a), xp.ones_like(a))), value))


rule("lgamma", _lgamma, (lambda g, y, a: g * a.polygamma(0),), (POSITIVE,), kernel="lgamma")


def _polygamma(xp: Any, a: Any, out: Any, order: int) -> Any:
    # SciPy computes in float64 whatever it is given; the row answers in the type of its input. At 0 it gives the limit
    # from above. A pole at a negative whole number has no value, nor has what lies below -1e6.
    x = xp.where(a == 0, xp.zeros_like(a), a)  # -0 is 0
    value = xp.special.digamma(x) if order == 0 else xp.special.polygamma(xp.asarray(order), x)
    value = xp.where((a < 0) & ((a == xp.floor(a)) | (a <= -1e6)), xp.nan, value)
    return into(out, value.astype(a.dtype))


# The n-th derivative of digamma, whose own derivative is the same row with n + 1.
rule("polygamma", _polygamma, (lambda g, y, a, order: g * a.polygamma(order + 1),), (POSITIVE,),
     kernel="polygamma")
rule("erf", lambda xp, a, out: xp.special.erf(a, out=out),
     (lambda g, y, a: g * 1.1283791670955126 * (-a * a).exp(),))  # 2 / sqrt(pi)
