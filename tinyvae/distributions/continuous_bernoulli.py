"""Grey pixels in [0, 1] by the continuous Bernoulli (Loaiza-Ganem & Cunningham 2019).

Its density is C(l) p^x (1 - p)^(1 - x) with p = sigmoid(l): the Bernoulli's formula with the constant that makes it
integrate to 1 over [0, 1], which "BCE on grey pixels" leaves out. p^x (1 - p)^(1 - x) = exp(l x) / (1 + exp(l)), and
the integral of exp(l x) from 0 to 1 is (exp(l) - 1) / l, so

    C(l) = l (exp(l) + 1) / (exp(l) - 1) = l / tanh(l / 2)

The derivatives of log((exp(l) - 1) / l) by l are the mean and the variance. With x = 1/2 + t it is l / 2 + S(l), where
S(l) = log(sinh(l / 2) / (l / 2)) is even. So E[t] = S'(l), and log C(l) = log(2 cosh(l / 2)) - S(l) has the derivative
tanh(l / 2) / 2 - S'(l).

For small l the terms of S' and S'' = Var[x] cancel. There x = (b + y) / 2 with independent b ~ Bernoulli(l / 2), the
half of [0, 1] in which x lies, and y ~ ContinuousBernoulli(l / 2), its place there, because exp(l x) is
exp(l b / 2) exp(l y / 2):

    S'(l) = (tanh(l / 4) / 2 + S'(l / 2)) / 2,        Var[x] = (Var[b] + Var[y]) / 4

The terms of both have one sign, and after four halvings a short series is exact. Mean and log C keep 4 rounding units
of their values in both types, the variance 16, a KL, which is never negative, 64; a draw is right to 2 units of 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.bernoulli import log_prob_of_pixels
from tinyvae.distributions.divergence import bounded_difference, closed_form, exp_remainder
from tinyvae.distributions.registry import family, likelihood
from tinyvae.distributions.special import gauss_legendre
from tinyvae.distributions.stirling import log_quotient
from tinyvae.engine.rules import ANY, UNIT, into, rule
from tinyvae.engine.tensor import Tensor, apply

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

SMALL = 2.0  # below this |l| the formulas lose digits by cancellation


def _split(l: Tensor, bound: float = SMALL) -> tuple[Tensor, Tensor, Tensor]:
    """Three tensors: is |l| below the bound; the logits where it is, else 0; the logits where it is not, else 1.

    So the series and the formula each see only logits for which they are exact."""
    small = abs(l) < bound
    return small, small.where(l, 0.0), small.where(1.0, l)


def _excess(l: Tensor) -> Tensor:
    """S'(l) = E[x] - 1/2, an odd function."""
    return 0.5 * (0.5 * l).tanh() - l.apply("continuous_bernoulli_slope")


def _excess_near(xp: Any, l: Any) -> Any:
    """S'(l) for |l| <= SMALL, by halves."""
    z = (l / 16) ** 2
    value = l / 256 * (1 / 12 - z * (1 / 720 - z * (1 / 30240 - z / 1209600)))
    for k in range(1, 5):
        value = value + xp.tanh(l * 0.5 ** (k + 1)) * 0.5 ** (k + 1)
    return value


def _slope(xp: Any, l: Any, out: Any) -> Any:
    size = xp.abs(l)
    near = xp.clip(l, -SMALL, SMALL)
    close = 0.5 * xp.tanh(0.5 * near) - _excess_near(xp, near)
    far = xp.maximum(size, SMALL)
    wide = 1 / far + 2 * xp.exp(-far) / xp.expm1(-2 * far)
    return into(out, xp.where(size < SMALL, close, xp.copysign(wide, l)))


def _log_constant(xp: Any, l: Any, out: Any) -> Any:
    # l / tanh(l / 2) keeps its digits down to the smallest l, and its limit at 0 is 2
    size = xp.maximum(xp.abs(l), 1e-30)
    return xp.log(size / xp.tanh(0.5 * size), out=out)


# log C(l) = log(l / tanh(l / 2)), and its slope tanh(l / 2) / 2 - S'(l) = 1 / l - 1 / sinh(l), whose own slope is
# sigmoid(l) sigmoid(-l) - Var[x]
rule("continuous_bernoulli_log_constant", _log_constant,
     (lambda g, y, l: g * l.apply("continuous_bernoulli_slope"),),
     reference=lambda l: np.log(2 * np.cosh(l / 2) / np.sinc(0.5j * l / np.pi).real))
rule("continuous_bernoulli_slope", _slope,
     (lambda g, y, l: g * (l.sigmoid() * (-l).sigmoid() - ContinuousBernoulli(l).variance),),
     reference=lambda l: np.where(l == 0, 0, 1 / (l + (l == 0)) - 1 / np.sinh(l + (l == 0))))


def _draw(xp: Any, l: Any, u: Any, out: Any) -> Any:
    # The inverse of the distribution function is x(u) = log(1 + u (exp(l) - 1)) / l. It is taken at s = |l| as the
    # distance from the end that l points to, -log(rest + v exp(-s)) / s with v + rest = 1, where nothing overflows;
    # near s = 0, where this is log(1) / 0, as -log(1 + v (exp(-s) - 1)) / s.
    s, rising = xp.abs(l), l > 0
    v, rest = xp.where(rising, 1 - u, u), xp.where(rising, u, 1 - u)
    near = xp.where(s < 1, xp.maximum(s, 1e-30), xp.ones_like(s))
    close = -xp.log1p(v * xp.expm1(-near)) / near
    mixed = xp.maximum(rest + v * xp.exp(-s), 1e-37)  # (0 only at u = 0 or 1 and s beyond 100)
    wide = -xp.log(mixed) / xp.maximum(s, 1)
    distance = xp.where(s < 1, close, wide)
    return into(out, xp.where(rising, 1 - distance, distance))


def _draw_by_logit(g: Tensor, x: Tensor, l: Tensor, u: Tensor) -> Tensor:
    # At a fixed u, l dx/dl = w - x with w = u exp(l (1 - x)) = 1 - (1 - u) exp(-l x). For small l this cancels, but
    # w = x exp(E) with E = l (1 - x) / 2 - S(l) + S(l x), because u = x phi(l x) / phi(l) with phi(l) =
    # (exp(l) - 1) / l = exp(l / 2 + S(l)). So dx/dl = x (exp(E) - 1) / E (E / l).
    small, near, far = _split(l, 0.5)
    per_l = 0.5 * (1 - x) - (_series(near) - _series(near * x)) / (near == 0).where(1.0, near)
    exponent = near * per_l
    none = exponent == 0
    close = x * per_l * none.where(1.0, exponent.expm1() / none.where(1.0, exponent))
    size = abs(far).minimum(1e30)  # (inf * 0 at an end of the interval would be NaN)
    w = (far > 0).where(1 - (1 - u) * (-size * x).exp(), u * (-size * (1 - x)).exp())
    return g * small.where(close, (w - x) / far)


def _series(l: Any) -> Any:
    """S(l) for |l| < 1/2, of a tensor or of an array."""
    z = l * l
    return z * (1 / 24 - z * (1 / 2880 - z * (1 / 181440 - z * (1 / 9676800 - z * (1 / 479001600 - z * (
        691 / 15692092416000 - z / 1046139494400))))))  # fmt: skip


# a draw from the uniform number u
rule("continuous_bernoulli_draw", _draw, (_draw_by_logit, None), (ANY, UNIT),
     reference=lambda l, u: np.log1p(u * np.expm1(l)) / l)


@likelihood("continuous-bernoulli", pixels="grey")
@family("continuous-bernoulli")
class ContinuousBernoulli(Distribution):
    """x in [0, 1] with density proportional to exp(x l)."""

    support = "unit"
    path = "reparam"

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    parameters = property(lambda self: {"logits": self.logits})

    @classmethod
    def from_raw(cls, raw: Tensor) -> ContinuousBernoulli:
        return cls(raw)

    @classmethod
    def width(cls, n: int) -> int:
        return n

    def log_constant(self) -> Tensor:
        """log C(l), elementwise."""
        return apply("continuous_bernoulli_log_constant", self.logits)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """E[x] = 1 / (1 - exp(-l)) - 1 / l; 1/2 at l = 0."""
        small, _, far = _split(self.logits)
        size = abs(far)
        distance = 1 / size + (-size).exp() / (-size).expm1()  # from the end that l points to, also where it is small
        return small.where(0.5 + _excess(self.logits), (far > 0).where(1 - distance, distance))

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """Var[x] = 1 / l^2 - exp(-l) / (1 - exp(-l))^2; 1/12 at l = 0."""
        small, near, far = _split(self.logits)
        halved = (1 / 12 - (z := (near / 16) ** 2) * (1 / 240 - z * (1 / 6048 - z / 172800))) / 256
        for k in range(1, 5):
            halved = halved + (near / 2**k).sigmoid() * (-near / 2**k).sigmoid() / 4**k
        size = abs(far)
        inverse = 1 / size
        return small.where(halved, inverse * inverse - (-size).exp() / (-size).expm1() ** 2)

    @classmethod
    def parameter_of_mean(cls, mean: np.ndarray) -> np.ndarray:
        low, high = np.full_like(mean, -1e4), np.full_like(mean, 1e4)
        for _ in range(60):  # bisection: the mean rises with the logit
            middle = 0.5 * (low + high)
            below = cls(Tensor(middle)).mean.data < mean
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)

    def log_prob(self, x: Tensor) -> Tensor:
        # At an infinite logit the density is infinite at one end and 0 elsewhere: -inf, as log C = inf must not undo.
        pixels, constant = apply("bernoulli_log_prob", self.logits, x)[0], self.log_constant().sum(-1)
        return pixels + (pixels == -np.inf).where(0.0, constant)

    def log_density(self, w: Tensor) -> Tensor:
        pixels = log_prob_of_pixels(self.logits, w)
        return pixels + (pixels == -np.inf).where(0.0, self.log_constant())

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        u = noise.uniform((samples, *self.logits.shape), self.logits.dtype)
        return apply("continuous_bernoulli_draw", self.logits, u)


# ---- KL --------------------------------------------------------------------------------------------------------------
# With log p(x) = (x - 1/2) l - S(l), KL(q || p) at the logits a and b = a + d is
#
#     S(b) - S(a) - d S'(a) = d^2 times the integral from 0 to 1 of (1 - t) Var[x; a + t d]
#
# The integral has no negative term, so it serves where d is small. Elsewhere the left side does, at |a| (KL stays as it
# is when both logits change their sign); for large a the linear parts of S, which cancel, are left out of it. Its
# derivatives are -d Var[x; a] by a, and E[x; b] - E[x; a] by b.


def _s(xp: Any, l: Any) -> Any:
    # S(l) = |l| / 2 + log((1 - exp(-|l|)) / |l|)
    size = xp.abs(l)
    small = size < 0.5
    far = xp.where(small, xp.ones_like(l), size)
    return xp.where(small, _series(xp.where(small, l, xp.zeros_like(l))),
                    0.5 * far + xp.log1p(-xp.exp(-far)) - xp.log(far))


def _variance(xp: Any, l: Any) -> Any:
    # as the property `variance`, with sigmoid(h) sigmoid(-h) = 1 / (4 cosh(h / 2)^2)
    size = xp.abs(l)
    near, far = xp.minimum(size, SMALL), xp.maximum(size, SMALL)
    z = near * near / 256
    halved = (1 / 12 - z * (1 / 240 - z * (1 / 6048 - z / 172800))) / 256
    for k in range(1, 5):
        halved = halved + 0.25 / xp.cosh(near / 2 ** (k + 1)) ** 2 / 4**k
    return xp.where(size < SMALL, halved, 1 / far / far - xp.exp(-far) / xp.expm1(-far) ** 2)


def _kl_value(xp: Any, a: Any, b: Any, out: Any) -> Any:
    same, certain = a == b, xp.isinf(a) | xp.isinf(b)
    zero = xp.zeros_like(same, dtype=a.dtype)
    a, b = xp.where(certain, zero, xp.abs(a)), xp.where(certain, zero, xp.where(a < 0, -b, b))
    d = b - a
    near = xp.where(xp.abs(d) < 2, d, zero)
    close = sum(weight * (1 - t) * _variance(xp, a + t * near) for t, weight in gauss_legendre(8)) * near * near
    # for a < 2; S'(a) = 1/2 - 1 / a + rest with rest = 1 / (exp(a) - 1), which is odd in a
    low, high = xp.minimum(a, 2), xp.maximum(a, 2)
    wide = _s(xp, b) - _s(xp, low) - d * _excess_near(xp, low)
    # for a > 2: without (b - a) / 2, and for b > 1 with -log(b / a) + d / a = R(log(b / a)), R(t) = exp(t) - 1 - t >= 0
    rest, mass, upper = -xp.exp(-high) / xp.expm1(-high), xp.log1p(-xp.exp(-high)), xp.maximum(b, 1)
    above = exp_remainder(xp, log_quotient(xp, upper, high)) + xp.log1p(-xp.exp(-upper)) - mass - d * rest
    beside = _s(xp, b) - 0.5 * b - mass + xp.log(high) + d / high - d * rest
    wide = xp.where(a < 2, wide, xp.where(b >= 1, above, beside))
    value = xp.where(xp.abs(d) < 2, close, wide)
    return into(out, xp.where(certain, xp.where(same, zero, zero + xp.inf), value))


rule("continuous_bernoulli_kl", _kl_value,
     (lambda g, y, a, b: g * (ContinuousBernoulli(a).variance * bounded_difference(a, b)),
      lambda g, y, a, b: g * (_excess(b) - _excess(a))), (ANY, ANY),
     reference=lambda a, b: (np.log(np.sinc(0.5j * b / np.pi).real / np.sinc(0.5j * a / np.pi).real)
                             - (b - a) * (0.5 / np.tanh(a / 2) - 1 / a)))


@closed_form(ContinuousBernoulli, ContinuousBernoulli)
def _kl(q: ContinuousBernoulli, p: ContinuousBernoulli) -> Tensor:
    return apply("continuous_bernoulli_kl", q.logits, p.logits)
