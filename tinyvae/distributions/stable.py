"""Tensors that keep their logarithm, so that it stays exact where the number itself underflows to 0 (see base.py).

A draw is a tensor z that carries log z: `z.log()` returns the one that was kept instead of log(0), and changes of shape
and powers carry it on. Nothing is clamped, and formulas written in log z have finite values and derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyvae.engine.rules import ANY, POSITIVE, into, rule
from tinyvae.engine.tensor import Tensor, apply


def over_exp(xp: Any, a: Any, log: Any, out: Any = None) -> Any:
    """a / z of arrays that broadcast, from a and log z."""
    # It is computed as a / sqrt(z) / sqrt(z), which is right also where 1 / z overflows, and 0 for a = 0 whatever z is.
    # Where even 1 / sqrt(z) would overflow, the largest number stands for it, and the quotient still overflows.
    most = float(np.log(np.finfo(a.dtype).max)) - 0.02
    root = xp.exp(xp.clip(-0.5 * log, -most, most))
    return xp.multiply(a * root, root, out=out)


# With y = a / z, dy/da = 1 / z and dy/dlog z = -y.
rule("over_exp", over_exp,
     (lambda g, y, a, log: g.apply("over_exp", log), lambda g, y, a, log: -(g * y)), (ANY, ANY),
     reference=lambda a, log: a / np.exp(log))


class LogTensor(Tensor):
    """A positive tensor z = exp(log z) that keeps log z; z itself may round to 0 or infinity where log z is finite."""

    __slots__ = ("_log",)

    def __init__(self, log: Tensor, z: Tensor | None = None) -> None:
        z = log.exp() if z is None else z
        super().__init__(z.data, z.requires_grad, z.launch, z.index, z.name)
        self._log = log

    def log(self) -> Tensor:
        """The kept log z."""
        return self._log

    def __pow__(self, power: Any) -> Tensor:
        return LogTensor(self._log * power) if isinstance(power, (int, float)) else super().__pow__(power)

    def sqrt(self) -> Tensor:
        return self**0.5

    def __rtruediv__(self, a: Any) -> Tensor:
        """a / z, right also where z underflows."""
        return apply("over_exp", a, self._log)

    def _with(self, z: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """z, which is this tensor in another shape, with the logarithm in that shape."""
        return LogTensor(change(self._log), z)


class UnitTensor(LogTensor):
    """A tensor z in (0, 1) that keeps log z and log(1 - z); `1 - z` keeps both too, so `(1 - z).log()` is exact."""

    __slots__ = ("_log_rest",)

    def __init__(self, log: Tensor, log_rest: Tensor, z: Tensor | None = None) -> None:
        super().__init__(log, z)
        self._log_rest = log_rest

    def logit(self) -> Tensor:
        """log z - log(1 - z)."""
        return self._log - self._log_rest

    def __rsub__(self, one: Any) -> Tensor:
        if isinstance(one, (int, float)) and one == 1:
            return UnitTensor(self._log_rest, self._log)
        return super().__rsub__(one)

    def _with(self, z: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        return UnitTensor(change(self._log), change(self._log_rest), z)


def _carrying(name: str) -> Callable[..., Tensor]:
    """A change of shape that is applied to the logarithm as well."""
    change = getattr(Tensor, name)
    return lambda self, *arguments: self._with(change(self, *arguments), lambda log: change(log, *arguments))


for _name in ("reshape", "transpose", "broadcast_to", "contiguous", "detach", "__getitem__"):
    setattr(LogTensor, _name, _carrying(_name))


# ---- at the ends of a support ----------------------------------------------------------------------------------------
# A density z^(a - 1) ... has a limit at z = 0: that of (a - 1) log z, which is 0 where a = 1, and infinite elsewhere.


def _limited(xp: Any, a: Any, b: Any, out: Any) -> Any:
    with np.errstate(all="ignore"):
        return into(out, xp.where((a == 0) & (xp.abs(b) == xp.inf), xp.zeros_like(b), a * b))


def _xlogy(xp: Any, a: Any, x: Any, out: Any) -> Any:
    with np.errstate(all="ignore"):
        return _limited(xp, a, xp.log(x), out)


def _by_x(g: Tensor, y: Tensor, a: Tensor, x: Tensor) -> Tensor:
    slope = g * a
    return slope / (slope == 0).where(1.0, x)


# a b, with 0 times infinity = 0; and a log x, with 0 log 0 = 0, whose derivative a / x is 0 for a = 0. Where no
# gradient arrives (g = 0) none leaves, however large the other factor is.
rule("limited_product", _limited, (lambda g, y, a, b: g.apply("limited_product", b),
                                   lambda g, y, a, b: g.apply("limited_product", a)), (ANY, ANY),
     reference=lambda a, b: np.multiply(a, b))
rule("xlogy", _xlogy, (lambda g, y, a, x: g.apply("xlogy", x), _by_x), (ANY, POSITIVE),
     reference=lambda a, x: a * np.log(x))


def xlogy(a: Tensor, x: Tensor) -> Tensor:
    """a log x, elementwise; 0 where a is 0, whatever log x is, and -inf or inf at x = 0 elsewhere."""
    return a.apply("limited_product", x.log()) if isinstance(x, LogTensor) else a.apply("xlogy", x)


def _supported(xp: Any, x: Any, out: Any, least: float, most: float) -> Any:
    return into(out, ~((x < least) | (x > most) | xp.isinf(x)))


# Truth values, False where x is below `least`, above `most` or infinite; a NaN passes, and makes NaN of what is made of
# it.
rule("supported", _supported, (None,), (ANY,), example={"least": 0.0, "most": 1.0},
     reference=lambda x, least, most: np.clip(x, least, most) == x)


def supported(x: Tensor, least: float = 0.0, most: float = np.inf) -> Tensor:
    """Truth values, False where x is outside the support from `least` to `most`, or infinite.

    There a density is 0 whatever its parameters are, so log_prob is -inf and all its derivatives are 0: the formula is
    given another number, and its value is not used. A LogTensor is above 0, and infinite only if its logarithm is.
    """
    return x.log() != np.inf if isinstance(x, LogTensor) else x.apply("supported", least=least, most=most)


def all_of(flags: Tensor) -> Tensor:
    """Truth values (..., 1), where those of a whole vector are true."""
    return flags.cast(np.float64).sum(-1, keepdims=True) == flags.shape[-1]


def is_positive(x: Tensor) -> Tensor:
    """Truth values, where x > 0: of a LogTensor where log x is above -inf, even if x underflowed to 0."""
    return x.log() > -np.inf if isinstance(x, LogTensor) else x > 0


def replaced(x: Tensor, flag: Tensor, value: float) -> Tensor:
    """x where the flag is true, and elsewhere a number above 0: a density and its derivatives stay finite there."""
    if isinstance(x, LogTensor):
        return LogTensor(flag.where(x.log(), float(np.log(value))))
    return flag.where(x, value)
