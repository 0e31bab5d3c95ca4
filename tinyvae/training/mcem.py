"""Monte Carlo EM: the step of a phase whose terms take draws of p(z|x) from Markov chains (AEVB appendix E).

    E   the chain of every datum of the batch moves by Hamiltonian Monte Carlo under the present parameters
    M   several updates of the parameters raise the terms at the draws where the chains stand now

Each training datum has a chain of its own, which begins at a draw of the prior and goes on where it stood when its
datum came last. The step size of all moves is tuned to the acceptance probability TARGET of hmc.py. Chains and step
size belong to the state of the training, so a resumed run has the same bits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyvae.engine.devices import Array, read
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Program
from tinyvae.engine.tensor import Tensor
from tinyvae.evidence.hamiltonian.hmc import TARGET, Chains, fading, first_step, tuned
from tinyvae.inference.bounds import Draw
from tinyvae.models.batch import Batch
from tinyvae.training.batches import CURSOR, STEP
from tinyvae.training.objective import accumulate
from tinyvae.training.step import Step

LEAPFROG, UPDATES = 10, 5  # leapfrog steps in a move, and updates of the parameters after it


class McemStep(Step):
    """A move of the batch's chains, then `UPDATES` updates with the same draws."""

    def prepare(self) -> None:
        xp, count = self.model.xp, self.batches.count
        prior = self.model.generator(None).prior
        start = Noise(self.settings.seed, "chains", xp.zeros(1, np.int64))
        self.z = prior.sample(start, count).data.copy()  # (count, latent)
        self.step_size = xp.full(1, first_step(self.z.shape[-1]))
        self.place = self.z[None, : self.batches.size].copy()  # the draws of the batch, (1, batch, latent)
        self.moves = Noise(self.settings.seed, "moves", self.counters)
        self.rows = Program(self._rows)
        self.chains: dict[int, Chains] = {}

    def state(self) -> dict[str, Array]:
        inner = f"training.{self.phase.name}." if self.phase.name else "training."
        return super().state() | {f"{inner}chains": self.z, f"{inner}step_size": self.step_size}

    def draw_of(self, size: int) -> Draw:
        return replace(self.draw, z=Tensor(self.place[:, :size]))

    def _rows(self, size: int) -> dict[str, Tensor]:
        """The fields of the batch at the cursor, by name; a replay fills the same arrays anew."""
        batch, _ = self.batches.next(size)
        return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}

    def advance(self, size: int) -> None:
        cursor = read(self.counters[CURSOR])
        rows = self.model.xp.asarray(self.batches.stream.numbers(cursor, size))
        self._move(size, rows, Batch(**self.rows(size)))
        for number in range(1, UPDATES + 1):
            self.program(size, number == UPDATES)

    def _move(self, size: int, rows: Array, batch: Batch) -> None:
        """One move of the chains of these training data, and the tuning of the step size."""
        self.moves.restart()
        if size not in self.chains:
            self.chains[size] = Chains(lambda z: self._log_joint(batch, z), self.z[rows][None], self.moves)
        chains = self.chains[size]
        chains.z[...] = self.z[rows][None]
        chains.refresh()
        moved = chains.transition(self.model.xp.broadcast_to(self.step_size, (size,)), LEAPFROG)
        self.z[rows], self.place[:, :size] = chains.z[0], chains.z
        gain = fading(1 + read(self.counters[STEP]))
        self.step_size[...] = tuned(self.step_size, moved.acceptance.mean(), TARGET, gain)

    def _log_joint(self, batch: Batch, z: Tensor) -> Tensor:
        p = self.model.generator(batch)
        return p.likelihood(z).log_prob(self.model.target(batch)) + p.prior.log_prob(z)

    def build(self, size: int, last: bool = True) -> None:
        """One update; the last one of a step also counts it, and moves the cursor."""
        loss, terms, rates = self.loss(size)
        self.optimize(loss, rates)
        if last:
            accumulate(terms, size, loss, self.totals, self.optimizer.status)
            self.batches.tick(size)

    def is_settled(self, size: int) -> bool:
        return False  # a move is made of several programs, and each step is checked by itself

    def forget(self) -> None:
        super().forget()
        self.rows.clear()
        self.chains.clear()
