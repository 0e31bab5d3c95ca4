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
    if name in TABLE and not replace:
        raise ValueError(f"the operation {name!r} exists already; choose another name, or pass replace=True")
    TABLE[name] = Rule(name, value, grads, domain, **options)
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
# The derivative of a^b by b is log(a) a^b. Its limit at a = 0 is 0 (b > 0), where log(a) a^b would be -inf * 0.
rule("pow", elementwise("power"),
     (lambda g, y, a, b: g * b * a ** (b - 1),
      lambda g, y, a, b: g * y * (a == 0).where(1.0, a).log()), (POSITIVE, ANY))
rule("sqrt", elementwise("sqrt"), (lambda g, y, a: g * 0.5 / y,), (POSITIVE,))
rule("abs", elementwise("absolute"), (lambda g, y, a: g * a.sign(),), (NONZERO,))
rule("sign", elementwise("sign"), (None,), (NONZERO,))

# ---- exponentials ----------------------------------------------------------------------------------------------------

rule("exp", elementwise("exp"), (lambda g, y, a: g * y,))
rule("log", elementwise("log"), (lambda g, y, a: g / a,), (POSITIVE,))
rule("expm1", elementwise("expm1"), (lambda g, y, a: g * (y + 1),))
rule("log1p", elementwise("log1p"), (lambda g, y, a: g / (a + 1),), (ABOVE_MINUS_ONE,))
rule("tanh", elementwise("tanh"), (lambda g, y, a: g * (1 - y * y),))
rule("tan", elementwise("tan"), (lambda g, y, a: g * (1 + y * y),), (UNIT,))


def _sigmoid(xp: Any, a: Any, out: Any) -> Any:
    # 1 / (1 + exp(-a)) for a >= 0 and exp(a) / (1 + exp(a)) below: so exp never overflows, and small values keep digits
    small = xp.exp(-xp.abs(a))
    return xp.divide(xp.where(a >= 0, xp.ones_like(small), small), 1 + small, out=out)


# sigma(a) = 1 / (1 + exp(-a)) has the derivative exp(-a) / (1 + exp(-a))^2 = sigma(a) sigma(-a). The second factor is
# 1 - sigma(a), but that difference would lose its digits where sigma(a) is near 1.
rule("sigmoid", _sigmoid, (lambda g, y, a: g * y * (-a).sigmoid(),))
# softplus(a) = log(1 + exp(a)) has the derivative exp(a) / (1 + exp(a)) = sigma(a). It is computed as
# max(a, 0) + log(1 + exp(-|a|)), the same for either sign of a, where exp cannot overflow.
rule("softplus", lambda xp, a, out: xp.add(xp.maximum(a, 0), xp.log1p(xp.exp(-xp.abs(a))), out=out),
     (lambda g, y, a: g * a.sigmoid(),))

# ---- choices ---------------------------------------------------------------------------------------------------------
# Where two values tie, each gets half of the gradient.

rule("relu", lambda xp, a, out: xp.maximum(a, 0, out=out), (lambda g, y, a: (a > 0).where(g, 0.0),), (NONZERO,))
rule("maximum", elementwise("maximum"),
     (lambda g, y, a, b: g * ((a > b).cast(g.dtype) + 0.5 * (a == b).cast(g.dtype)),
      lambda g, y, a, b: g * ((b > a).cast(g.dtype) + 0.5 * (a == b).cast(g.dtype))), (ANY, ANY))
rule("minimum", elementwise("minimum"),
     (lambda g, y, a, b: g * ((a < b).cast(g.dtype) + 0.5 * (a == b).cast(g.dtype)),
      lambda g, y, a, b: g * ((b < a).cast(g.dtype) + 0.5 * (a == b).cast(g.dtype))), (ANY, ANY))


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


def _logsumexp(xp: Any, a: Any, out: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    # log sum exp(a) = m + log sum exp(a - m) with m = max a, so exp never overflows; where m is infinite, m = 0 gives
    # the right limits
    top = xp.amax(a, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    total = xp.sum(xp.exp(a - top), axis=axis, keepdims=keepdims)
    return xp.add(xp.log(total), top if keepdims else xp.squeeze(top, axis=axis), out=out)


rule("sum", lambda xp, a, out, axis, keepdims: xp.sum(a, axis=axis, keepdims=keepdims, out=out),
     (lambda g, y, a, axis, keepdims: _spread(g, a, axis),))
rule("mean", lambda xp, a, out, axis, keepdims: xp.mean(a, axis=axis, keepdims=keepdims, out=out),
     (lambda g, y, a, axis, keepdims: _spread(g * (1 / _count(a, axis)), a, axis),))
rule("max", lambda xp, a, out, axis, keepdims: xp.amax(a, axis=axis, keepdims=keepdims, out=out), (_max_grad,))
# y = log sum_j exp(a_j) has dy/da_k = exp(a_k) / sum_j exp(a_j) = exp(a_k - y)
rule("logsumexp", _logsumexp,
     (lambda g, y, a, axis, keepdims: _spread(g, a, axis) * (a - _spread(y, a, axis)).exp(),))
# y_i = a_i - log sum_j exp(a_j) has dy_i/da_k = [i = k] - exp(y_k), so sum_i g_i dy_i/da_k = g_k - exp(y_k) sum_i g_i
rule("log_softmax",
     lambda xp, a, out, axis: xp.subtract(a, _logsumexp(xp, a, None, axis, True), out=out),
     (lambda g, y, a, axis: g - y.exp() * g.sum(axis, keepdims=True),))

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
    xp.add.at(out, index, g)
    return out


rule("gather", _gather, (lambda g, y, a, index: g.scatter(index, rows=a.shape[0]), None), (ANY, INDEX),
     picks=True)
rule("scatter", _scatter, (lambda g, y, a, index, rows: g[index], None), (ANY, INDEX))

# ---- special functions -----------------------------------------------------------------------------------------------

def _lgamma(xp: Any, a: Any, out: Any) -> Any:
    value, tiny = xp.special.gammaln(a), (a != 0) & (xp.abs(a) < 1e-300)  # SciPy's is infinite there
    return into(out, xp.where(tiny, -xp.log(xp.where(tiny, xp.abs(a), xp.ones_like(a))), value))


rule("lgamma", _lgamma, (lambda g, y, a: g * a.polygamma(0),), (POSITIVE,),
     kernel="lgamma")


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
