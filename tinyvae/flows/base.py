"""A normalizing flow: draws of a normal distribution, moved by invertible maps (Rezende & Mohamed 2015).

    z_0 ~ N(mu, sigma^2),    z_t = f_t(z_(t-1)),    log q(z_T) = log q(z_0) - sum_t log |det df_t/dz_(t-1)|

The last line is the change of variable: a map that stretches space by a factor thins the density by it. So log q of an
own draw needs no inverse. log q of any other z needs the maps' inverses, which not every kind has.

A network gives mu, log sigma^2 and what the maps read of x. Weights that the maps share for all x belong to that
network (`FlowFamily`), and are trained and saved as its layers are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

from tinyvae.choices import an, chosen
from tinyvae.distributions import Distribution, posteriors
from tinyvae.distributions.normal import Normal
from tinyvae.distributions.registry import POSTERIORS, PRIORS
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.nn.layers import Parameters

WIDEST = 128  # hidden layer of a map's network: a wider one costs time, and gained nothing where it was tried
PAIRS = 32  # of draws, z_0 = mu + sigma eps and mu - sigma eps, by which the moments of a flow are estimated


class Map(Protocol):
    """An invertible map of vectors z (samples, rows, n)."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(z), and log |det df/dz| (samples, rows)."""

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The y with f(y) = z, and log |det df/dy|; a map of a `OneWayFlow` needs none."""

    def map(self, f: Callable[[Tensor], Tensor]) -> Map:
        """The same with f applied to each tensor that it holds, as `Distribution.map`."""


class Flow(Distribution):
    """The law of z_T. `base` is that of z_0, with parameters (rows, n)."""

    path = "reparam"
    scored = False  # the weights of the maps belong to all draws together

    def __init__(self, base: Normal, maps: Sequence[Map]) -> None:
        self.base, self.maps = base, tuple(maps)

    def map(self, f: Callable[[Tensor], Tensor]) -> Flow:
        return type(self)(self.base.map(f), [each.map(f) for each in self.maps])

    def moved(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z_T of a z_0, (samples, rows, n), and sum_t log |det df_t/dz_(t-1)|, (samples, rows)."""
        total: Any = 0.0
        for each in self.maps:
            z, log_det = each.forward(z)
            total = total + log_det
        return z, total

    def draw(self, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        z_0, log_q = self.base.draw(noise, samples)
        z, log_det = self.moved(z_0)
        return z, log_q - log_det

    def sample_with_kls(self, prior: Distribution, noise: Noise, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Draws, and the KL as one part, (batch, 1), of which that of z_0 has a closed form:

            KL(q || p) = KL(q(z_0) || N(0, I)) + E[log N(z_0; 0, I) - log p(z_T) - sum_t log |det df_t/dz_(t-1)|].

        The less the maps do, the smaller is what the draws estimate, and with it the noise of the gradient.
        """
        mean = self.base.mean
        standard = Normal.standard(mean.shape[-1], mean.dtype, namespace_of(mean.data))
        z_0, kl = self.base.sample_with_kl(standard, noise, samples)
        z, log_det = self.moved(z_0)
        return z, (kl + (standard.log_prob(z_0) - prior.log_prob(z) - log_det).mean(0)).reshape(-1, 1)

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        return self.draw(noise, samples)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        total: Any = 0.0
        for each in reversed(self.maps):
            x, log_det = each.inverse(x)
            total = total + log_det
        return self.base.log_prob(x) - total

    @cached_property
    def _drawn(self) -> Tensor:
        eps = self.base.noise(Noise(0, "moments"), PAIRS)
        return self.moved(self.base.at(eps.concatenate(-eps)))[0]

    @property
    def center(self) -> Tensor:
        """The point to which the maps move the mean of z_0, (rows, n)."""
        return self.moved(self.base.mean[None])[0][0]

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """E[z], (rows, n), estimated by PAIRS pairs of draws, the same at each call."""
        return self._drawn.mean(0)

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        """Of each element by itself, (rows, n), estimated by the same draws."""
        away = self._drawn - self.mean
        return (away * away).mean(0)


class OneWayFlow(Flow):
    """A flow whose maps have no inverse in closed form: log q is known of its own draws alone."""

    def log_prob(self, x: Tensor) -> Tensor:
        raise ValueError("found a flow whose maps have no inverse in closed form, so log q(z) is known of its own "
                         "draws alone, and something asks for that of another z, as gradient=stl and dreg do, "
                         "learner=wake-sleep, the method hmc, and annealing that starts from the encoder: leave that "
                         "out, or take the posterior realnvp or iaf")


class FlowFamily:
    """A kind of flow over n dimensions, as a `Network` takes a family; a subclass says what its maps are.

    Parameters
    ----------
    steps
        T, the number of maps; 0 for the kind's own `default`.
    n
        The number of dimensions of z.
    hidden
        The width of the hidden layer of each map's network, where it has one.
    """

    law: ClassVar[type[Flow]] = Flow
    least: ClassVar[int] = 1  # the fewest dimensions
    default: ClassVar[int] = 2

    def __init__(self, steps: int, n: int, hidden: int) -> None:
        self.steps, self.n, self.hidden = steps or self.default, n, hidden
        self.parameters: Parameters | None = None
        self.prefix = ""

    def width(self, n: int) -> int:
        """How many numbers the network gives for each x: mu, log sigma^2 and those that the maps read."""
        return 2 * n + self.read(n)

    def read(self, n: int) -> int:
        """How many numbers the maps read of each x."""
        return n

    def shapes(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights of all maps."""
        return {f"{prefix}.map{t}.{name}": shape for t in range(self.steps) for name, shape in self.weights().items()}

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights of one map."""
        return {}

    def attach(self, parameters: Parameters, prefix: str) -> None:
        """Take the weights from there."""
        self.parameters, self.prefix = parameters, prefix

    def from_raw(self, raw: Tensor) -> Flow:
        """The flow of each row, from a network's output (rows, width(n))."""
        base, read = raw[..., : 2 * self.n], raw[..., 2 * self.n :]
        return self.law(Normal.from_raw(base.contiguous()), self.of_steps(read))

    def of_steps(self, read: Tensor) -> Sequence[Map]:
        """All maps, which read `read`, (rows, read(n))."""
        return [self.of_step(t, read) for t in range(self.steps)]

    def of_step(self, t: int, read: Tensor) -> Map:
        """The map of step t, which reads `read`, (rows, read(n))."""
        raise TypeError(f"{type(self).__name__} has no of_step, which makes its maps")

    def weight(self, t: int, name: str) -> Tensor:
        """A weight of the map of step t."""
        if self.parameters is None:
            raise RuntimeError(f"the maps of {self.prefix or 'a flow'} have no weights yet: they come when build() has "
                               "returned")
        return self.parameters[f"{self.prefix}.map{t}.{name}"]


FLOWS: dict[str, type[FlowFamily]] = {}
F = TypeVar("F", bound=type[FlowFamily])


def flow(name: str) -> Callable[[F], F]:
    """Register the class below as a kind of flow, whose prior is N(0, I)."""

    def register(cls: F) -> F:
        FLOWS[name] = POSTERIORS[name] = cls
        PRIORS[name] = ("normal", 0.0, 0.0)
        return cls

    return register


def posterior_family(posterior: str, latent: int, hidden: Sequence[int] = (), steps: int = 0) -> Any:
    """What a network of q(z|x) takes as its family.

    Parameters
    ----------
    posterior
        A name of `posteriors()`.
    latent
        The number of dimensions of z.
    hidden
        The widths of the network of q; a flow's own networks have the first of them, or as many as z has dimensions,
        but at most `WIDEST`.
    steps
        The number of a flow's maps, 0 for its default; ValueError if the posterior is no flow.
    """
    found = chosen("posterior", posterior, posteriors())
    if latent < found.least:
        raise ValueError(f"found latent={latent} with {an(posterior)} posterior, which needs at least {found.least}")
    if posterior in FLOWS:
        if steps < 0:
            default = FLOWS[posterior].default
            raise ValueError(f"found flow_steps={steps}; expected at least 1, or 0 for the {default} of {posterior}")
        return FLOWS[posterior](steps, latent, min(WIDEST, hidden[0] if hidden else latent))
    if steps:
        raise ValueError(f"found flow_steps={steps} with {an(posterior)} posterior, which has no maps; leave it out, "
                         f"or take one of {', '.join(FLOWS)}")
    return found
