"""The same models in Pyro: M2 with the class summed out by enumeration, and the conditional VAE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import torch
from pyro import infer
from pyro.distributions import Bernoulli, Normal, OneHotCategorical
from torch import Tensor, nn

from benchmarks import models
from benchmarks.models import STEPS, Case

RATE = 1e-3


def _linear(weight: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
    made = nn.Linear(*weight.shape, bias=bias is not None)
    made.weight.data = torch.from_numpy(weight.T.copy())
    if bias is not None:
        made.bias.data = torch.from_numpy(bias.copy())
    return made


class Network(nn.Module):
    """A perceptron of one hidden layer with the weights of tinyvae's network `name`. The first layer has a matrix for
    each input, so that what x adds is computed once for all classes."""

    def __init__(self, arrays: dict[str, np.ndarray], name: str) -> None:
        super().__init__()
        of = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
        more = [of["0.weight.1"]] if "0.weight.1" in of else []
        self.first = nn.ModuleList([_linear(of["0.weight"], of["0.bias"]), *map(_linear, more)])
        self.last = _linear(of["1.weight"], of["1.bias"])

    def forward(self, *inputs: Tensor) -> Tensor:
        first, *rest = (layer(x) for layer, x in zip(self.first, inputs, strict=True))
        return self.last(torch.relu(sum(rest, first)))

    def normal(self, *inputs: Tensor) -> Any:
        """The normal distribution with the mean and log variance that the network puts out."""
        mean, logvar = self(*inputs).chunk(2, dim=-1)
        return Normal(mean, torch.exp(0.5 * logvar)).to_event(1)


class Pass(nn.Module):
    """A contestant; workers.py explains `about` and `losses`. Data, their order and the first weights are tinyvae's."""

    names: tuple[str, ...]

    def __init__(self, case: Case) -> None:
        super().__init__()
        pyro.enable_validation(False)
        self.ready = models.training(case)
        batches = self.ready.batches
        self.data = self._rows(batches.stream.rows)
        order = torch.from_numpy(batches.stream.index[: models.compared(case) * case.batch])
        self.order = list(order.split(case.batch))
        self.latent = case.latent
        self.restart()

    @staticmethod
    def _rows(rows: Any) -> dict[str, Tensor]:
        """The grey values and what stands beside them, each (count, width)."""
        beside = {name: torch.from_numpy(np.float32(array.data)) for name, array in rows.beside.items()}
        return {"x": torch.from_numpy(np.float32(rows.stored.data)) / rows.scale, **beside}

    @staticmethod
    def _at(rows: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        """The batch of these rows, with drawn pixels."""
        found = {name: array.index_select(0, index) for name, array in rows.items()}
        return found | {"x": (torch.rand_like(found["x"]) < found["x"]).float()}

    def restart(self) -> None:
        """Restore the first weights, and start a new optimizer."""
        torch.manual_seed(0)
        for name in self.names:
            setattr(self, name, Network(self.ready.model.parameters.arrays(), name))
        self.optimizer = torch.optim.Adam(self.parameters(), RATE, fused=True)

    def about(self) -> dict[str, Any]:
        return {"pyro": pyro.__version__, "torch": torch.__version__, "threads": torch.get_num_threads()}

    def standard(self, rows: int) -> Any:
        return Normal(torch.zeros(rows, self.latent), torch.ones(rows, self.latent)).to_event(1)

    def loss(self, number: int) -> Tensor:
        """What training lowers, in nats per datum, of the batch with this number."""
        raise NotImplementedError

    def step(self, number: int) -> Tensor:
        loss = self.loss(number)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def losses(self, count: int) -> list[float]:
        self.restart()
        return [float(self.step(number)) for number in range(count)]

    def some(self) -> None:
        for number in range(STEPS):
            self.step(number)


class M2(Pass):
    """q(y|x), q(z|x, y) and p(x|y, z), with the objective of tinyvae's M2."""

    names = ("q_y", "q_z", "p_x")

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        batches = self.ready.batches
        self.labelled, self.labelled_order = self._rows(batches.labelled.rows), torch.from_numpy(
            batches.labelled.index)
        self.classes, self.labels = self.labelled["y"].shape[1], batches.labelled_size
        self.alpha = self.ready.model.weights["classifier"]
        self.elbo = infer.TraceEnum_ELBO(max_plate_nesting=1)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.standard(len(x)))
            label = pyro.sample("y", OneHotCategorical(logits=torch.zeros(len(x), self.classes)), obs=y)
            pyro.sample("x", Bernoulli(logits=self.p_x(z, label)).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", OneHotCategorical(logits=self.q_y(x)), infer={"enumerate": "parallel"})
            pyro.sample("z", self.q_z.normal(x, y))

    def loss(self, number: int) -> Tensor:
        x, count = self._at(self.data, self.order[number])["x"], len(self.labelled["x"])
        places = torch.arange(number * self.labels, (number + 1) * self.labels) % count
        known = self._at(self.labelled, self.labelled_order[places])
        free = self.elbo.differentiable_loss(self.model, self.guide, x) / len(x)
        bound = self.elbo.differentiable_loss(self.model, self.guide, known["x"], known["y"]) / self.labels
        right = (known["y"] * torch.log_softmax(self.q_y(known["x"]), -1)).sum() / self.labels
        return free + count / len(self.data["x"]) * bound - self.alpha * right


class CVAE(Pass):
    """p(z|c), q(z|t, c) and p(t|z, c)."""

    names = ("prior", "encoder", "decoder")

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.condition = self.ready.model.condition
        self.elbo = infer.TraceMeanField_ELBO()  # the KL in closed form

    def parts(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Condition, target, and what q(z|t, c) reads."""
        x = batch["x"]
        if self.condition.needs:
            c = batch[self.condition.needs[0]]
            return c, x, (x, c)
        return x[:, self.condition.given], x[:, self.condition.pixels], (x,)

    def model(self, c: Tensor, t: Tensor, seen: tuple[Tensor, ...]) -> None:
        with pyro.plate("data", len(t)):
            z = pyro.sample("z", self.prior.normal(c))
            pyro.sample("t", Bernoulli(logits=self.decoder(z, c)).to_event(1), obs=t)

    def guide(self, c: Tensor, t: Tensor, seen: tuple[Tensor, ...]) -> None:
        with pyro.plate("data", len(t)):
            pyro.sample("z", self.encoder.normal(*seen))

    def loss(self, number: int) -> Tensor:
        parts = self.parts(self._at(self.data, self.order[number]))
        return self.elbo.differentiable_loss(self.model, self.guide, *parts) / len(self.order[number])
