"""Laws of several layers of latent variables, z = (z_1, ..., z_L), which stand side by side in the last axis of z.

Each layer has a law given the layer that is drawn before it:

    Downward    p(z) = p(z_L) prod_l p(z_l|z_(l+1)), the prior of a hierarchy
    BottomUp    q(z|x) = q(z_1|x) prod_l q(z_(l+1)|z_l)                    (Burda, Grosse & Salakhutdinov 2016)
    TopDown     q(z|x) = q(z_L|x) prod_l q(z_l|x, z_(l+1))                 (a ladder)

In a ladder the way down is that of the prior: q(z_l|x, z_(l+1)) is proportional to p(z_l|z_(l+1)) N(z_l; m, s^2), where
the encoder gives m and s^2 of every layer, as if it had measured z_l with that error. The product of two normal
densities is normal. With a = log s^2 and b, the log-variance of p(z_l|z_(l+1)) with mean c,

    mean = c + sigmoid(b - a) (m - c),    log-variance = a - softplus(a - b).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Protocol

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.normal import Normal
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor

DRAWS = 32  # by which mean and variance of a layer are estimated


class Conditional(Protocol):
    """A function from a layer to the law of the next one, such as a `Network`."""

    def __call__(self, z: Tensor, /) -> Any: ...

    def map(self, f: Callable[[Tensor], Tensor]) -> Conditional:
        """The same with f applied to each of its weights."""


class Layered(Distribution):
    """A law of z_1 to z_L; `sizes` are their numbers of dimensions, the lowest layer first."""

    path = "reparam"
    scored = False  # the weights of the networks belong to all draws together
    sizes: tuple[int, ...]

    @property
    def order(self) -> Iterable[int]:
        """The numbers of the layers, from 0, in the order in which they are drawn."""
        raise TypeError(f"{type(self).__name__} has no order")

    def law(self, l: int, z: Sequence[Any]) -> Any:
        """The law of layer l given the layers before it in `order`; z holds one part for each layer."""
        raise TypeError(f"{type(self).__name__} has no law")

    def parts(self, z: Tensor) -> list[Tensor]:
        """z_1 to z_L."""
        return [z[..., start:end] for start, end in pairwise((0, *accumulate(self.sizes)))]

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.parts(x)
        return _total(self.law(l, z).log_prob(z[l]) for l in self.order)

    def draw(self, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        z: list[Any] = [None] * len(self.sizes)
        log_q: list[Tensor] = []
        for l in self.order:
            law = self.law(l, z)
            z[l] = _drawn(law.sample(noise, 1 if log_q else samples), bool(log_q))
            log_q.append(law.log_prob(z[l]))
        return _joined(z), _total(log_q)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return self.draw(noise, samples)[0]

    def sample_with_kls(self, prior: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Draws, and the part of each layer in KL(self || prior), (batch, layers), in nats.

        The part of layer l is E_q[log q(z_l|...) - log p(z_l|...)]. It has a closed form given the draws of other
        layers where both laws are known before z_l is drawn, as all are on the way down.
        """
        if not isinstance(prior, Layered):
            raise TypeError(f"found the prior {type(prior).__name__} with a posterior of {len(self.sizes)} layers; "
                            "expected one of as many")
        z: list[Any] = [None] * len(self.sizes)
        laws: dict[int, Any] = {}
        kls: dict[int, Tensor] = {}
        for l in self.order:
            later = bool(laws)
            laws[l] = law = self.law(l, z)
            try:
                theirs = prior.law(l, z)
            except LookupError:  # it needs a layer that is not drawn yet
                z[l] = _drawn(law.sample(noise, 1 if later else samples), later)
                continue
            drawn, kl = law.sample_with_kl(theirs, noise, 1 if later else samples)
            z[l], kls[l] = _drawn(drawn, later), kl.mean(0) if later else kl
        for l in laws:
            if l not in kls:
                kls[l] = (laws[l].log_prob(z[l]) - prior.law(l, z).log_prob(z[l])).mean(0)
        each = [kls[l].reshape(-1, 1) for l in range(len(z))]
        return _joined(z), _joined(each)

    # ---- moments, estimated ----

    @cached_property
    def _moments_of_layers(self) -> tuple[Tensor, Tensor]:
        z: list[Any] = [None] * len(self.sizes)
        means, variances = list(z), list(z)
        noise, later = Noise(0, "moments"), False
        for l in self.order:
            law = self.law(l, z)
            z[l] = _drawn(law.sample(noise, 1 if later else DRAWS), later)
            mean, variance = law.mean, law.variance
            if later:  # (draws, ...)
                away = mean - mean.mean(0)
                mean, variance = mean.mean(0), (variance + away * away).mean(0)
            means[l], variances[l], later = mean, variance, True
        return _joined(means), _joined(variances)

    @property
    def center(self) -> Tensor:
        """The mean of the layer that is drawn first, and of each other layer that given the points before it."""
        z: list[Any] = [None] * len(self.sizes)
        for l in self.order:
            z[l] = self.law(l, z).mean
        return _joined(z)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """E[z], exact for the layer that is drawn first; for the others the mean of their conditional means."""
        return self._moments_of_layers[0]

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """Of each element by itself, from the same draws."""
        return self._moments_of_layers[1]


class Downward(Layered):
    """p(z_L), the law `top`, and p(z_l|z_(l+1)) from the networks `down`, the lowest first."""

    def __init__(self, top: Distribution, down: Sequence[Conditional], sizes: tuple[int, ...]) -> None:
        self.top, self.down, self.sizes = top, tuple(down), sizes

    @property
    def order(self) -> Iterable[int]:
        return reversed(range(len(self.sizes)))

    def law(self, l: int, z: Sequence[Any]) -> Any:
        return self.top if l == len(self.down) else self.down[l](_known(z[l + 1]))

    def map(self, f: Callable[[Tensor], Tensor]) -> Downward:
        return type(self)(self.top.map(f), [each.map(f) for each in self.down], self.sizes)


class BottomUp(Layered):
    """q(z_1|x), the law `first`, and q(z_(l+1)|z_l) from the networks `up`, the lowest first."""

    def __init__(self, first: Distribution, up: Sequence[Conditional], sizes: tuple[int, ...]) -> None:
        self.first, self.up, self.sizes = first, tuple(up), sizes

    @property
    def order(self) -> Iterable[int]:
        return range(len(self.sizes))

    def law(self, l: int, z: Sequence[Any]) -> Any:
        return self.up[l - 1](_known(z[l - 1])) if l else self.first

    def map(self, f: Callable[[Tensor], Tensor]) -> BottomUp:
        return type(self)(self.first.map(f), [each.map(f) for each in self.up], self.sizes)


class TopDown(Layered):
    """What the encoder says of every layer, `seen`, with the way down of the prior, the lowest layer first."""

    def __init__(self, seen: Sequence[Normal], down: Sequence[Conditional], sizes: tuple[int, ...]) -> None:
        self.seen, self.down, self.sizes = tuple(seen), tuple(down), sizes

    @property
    def order(self) -> Iterable[int]:
        return reversed(range(len(self.sizes)))

    def law(self, l: int, z: Sequence[Any]) -> Any:
        return self.seen[l] if l == len(self.down) else product(self.seen[l], self.down[l](_known(z[l + 1])))

    def map(self, f: Callable[[Tensor], Tensor]) -> TopDown:
        return type(self)([each.map(f) for each in self.seen], [each.map(f) for each in self.down], self.sizes)


def product(q: Normal, p: Normal) -> Normal:
    """The normal law whose density is proportional to the product of both densities."""
    a, b = q.logvar, p.logvar
    return Normal(p.mu + (b - a).sigmoid() * (q.mu - p.mu), a - (a - b).softplus())


def _known(z: Tensor | None) -> Tensor:
    if z is None:
        raise LookupError("found a layer whose neighbour is not drawn yet")
    return z


def _drawn(z: Tensor, later: bool) -> Tensor:
    """A draw (samples, batch, n); of a law given draws (samples, batch, n) one draw each, with an axis to take off."""
    return z.reshape(z.shape[1:]) if later else z


def _joined(z: Sequence[Tensor]) -> Tensor:
    return z[0].concatenate(*z[1:], axis=-1) if len(z) > 1 else z[0]


def _total(each: Iterable[Tensor]) -> Any:
    return sum(each, 0.0)
