"""One step of training, written once as operations:

    the next batch  ->  the model's terms  ->  loss = - sum of weight * mean  ->  its gradient  ->  guard and update

The first step is recorded as a program over fixed buffers, and every further step replays it. What changes from step to
step (the rows, the rates, the noise) lies in arrays that the recorded operations read. The rates are the learning rate
and the weight of each scheduled term (batches.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyvae.engine.devices import Array, read, to_host
from tinyvae.engine.fusion import tf32
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Program, Tape
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference.bounds import Draw, Terms
from tinyvae.models import Model, Phase
from tinyvae.models.contract import check_parts, check_terms
from tinyvae.nn.optimizers import FINITE, Optimizer
from tinyvae.training.batches import Batches, Shard
from tinyvae.training.objective import SKIPPED, accumulate, objective
from tinyvae.training.settings import Settings

SCHEDULED = ("kl",)  # the terms whose weight can change from step to step


def watched(record: Any, read: set[str]) -> Any:
    """A copy of a batch or a draw that adds the name of each of its fields to `read` when it is read."""

    class Watched(type(record)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    copy = object.__new__(Watched)
    copy.__dict__.update(vars(record))
    return copy


class Step:
    """The step of one phase: its terms, the optimizer of its parameters, and its totals over the epoch.

    Parameters
    ----------
    model, phase, batches, settings
        The model, the phase whose terms are maximised, the minibatches, and the settings of the training.
    counters
        The position of the training, which addresses the noise of a step (batches.py).
    """

    def __init__(self, model: Model, phase: Phase, batches: Batches, settings: Settings, counters: Array) -> None:
        self.model, self.phase, self.batches, self.settings = model, phase, batches, settings
        self.counters, self.noise = counters, Noise(settings.seed, "noise", counters)
        self.draw = settings.draw(self.noise)
        names, span = model.parameters.among(phase.networks)
        self.parameters = [model.parameters[name] for name in names]
        self.read: set[str] = set()  # the fields of a batch and of a draw that the terms read
        self.names, self.gradient = names, model.parameters.gradient[span]
        self.optimizer = Optimizer(settings.optimizer, model.parameters.flat[span])
        self.prepare()
        terms = self._trial_terms()
        self.scheduled = tuple(name for name in terms if name in SCHEDULED)
        self.term_names, self.reported_names = tuple(terms), tuple(terms.reported)
        self.totals = model.xp.zeros(5 + len(self.reported_names))  # see objective.py
        self.first_loss = math.nan  # the loss of the untrained model on the first batch, in nats per datum
        self.program = Program(self.build)  # one recording for each batch size

    def prepare(self) -> None:
        """What a subclass needs before the terms are asked for the first time."""

    def draw_of(self, size: int) -> Draw:
        """How the terms of a batch of so many rows are estimated."""
        return self.draw

    def _trial_terms(self) -> Terms:
        """The terms of a few data, which show the names of the terms, and faulty terms before the training begins. The
        data are as many as no labelled batch has, so that the shape of a term shows which of the two it is of."""
        self.batches.plan_for(1)
        with np.errstate(all="ignore"):
            size = min(3 if self.batches.labelled_size == 2 else 2, self.batches.count)
            self.batches.load(size)
            batch, _ = self.batches.next(size)
            check_parts(self.model, batch, self.draw)
            self.noise.restart()
            terms = self.phase.terms(watched(batch, self.read), watched(self.draw_of(size), self.read))
        self.noise.restart()
        check_terms(self.model.kind, terms)
        return terms

    def state(self) -> dict[str, Array]:
        """The arrays that a step changes, except the parameters and the counters, by their names in a checkpoint."""
        inner = f"{self.phase.name}." if self.phase.name else ""
        moments = {f"optimizer.{inner}{name}": vector for name, vector in self.optimizer.moments.items()}
        return moments | {f"training.{inner}status": self.optimizer.status, f"training.{inner}totals": self.totals}

    # ---- one step as operations --------------------------------------------------------------------------------------

    def loss(self, size: int, shard: Shard | None = None) -> tuple[Tensor, Terms, Tensor]:
        """Forward and backward pass of the batch at the cursor: the loss in nats per datum, the terms, the rates. A
        shard gives its part of the loss, which is a mean over all rows, and of its gradient."""
        batch, rates = self.batches.next(size, shard)
        self.noise.restart(rows=shard and shard.rows)
        terms = self.phase.terms(batch, self.draw_of(size))
        loss = self.objective(terms, rates, shard)
        self.model.parameters.collect(grad(loss, self.parameters), self.names)
        return loss, terms, rates

    def load(self, size: int) -> None:
        """Read those rows of the batch at the cursor that lie in files."""
        self.batches.load(size)

    def objective(self, terms: Terms, rates: Tensor, shard: Shard | None) -> Tensor:
        """The loss, or a shard's part of it; a subclass can compute in shards."""
        return objective(terms, self.model.weights, rates, self.scheduled)

    def build(self, size: int) -> None:
        """The operations of one whole step, which `program` records."""
        loss, terms, rates = self.loss(size)
        self.optimize(loss, rates)
        accumulate(terms, size, loss, self.totals, self.optimizer.status)
        self.batches.tick(size)

    def optimize(self, loss: Tensor, rates: Tensor) -> None:
        """Update the parameters by the gradient that `loss` has left."""
        settings = self.settings
        self.optimizer.step(loss, self.gradient, rates, settings.clip or math.inf,
                            1 / self.batches.count if settings.weight_prior else 0.0)

    def advance(self, size: int) -> None:
        """Make the step with the batch at the cursor."""
        self.program(size)

    def is_settled(self, size: int) -> bool:
        """Whether a step of this size is only a replay from now on."""
        return self.program.is_settled(size)

    def forget(self) -> None:
        """Free what was recorded."""
        self.program.clear()

    def eager(self, size: int) -> None:
        """Make one whole step without recording it."""
        self.load(size)
        with np.errstate(all="ignore"):
            self.build(size)

    def tape_of_loss(self, size: int) -> Tape:
        """A recording of the loss and its gradient alone."""
        self.batches.load(size)
        with np.errstate(all="ignore"), Tape() as tape:
            self.loss(size)
        return tape

    def is_sound(self) -> bool:
        """Whether the loss and the gradient of the last step were finite."""
        return read(self.optimizer.status[FINITE]) == 1.0

    def skipped(self) -> float:
        """The number of steps of this epoch that were not finite."""
        return read(self.totals[SKIPPED])

    def tf32_error(self, size: int) -> tuple[float, float]:
        """The relative errors of the loss and of the gradient (in norm) of the next batch with TF32."""
        found = []
        self.batches.load(size)
        for on in (False, True):
            with np.errstate(all="ignore"), tf32(on):
                loss, _, _ = self.loss(size)
            found.append((read(loss.data), to_host(self.gradient).astype(np.float64)))
        (loss, g), (rounded, h) = found
        return abs(rounded / loss - 1), float(np.linalg.norm(h - g) / np.linalg.norm(g))
