"""The gradient of an expectation, d/dv E_q(z; v)[f(z)]: one surrogate from BBVI to reparameterization.

q has the parameters, so the gradient does not simply go inside. Choose an invertible T and take the draw z apart into
eps = T^-1(z; v) and T. With bars for "no gradient",

    z ~ q(.; v_bar);  eps = T^-1(z; v_bar);  z = T(eps; v)
    log q_eps = log q(z; v) + log |det dT/deps (eps; v)|
    surrogate = f(z) + detach(f(z)) (log q_eps - detach(log q_eps))

has the value f(z), and its gradient is g_rep + g_corr (G-REP, eqs. 5-8): a path through z, and the score of the law
that is left to eps. An estimator is a choice of T:

    score      T is the identity: no path, the score of q itself (BBVI, REINFORCE)
    reparam    eps has a law without parameters: path only (AEVB)
    grep       eps is a sufficient statistic, standardised: its law depends on v only weakly (G-REP)
    implicit   the path that keeps the distribution function where it is: path only (Figurnov et al. 2018)

Where f is a sum of terms, the score of a latent is multiplied by those terms only that contain it (Rao-Blackwell),
minus a baseline, a number that does not depend on the latent's own draw: the mean stays, the variance falls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinyvae.distributions import Distribution
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.rules import ANY, rule
from tinyvae.engine.tensor import Tensor, apply, grad


class Path(NamedTuple):
    """A draw as an estimator differentiates it."""

    z: Tensor
    log_q: Tensor | None  # log q_eps of each latent, whose score weighs f; None: eps has a law without parameters


def score(q: Distribution, z: Tensor) -> Path:
    """T is the identity."""
    w = q.to_stable(z).detach()
    return Path(q.from_stable(w), q.log_density(w))


def grep(q: Distribution, z: Tensor) -> Path:
    """T standardises the stable form of z: E[eps] = 0 and E[eps^2] = 1 for all parameters."""
    eps = q.standardise(q.to_stable(z)).detach()
    w = q.unstandardise(eps)
    return Path(q.from_stable(w), q.log_density(w) + q.log_scale())


def pathwise(q: Distribution, z: Tensor) -> Path:
    """The path that the draw came with."""
    return Path(z, None)


MAPS: dict[str, Callable[[Distribution, Tensor], Path]] = {
    "reparam": pathwise, "implicit": pathwise, "grep": grep, "score": score}


def choices(family: type[Distribution]) -> list[str]:
    """The estimators that a family has, the best first."""
    own = [family.path] if family.path is not None else []
    standardised = family._moments is not Distribution._moments or family.standardise is not Distribution.standardise
    return [*own, *(["grep"] if standardised else []), "score"]


def check_choice(family: type[Distribution], estimator: str) -> None:
    """ValueError if the family has no such estimator."""
    if estimator not in choices(family):
        raise ValueError(f"found estimator {estimator!r}; {family.__name__} has {', '.join(choices(family))}")


# ---- what a latent's score is multiplied by --------------------------------------------------------------------------


class Term(NamedTuple):
    """A term of f, with the latents that it contains.

    `axes` names the axes of `value` after the first, which is the samples': "nd" for (samples, n, d). Latents name
    theirs in the same way, so each gets of a term what lies at its own place.
    """

    value: Tensor
    axes: str
    of: tuple[str, ...]


class Latent:
    """A latent variable: its q, a draw of it, an estimator by name, and its axes' names; `z` is for f to take."""

    def __init__(self, name: str, q: Distribution, draw: Tensor, estimator: str, axes: str) -> None:
        check_choice(type(q), estimator)
        self.name, self.q, self.draw, self.estimator = name, q, draw, estimator
        self.z, self.log_q = MAPS[estimator](q, draw)
        # those of its densities: without the last one, if that is one vector (Dirichlet, Categorical)
        self.axes = axes if self.log_q is None else axes[: self.log_q.ndim - 1]

    def scores(self) -> list[tuple[Tensor, Tensor]]:
        """Each parameter of q with the derivative of log q_eps by it, draw by draw: (samples, *parameter)."""
        # a parameter known by its logarithm acts through that, which then counts as the parameter
        parameters: list[Tensor] = []
        copies: list[Tensor] = []

        def copied(v: Tensor) -> Tensor:
            copy = v.broadcast_to((len(self.draw), *v.shape)).contiguous()
            if copy.requires_grad:
                parameters.append(v)
                copies.append(copy)
            return copy

        log_q = MAPS[self.estimator](self.q.map(copied), self.draw).log_q
        assert log_q is not None
        return [(v, h.detach()) for v, h in zip(parameters, grad(log_q.sum(), copies), strict=True)]


def signal(terms: Sequence[Term], latent: Latent) -> Tensor:
    """The sum of the terms that contain a latent, over all axes but its own: (samples, its axes, 1 where none)."""
    total: Any = 0.0
    for term in terms:
        if latent.name in term.of:
            total = total + sum_to_axes(term.value, term.axes, latent.axes)
    return total


def sum_to_axes(value: Tensor, axes: str, wanted: str) -> Tensor:
    """A tensor (samples, axes) summed over the axes that are not wanted, in the order of those that are."""
    gone = tuple(1 + i for i, axis in enumerate(axes) if axis not in wanted)
    value = value.sum(gone) if gone else value
    left = [axis for axis in axes if axis in wanted]
    order = sorted(range(len(left)), key=lambda i: wanted.index(left[i]))
    if order != list(range(len(left))):
        value = value.transpose((0, *(1 + i for i in order)))
    sizes = {left[i]: n for i, n in zip(order, value.shape[1:], strict=True)}
    return value.reshape(value.shape[0], *(sizes.get(axis, 1) for axis in wanted))


# ---- baselines -------------------------------------------------------------------------------------------------------
# The score's mean is 0, so any number that does not depend on a draw may be taken from what it is multiplied by.
# A baseline is a function of f, (samples, ...), and the latent, and gives the correction (samples, ...) whose gradient
# is (f - b) d log q_eps.

Baseline = Callable[[Tensor, Latent], Tensor]


def score_term(weight: Tensor, latent: Latent) -> Tensor:
    """0, whose gradient is that of log q_eps times the weight."""
    log_q = latent.log_q
    assert log_q is not None
    return weight.detach() * (log_q - log_q.detach())


def no_baseline(f: Tensor, latent: Latent) -> Tensor:
    """b = 0."""
    return score_term(f, latent)


def leave_one_out(f: Tensor, latent: Latent) -> Tensor:
    """b is, for each of L draws, the mean of f over the others."""
    _at_least(2, f, "leave-one-out")
    others = (f.sum(0, keepdims=True) - f) * (1 / (len(f) - 1))
    return score_term(f - others, latent)


class MovingAverage:
    """b is an average of f over the steps before, one number a latent: b <- decay b + (1 - decay) mean f."""

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
    """b is Cov(f h, h) / Var(h) for each parameter's score h (BBVI section 4.2), fitted to the other draws.

    With E[h] = 0 known, b = sum f h^2 / sum h^2; a draw's own part is left out of both, so the mean is exact.
    """
    _at_least(2, f, "fitted")
    total: Any = 0.0
    for v, h in latent.scores():
        f_h = f.reshape(*f.shape, *(1,) * (h.ndim - f.ndim)).broadcast_to(h.shape)
        above, below = (part.sum(0, keepdims=True) - part for part in (f_h * h * h, h * h))
        b = (below > 0).where(above / (below > 0).where(below, 1.0), 0.0)  # a score that is 0 for every draw needs none
        each = ((f_h - b) * h).detach() * (v - v.detach())
        total = total + each
    return total


def _at_least(count: int, f: Tensor, name: str) -> None:
    if len(f) < count:
        raise ValueError(f"found {len(f)} sample; the {name} baseline needs at least {count}: draw more, or take "
                         "another one")


# ---- the surrogate ---------------------------------------------------------------------------------------------------


def surrogate(terms: Sequence[Term], latents: Sequence[Latent], baseline: Baseline = no_baseline,
              keep: str = "") -> Tensor:
    """One number a sample, (samples,): its value is f(z), its gradient by q's parameters an estimate of E[f]'s.

    `terms` are of the latents' z. Axes named in `keep` are not summed: (samples, *keep).
    """
    total: Any = 0.0
    for term in terms:
        total = total + sum_to_axes(term.value, term.axes, keep)
    for latent in latents:
        if latent.log_q is not None:
            correction = baseline(signal(terms, latent).detach(), latent)
            vector = tuple(range(1 + len(latent.axes), correction.ndim))  # a vector's score has its parameter's axes
            total = total + sum_to_axes(correction.sum(vector) if vector else correction, latent.axes, keep)
    return total


BASELINES: dict[str, Callable[[], Baseline]] = {
    "none": lambda: no_baseline, "leave-one-out": lambda: leave_one_out, "moving-average": MovingAverage,
    "fitted": lambda: fitted}
