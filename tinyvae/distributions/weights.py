"""A posterior over a network's weights in place of one value for each (AEVB appendix F):

    q(w) = N(m, s^2), each weight by itself, beside the prior p(w) = N(0, 1)

m are the network's parameters, and log s^2 are as many more. A draw w = m + s eps is a network again, and KL(q || p) is
what the data have to pay for the weights, in nats for all data together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyvae.distributions.divergence import kl
from tinyvae.distributions.normal import Normal
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.tensor import Tensor
from tinyvae.nn.layers import Parameters
from tinyvae.nn.network import Network

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

FIRST = -8.0  # log s^2 at the start: near one value, so that a training begins as without a posterior


class WeightPosterior:
    """q(w) of the weights of `network`, which a model adds as it adds networks (`Model.add`)."""

    def __init__(self, network: Network) -> None:
        self.network, self.name = network, f"{network.name}_spread"
        self.rest: dict[str, Tensor] = {}  # log s^2 - FIRST of each parameter of the network, by that parameter's name

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its parameters, one for each of the network's."""
        return {f"{self.name}.{name}": shape for name, shape in self.network.shapes().items()}

    def attach(self, parameters: Parameters) -> None:
        """Take its numbers from there."""
        self.rest = {name: parameters[f"{self.name}.{name}"] for name in self.network.shapes()}

    def log_variances(self) -> dict[str, Tensor]:
        """log s^2 of each parameter of the network, by its name."""
        return {name: FIRST + rest for name, rest in self.rest.items()}

    def draw(self, noise: Noise) -> Network:
        """The network with weights of one draw, which is differentiable by m and s."""
        spread = {name: (0.5 * logvar).exp() for name, logvar in self.log_variances().items()}
        return self.network.map(lambda m: m + spread[m.name] * noise.normal(m.shape, m.dtype, shared=True))

    def kl(self) -> Tensor:
        """KL(q(w) || p(w)), (), in nats."""
        means, logvars = self.network.named(), self.log_variances()
        first, *others = (kl(Normal(*rows), Normal.standard(rows[0].size, rows[0].dtype, namespace_of(rows[0].data)))
                          for rows in ((means[name].reshape(1, -1), logvars[name].reshape(1, -1)) for name in means))
        return sum(others, first).sum()
