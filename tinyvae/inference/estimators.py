"""The gradient of an expectation, d/dv E_q(z; v)[f(z)]: one surrogate from BBVI to reparameterization.

The law q depends on v, so the derivative of the expectation is not the expectation of a derivative. Choose an
invertible map T, and write the draw as z = T(eps; v) with eps = T^-1(z; v). What bears a bar is not differentiated:

    z ~ q(.; v_bar);  eps = T^-1(z; v_bar);  z = T(eps; v)
    log q_eps = log q(z; v) + log |det dT/deps (eps; v)|
    surrogate = f(z) + detach(f(z)) (log q_eps - detach(log q_eps))

The surrogate has the value f(z). Its gradient is g_rep + g_corr (G-REP, eqs. 5-8): g_rep is the path derivative through
z, and g_corr is f(z) times the score of eps, the derivative of log q_eps. An estimator is a choice of T:

    score      T is the identity: g_rep = 0, and eps has the score of q itself (BBVI, REINFORCE)
    reparam    the law of eps has no parameters: g_corr = 0 (AEVB)
    grep       eps is a standardised sufficient statistic, whose law depends on v only weakly (G-REP)
    implicit   z moves with v at a fixed value of the distribution function: g_corr = 0 (Figurnov et al. 2018)

If f is a sum of terms, the score of a latent is multiplied only by the terms that contain the latent (Rao-Blackwell),
minus a baseline. A baseline does not depend on the latent's own draw, so it changes the variance and not the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyvae.distributions import Distribution
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.rules import ANY, rule
from tinyvae.engine.tensor import Tensor, apply, grad


class MappedDraw(NamedTuple):
    """A draw z = T(eps; v) in the form that an estimator differentiates."""

    z: Tensor
    log_q: Tensor | None  # log q_eps, whose score is multiplied by f; None if the law of eps has no parameters


def score(q: Distribution, z: Tensor) -> MappedDraw:
    """The identity as T: only log q_eps = log q depends on v."""
    w = q.to_stable(z).detach()
    return MappedDraw(q.from_stable(w), q.log_density(w))


def grep(q: Distribution, z: Tensor) -> MappedDraw:
    """T^-1 standardises the stable form of z, so that E[eps] = 0 and E[eps^2] = 1 for all parameters."""
    eps = q.standardise(q.to_stable(z)).detach()
    w = q.unstandardise(eps)
    return MappedDraw(q.from_stable(w), q.log_density(w) + q.log_scale())


def pathwise(q: Distribution, z: Tensor) -> MappedDraw:
    """The draw itself, which the family's sampler has already made a differentiable function of the parameters."""
    return MappedDraw(z, None)


MAPS: dict[str, Callable[[Distribution, Tensor], MappedDraw]] = {
    "reparam": pathwise, "implicit": pathwise, "grep": grep, "score": score}


def choices(family: type[Distribution]) -> list[str]:
    """The estimators that a family has, beginning with the recommended one."""
    own = [family.path] if family.path is not None else []
    standardised = family._moments is not Distribution._moments or family.standardise is not Distribution.standardise
    return [*own, *(["grep"] if standardised else []), *(["score"] if family.scored else [])]


def check_choice(family: type[Distribution], estimator: str) -> None:
    """Raise ValueError if the family does not have this estimator."""
    if estimator not in choices(family):
        raise ValueError(f"found estimator {estimator!r}; {family.__name__} has {', '.join(choices(family))}")


# ---- terms and latents --------------------------------------------------------------------------


class Term(NamedTuple):
    """A term of f and the names of the latents that it contains.

    `axes` has one letter for each axis of `value` after the first, which counts samples: "nd" for (samples, n, d).
    Latents name their axes in the same way, so the score of a latent's element is multiplied by the part of the term
    that has the same index.
    """

    value: Tensor
    axes: str
    of: tuple[str, ...]


class Latent:
    """A latent variable: its name, its q, a draw, an estimator and the names of its axes. f is a function of `z`."""

    def __init__(self, name: str, q: Distribution, draw: Tensor, estimator: str, axes: str) -> None:
        check_choice(type(q), estimator)
        self.name, self.q, self.draw, self.estimator = name, q, draw, estimator
        self.z, self.log_q = MAPS[estimator](q, draw)
        # A family of vectors (Dirichlet, Categorical) has one density for the whole last axis, which then drops out.
        self.axes = axes if self.log_q is None else axes[: self.log_q.ndim - 1]

    def scores(self) -> list[tuple[Tensor, Tensor]]:
        """Each parameter of q, and the derivative of log q_eps by it for each draw, (samples, *parameter).

        A parameter that several elements share has a derivative for each of them: then that is (samples, *elements).
        If q is parameterised by the logarithm of a parameter, that logarithm counts as the parameter.
        """
        parameters: list[Tensor] = []
        copies: list[Tensor] = []

        # Unless the family is one of vectors, each element has its own score, also where several share a parameter.
        log_q = self.log_q
        each = () if log_q is None or log_q.ndim < self.draw.ndim else log_q.shape[1:]

        def copied(v: Tensor) -> Tensor:
            shape = np.broadcast_shapes(v.shape, each)
            copy = v.broadcast_to((len(self.draw), *shape)).contiguous()
            if copy.requires_grad:
                parameters.append(v)
                copies.append(copy)
            return copy

        log_q = MAPS[self.estimator](self.q.map(copied), self.draw).log_q
        if log_q is None:
            raise ValueError(f"found the estimator {self.estimator}, which has no score; expected grep or score")
        return [(v, h.detach()) for v, h in zip(parameters, grad(log_q.sum(), copies), strict=True)]


def signal(terms: Sequence[Term], latent: Latent) -> Tensor:
    """The terms that contain a latent, summed over all axes but its own.

    The shape is (samples, *axes of the latent), with size 1 for an axis that no term has.
    """
    total: Any = 0.0
    for term in terms:
        if latent.name in term.of:
            total = total + sum_to_axes(term.value, term.axes, latent.axes)
    return total


def sum_to_axes(value: Tensor, axes: str, wanted: str) -> Tensor:
    """A tensor (samples, *axes) summed over the axes that `wanted` lacks; the others come in its order."""
    gone = tuple(1 + i for i, axis in enumerate(axes) if axis not in wanted)
    value = value.sum(gone) if gone else value
    left = [axis for axis in axes if axis in wanted]
    order = sorted(range(len(left)), key=lambda i: wanted.index(left[i]))
    if order != list(range(len(left))):
        value = value.transpose((0, *(1 + i for i in order)))
    sizes = {left[i]: n for i, n in zip(order, value.shape[1:], strict=True)}
    return value.reshape(value.shape[0], *(sizes.get(axis, 1) for axis in wanted))


# ---- baselines -------------------------------------------------------------------------------------------------------
# The score has the mean 0, so E[(f - b) dlog q_eps] = E[f dlog q_eps] for every b that does not depend on the draw.
# A baseline is a function of f (samples, ...) and of the latent. It returns a correction (samples, ...) that has the
# value 0 and the gradient (f - b) dlog q_eps.

Baseline = Callable[[Tensor, Latent], Tensor]


def score_term(weight: Tensor, latent: Latent) -> Tensor:
    """The value 0, with the gradient weight * dlog q_eps."""
    log_q = latent.log_q
    if log_q is None:
        raise ValueError(f"found the estimator {latent.estimator}, which has no score; expected grep or score")
    return weight.detach() * (log_q - log_q.detach())


def no_baseline(f: Tensor, latent: Latent) -> Tensor:
    """The baseline b = 0."""
    return score_term(f, latent)


def leave_one_out(f: Tensor, latent: Latent) -> Tensor:
    """The baseline of each of L draws is the mean of f over the other draws."""
    _at_least(2, f, "leave-one-out")
    others = (f.sum(0, keepdims=True) - f) * (1 / (len(f) - 1))
    return score_term(f - others, latent)


class MovingAverage:
    """The baseline is one number for each latent, an average over earlier steps: b <- decay b + (1 - decay) mean f."""

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self._states: dict[str, Tensor] = {}

    def __call__(self, f: Tensor, latent: Latent) -> Tensor:
        xp = namespace_of(f.data)
        state = self._states.setdefault(latent.name, Tensor(xp.zeros((), f.dtype)))
        before = apply("copy", state)
        apply("moving_average", state, f, decay=self.decay)
        return score_term(f - before, latent)


def _moving_average(xp: Any, state: Any, f: Any, decay: float) -> None:
    state *= decay
    state += (1 - decay) * f.mean(dtype=f.dtype)


rule("moving_average", _moving_average, domain=(ANY, ANY), writes=(0,))


def fitted(f: Tensor, latent: Latent) -> Tensor:
    """The baseline b = Cov(f h, h) / Var(h) for the score h of each parameter (BBVI section 3.2).

    Since E[h] = 0, b = sum f h^2 / sum h^2. Both sums leave out the draw whose baseline it is, so the estimate of the
    gradient stays unbiased.
    """
    _at_least(2, f, "fitted")
    total: Any = 0.0
    for v, h in latent.scores():
        f_h = f.reshape(*f.shape, *(1,) * (h.ndim - f.ndim)).broadcast_to(h.shape)
        above, below = (part.sum(0, keepdims=True) - part for part in (f_h * h * h, h * h))
        b = (below > 0).where(above / (below > 0).where(below, 1.0), 0.0)  # a score that is 0 for every draw gets b = 0
        each = ((f_h - b) * h).detach() * (v - v.detach())
        # The parameters of a vector have further axes, which are summed before the terms of all parameters are added.
        own = tuple(range(f.ndim, each.ndim))
        total = total + (each.sum(own) if own else each)
    return total


def _at_least(count: int, f: Tensor, name: str) -> None:
    if len(f) < count:
        raise ValueError(f"found {len(f)} sample; the {name} baseline needs at least {count}: take more samples, or "
                         "another baseline")


# ---- the surrogate ---------------------------------------------------------------------------------------------------


def surrogate(terms: Sequence[Term], latents: Sequence[Latent], baseline: Baseline = no_baseline,
              keep: str = "") -> Tensor:
    """A tensor (samples,) with the value f(z), whose gradient estimates the gradient of E[f] by q's parameters.

    `terms` are functions of the latents' z. Axes named in `keep` are not summed; the shape is then (samples, *keep).
    """
    total: Any = 0.0
    for term in terms:
        total = total + sum_to_axes(term.value, term.axes, keep)
    for latent in latents:
        if latent.log_q is not None:
            correction = baseline(signal(terms, latent).detach(), latent)
            total = total + sum_to_axes(correction, latent.axes, keep)
    return total


BASELINES: dict[str, Callable[[], Baseline]] = {
    "none": lambda: no_baseline, "leave-one-out": lambda: leave_one_out, "moving-average": MovingAverage,
    "fitted": lambda: fitted}
