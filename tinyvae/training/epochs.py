"""The state of a training, which lies in arrays, and the steps of an epoch. The room `runs` loops over the epochs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np

from tinyvae.choices import an
from tinyvae.data import DataSet, ways_to_label
from tinyvae.engine.devices import CPU, Array, read, to_host
from tinyvae.engine.noise import Noise
from tinyvae.evidence.evaluation import evaluate
from tinyvae.models import Model, Phase
from tinyvae.models.batch import rows_of
from tinyvae.models.contract import check_phases, check_weights
from tinyvae.training.batches import BATCH, CURSOR, STEP, Batches
from tinyvae.training.faults import (
    NonFiniteError,
    blame,
    check_memory,
    check_variety,
    device_faults,
    diverged,
    not_finite,
)
from tinyvae.training.fingerprint import fingerprint
from tinyvae.training.mcem import McemStep
from tinyvae.training.objective import DATA_COUNT, FIRST_TERM, NORMS, OBJECTIVE, OF_ELBO, SKIPPED, SOUND
from tinyvae.training.selection import check_classes, check_labels, select
from tinyvae.training.settings import SCHEDULES, Settings, check_read
from tinyvae.training.shards.nccl import check_exchange
from tinyvae.training.shards.ranks import ALONE, check_shards, ranks
from tinyvae.training.shards.step import ShardedStep
from tinyvae.training.step import Step

# On a GPU the host checks only after so many steps whether all of them were finite, because each check waits for the
# GPU.
CHECK_INTERVAL = 200
OVERSHOOT_STEPS = 100  # the number of first steps that may raise the loss far above that of the untrained model
# the same, of a model that classifies, and of one that learns from data with holes
SPECIAL = ("accuracy", "accuracy_stderr", "held_out", "held_out_stderr")
EVALUATED = ("elbo", "elbo_stderr", "reconstruction", "kl", "data_count")  # the fields of an evaluation in a record


def check_all_begin(phases: Sequence[Phase], epochs: int) -> None:
    """Warn of a last phase that would not begin within `epochs`, so that what it trains stays as it was built."""
    *before, last = phases
    taken = sum(phase.epochs or 0 for phase in before)
    if 0 < epochs <= taken:
        warnings.warn(f"found epochs={epochs}, and the phases before {last.name!r} take {taken}, so {last.name!r} does "
                      f"not begin and what it trains stays untrained: take more than {taken} epochs", RuntimeWarning,
                      stacklevel=4)


class Training:
    """A training of a model on data: its state, its steps and its epochs. Steps change only the arrays of `state()`.

    `exchange` names how several processes exchange gradients (`EXCHANGES` of shards/nccl.py); no bit depends on it.
    """

    def __init__(self, model: Model, data: DataSet, settings: Settings, exchange: str = "mpi") -> None:
        if not isinstance(data, DataSet):
            raise TypeError(f"found data of type {type(data).__name__}; expected a DataSet: tv.data.load(name) or "
                            "tv.DataSet(name, train, test, shape, scale)")
        model.check(data)
        check_variety(model, data)
        check_labels(model, settings)
        check_memory(model, settings)
        self.model, self.settings = model, settings
        self.data = select(data, settings)
        if settings.batch > len(self.data.train) and settings.batch != Settings.batch:
            warnings.warn(f"found batch={settings.batch:,}, and there are {len(self.data.train):,} training data: each "
                          "step takes all of them", RuntimeWarning, stacklevel=3)
        if settings.patience and self.data.valid is None:
            raise ValueError("early stopping (patience) needs validation data: hold some out with validation=COUNT; "
                             "choosing by the test data would make its bound too good")
        check_shards(settings.shards)
        check_exchange(exchange, model.xp)
        self.exchange = exchange
        self.xp, self.ranks = model.xp, ranks() if settings.shards > 1 else ALONE
        self.counters = self.xp.zeros(3, np.int64)
        self.epoch = 0  # the number of completed epochs
        self.best, self.best_epoch = -math.inf, 0
        self.interval = 1 if self.xp is CPU else CHECK_INTERVAL
        self.batches = self._batches()
        check_phases(model.kind, phases := model.phases())
        self.phases: list[Phase] = list(phases)
        check_all_begin(self.phases, settings.epochs)
        sharded = partial(ShardedStep, exchange=exchange)
        self.steps_of = [(sharded if settings.shards > 1 else McemStep if phase.chains else Step)(
            model, phase, self.batches, settings, self.counters) for phase in self.phases]
        terms = dict.fromkeys(name for step in self.steps_of for name in (*step.term_names, *step.reported_names))
        check_weights(model.kind, model.weights, terms, Model.weights)
        for name, plain in (("beta", 1.0), ("warmup", 0.0)):
            if getattr(settings, name) != plain and not any(step.scheduled for step in self.steps_of):
                raise ValueError(f"found {name}={getattr(settings, name):g} with {an(model.kind)}, none of whose terms "
                                 f"is a kl, whose weight it would change: leave {name} out")
        check_read(model, settings, set().union(*(step.read for step in self.steps_of)))
        self.batches.plan_for(1 + max(len(step.scheduled) for step in self.steps_of))
        self._turn = 0  # the number of the step, which selects the phase if phases alternate
        if settings.data_mean_bias:  # refused here, before anything is written, where the model cannot
            before = model.parameters.flat.copy()
            model.start_at(np.full(model.pixels, 0.5))
            model.parameters.flat[...] = before

    def _batches(self) -> Batches:
        def drawn(stream: str) -> Noise | None:
            return Noise(self.settings.seed, stream, self.counters) if self.data.pixels == "dynamic" else None

        labelled = None
        if "labelled" in self.model.needs:
            labels = self.data.train_labels
            known = np.flatnonzero(labels >= 0) if labels is not None else np.zeros(0, np.int64)
            if not len(known):
                raise ValueError(f"{an(self.model.kind)} learns from labels, and {self.data.name} has none in its "
                                 f"training part: {ways_to_label(self.data)}, or take another model")
            labelled = rows_of(self.model, self.data, "train", drawn("binarise-labelled"), only=known)
            check_classes(self.data)
        rows = rows_of(self.model, self.data, "train", drawn("binarise"))
        return Batches(rows, self.settings.batch, self.settings.seed, self.counters, labelled,
                       self.settings.labelled_batch)

    # ---- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Every array that a step changes, by name; `parameters` is the flat vector of all parameters."""
        state = {"parameters": self.model.parameters.flat, "training.counters": self.counters}
        if self.batches.labelled is not None:
            state["training.labelled_counters"] = self.batches.labelled_counters
        for step in self.steps_of:
            state |= step.state()
        return state

    # the optimizer and the totals of the current phase; most models have only one
    optimizer = property(lambda self: self.step_now().optimizer)
    totals = property(lambda self: self.step_now().totals)
    first_loss = property(lambda self: self.step_now().first_loss)

    def first_losses(self) -> dict[str, float]:
        """The first loss of each phase by the phase's name; NaN for a phase that has not begun."""
        return {step.phase.name: step.first_loss for step in self.steps_of}

    def set_first_losses(self, found: dict[str, float]) -> None:
        """Restore the losses that `first_losses` returned."""
        for step in self.steps_of:
            step.first_loss = found.get(step.phase.name, math.nan)

    def in_turn(self) -> bool:
        """Whether the phases take turns, step by step."""
        return all(phase.epochs is None for phase in self.phases)

    def step_now(self) -> Step:
        """The step of the current phase: by the epoch if phases have lengths; else the phases alternate."""
        return self.steps_of[self._turn % len(self.steps_of)] if self.in_turn() else self.steps_of[
            self.phase_at(self.epoch)]

    def stretch(self) -> tuple[int, int]:
        """The first epoch of the current phase, and how many it has; of phases that take turns, those of the run."""
        first, last = 0, self.settings.epochs
        if not self.in_turn():
            lengths = [phase.epochs or 0 for phase in self.phases]
            now = self.phase_at(self.epoch)
            first = sum(lengths[:now])
            last = last if now == len(self.phases) - 1 else min(last, first + lengths[now])
        return first, last - first

    def phase_at(self, epoch: int) -> int:
        """The number of the phase that an epoch, counted from 0, belongs to, where phases follow each other."""
        end = 0
        for number, phase in enumerate(self.phases):
            end += epoch + 1 if phase.epochs is None else phase.epochs
            if epoch < end:
                return number
        return len(self.phases) - 1  # the last phase goes on

    def finished(self) -> bool:
        """Whether all epochs are completed, or the bound has not improved for `patience` epochs."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= self.settings.epochs or bool(self.settings.patience and waited >= self.settings.patience)

    def now(self, index: int) -> int:
        """The counter with this index: STEP, CURSOR or BATCH."""
        return read(self.counters[index])

    # ---- steps -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Train on the batch at the cursor, and move the cursor to the next batch."""
        size, step = self.batches.size_now(), self.step_now()
        with self._device_faults(size):
            self._advance(size)
            sound = step.is_sound()
        if not sound and self.settings.on_nonfinite == "stop":
            raise self._fault(step, size)
        if math.isnan(step.first_loss) and (totals := to_host(step.totals))[SOUND] == 1:
            step.first_loss = float(totals[OBJECTIVE] / totals[DATA_COUNT])

    def _advance(self, size: int) -> None:
        step = self.step_now()
        step.load(size)
        step.advance(size)
        self._turn += 1

    def step_many(self, sizes: list[int]) -> None:
        """Make several steps and check only after the last whether all were finite, so that a GPU never waits.

        If a step was not finite, the state is restored and the steps are repeated one by one, up to the faulty one.
        """
        state, turn = self.state(), self._turn
        with self._device_faults(max(sizes)):
            before = {name: array.copy() for name, array in state.items()}
            skipped = self._skipped()
            for size in sizes:
                self._advance(size)
            sound = self._skipped() == skipped
        if not sound and self.settings.on_nonfinite == "stop":
            self._turn = turn
            for name, array in state.items():
                array[...] = before[name]
            for _ in sizes:
                self.step()

    def _skipped(self) -> float:
        return sum(step.skipped() for step in self.steps_of)

    def _device_faults(self, size: int) -> Any:
        def forget() -> None:
            for step in self.steps_of:
                step.forget()

        return device_faults(self.xp, size, forget, self.step_now().tape_of_loss)

    def _fault(self, step: Step, size: int) -> NonFiniteError:
        """Repeat the faulty step eagerly; the error names the first operation whose result is not finite."""
        self.counters -= self.xp.asarray((1, size, 1))
        number, cursor, batch = to_host(self.counters).tolist()
        return not_finite(step.tape_of_loss(size), step.gradient, {
            "epoch": self.epoch + 1, "batch": batch, "step": number, "seed": self.settings.seed,
            "indices": self.batches.stream.numbers(cursor, size).tolist()},
            blame(self.model, self.data))  # fmt: skip

    def tf32_error(self) -> tuple[float, float]:
        """The relative errors of the loss and of the gradient (in norm) of the next batch with TF32."""
        self.begin_epoch()
        return self.step_now().tf32_error(self.batches.size_now())

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Write the order and the plan of the current epoch.

        The rates of batch i are the learning rate, lr * schedule(progress), where the progress is that within the
        phase, and the weight of the KL, which rises linearly to beta over `warmup` epochs.
        """
        self._turn = self.now(STEP)
        if not self._turn and self.settings.data_mean_bias:
            self._start_bias()
        self.batches.begin(self.epoch)
        settings, steps = self.settings, self.batches.steps
        first, length = self.stretch()
        plan = np.zeros(self.batches.plan.shape, self.model.dtype)
        for i in range(steps):
            done = self.epoch + i / steps
            rate = settings.lr * SCHEDULES[settings.schedule]((done - first) / max(1, length))
            risen = min(1.0, (done + 1 / steps) / settings.warmup) if settings.warmup else 1.0
            plan[i] = (rate, settings.beta * risen)[: plan.shape[1]]
        self.batches.plan[...] = self.xp.asarray(plan)

    def _start_bias(self) -> None:
        mean, count = np.zeros((2, self.model.pixels))
        for start in range(0, len(self.data.train), 1000):
            rows = self.data.train[start : start + 1000].astype(np.float64)
            seen = 1 if self.data.train_mask is None else self.data.train_mask[start : start + 1000]
            mean += (rows * seen).sum(0)
            count += (np.ones(rows.shape) * seen).sum(0)
        self.model.start_at(mean / (np.maximum(count, 1) * self.data.scale))

    def steps(self) -> Iterator[int]:
        """Make the remaining steps of the epoch; yield the number of finished batches after each check by the host."""
        self.begin_epoch()
        sizes, done = self.batches.sizes(), self.now(BATCH)
        while done < len(sizes):
            settled = list(takewhile(self._is_settled, sizes[done : done + self.interval]))
            if len(settled) > 1:
                self.step_many(settled)
            else:
                self.step()
            done += max(1, len(settled))
            yield done

    def _is_settled(self, size: int) -> bool:
        """Whether the recorded steps of this size have been verified, and the first losses are known."""
        due = self.steps_of if self.in_turn() else [self.step_now()]
        return all(step.is_settled(size) and not math.isnan(step.first_loss) for step in due)

    def _check_divergence(self, step: Step) -> None:
        """Raise an error if the mean objective of the epoch is far above that of the untrained model.

        A learning rate that is too large can spoil the weights although every number stays finite. The first steps may
        overshoot and recover (Adagrad's first steps always have full length), so their margin is 100 times as large.
        """
        totals = to_host(step.totals)
        if not totals[SOUND]:
            raise NonFiniteError(f"all {self.batches.steps} batches of epoch {self.epoch + 1} were skipped: their loss "
                                 "or gradient was not finite; try a smaller --lr", {"epoch": self.epoch + 1})
        mean = totals[OBJECTIVE] / max(totals[DATA_COUNT], 1)
        factor, first = 1 if self.now(STEP) >= OVERSHOOT_STEPS else 100, step.first_loss
        margin = factor * max(abs(first) / 2, 0.1 * self.model.pixels)
        if self.settings.on_nonfinite == "stop" and mean > first + margin:
            raise diverged(self.epoch + 1, mean, first, blame(self.model, self.data))

    def check_parameters(self) -> None:
        """Raise NonFiniteError if a parameter is not finite: a sound gradient can be followed by a step too long."""
        wrong = read((~self.xp.isfinite(self.model.parameters.flat)).sum())
        if wrong:
            raise NonFiniteError(f"{wrong:,} of {self.model.parameters.count:,} parameters are not finite after step "
                                 f"{self.now(STEP)}, though no loss and no gradient was; they were not saved. Start "
                                 "again with a smaller --lr", {"epoch": self.epoch + 1, "wrong": wrong})

    def end_epoch(self) -> dict[str, Any]:
        """End the epoch: evaluate the model on test and validation data, and return the record for the metrics file."""
        record: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.now(STEP), "data": self.data.name}
        for step in self._trained():
            self._check_divergence(step)
            record |= self._sums(step)
        self.check_parameters()
        self.model.learn(self.data)
        draws = self.settings.importance_samples if self.settings.bound == "iwae" else 0
        if draws:
            record["importance_samples"] = draws
        for part in ("valid", "test"):
            if getattr(self.data, part) is not None:
                result = evaluate(self.model, self.data, part=part, importance_samples=draws, team=self.ranks)
                record |= {f"{part}_{key}": getattr(result, key) for key in EVALUATED}
                record |= {f"{part}_{name}": mean for name, mean in (result.terms or {}).items()}
                record |= {f"{part}_{key}": value for key in SPECIAL if (value := getattr(result, key)) is not None}
                if draws:
                    record |= {f"{part}_bound": result.log_evidence, f"{part}_bound_stderr": result.log_evidence_stderr}
        record |= {key: getattr(result, key) for key in ("active_units", "active_threshold", "kl_per_dimension")}
        if result.active_units_per_layer:
            record["active_units_per_layer"] = result.active_units_per_layer
        record["fingerprint"] = fingerprint(self.model.parameters.arrays())
        if (rank := self.ranks.differing(record["fingerprint"])) is not None:
            raise NonFiniteError(f"the parameters of rank {rank} are not those of rank 0 after epoch {self.epoch + 1}; "
                                 "the epoch was not saved: a machine computed something else, so look at its memory, "
                                 "and go on from the last checkpoint", {"epoch": self.epoch + 1, "rank": rank})
        self.epoch += 1
        for counters in (self.counters, self.batches.labelled_counters):
            counters[CURSOR] = counters[BATCH] = 0
        for step in self.steps_of:
            step.totals[...] = 0
        part, bound = "valid" if self.data.valid is not None else "train", "bound" if draws else "elbo"
        phases = [0 if self.in_turn() else self.phase_at(epoch - 1) for epoch in (self.best_epoch, self.epoch)]
        # A model of data with holes is chosen by how well it predicts observed values that it does not see, and one
        # that classifies by its accuracy; where phases follow each other, the last one trains what classifies.
        last = self.in_turn() or phases[1] == len(self.phases) - 1
        score = record.get("valid_held_out", record.get("valid_accuracy" if last else "", record[f"{part}_{bound}"]))
        if self.best_epoch and phases[0] != phases[1]:
            self.best = -math.inf  # another phase raises other terms, and its parameters go into the model, too
        bounds = [value for name, value in record.items() if name.endswith(("_elbo", "_bound"))]
        record["best"] = bool(score > self.best) and all(map(math.isfinite, bounds))  # a dead model is not the best
        if record["best"]:
            self.best, self.best_epoch = score, self.epoch
        return record

    def _trained(self) -> list[Step]:
        """The steps of the phases that trained in this epoch."""
        return [step for step in self.steps_of if to_host(step.totals)[[SOUND, SKIPPED]].any()]

    def _sums(self, step: Step) -> dict[str, Any]:
        """The part of the epoch's record about one phase: means over the training data, in nats per datum."""
        totals, plan = to_host(step.totals), to_host(self.batches.plan)[-1].tolist()
        count, sound = (totals[i] or math.nan for i in (DATA_COUNT, SOUND))  # NaN if all steps were skipped
        sums = dict(zip(step.reported_names, totals[FIRST_TERM:OBJECTIVE], strict=True))
        record: dict[str, Any] = {}
        if set(OF_ELBO) <= set(sums):
            record["train_elbo"] = (sums["reconstruction"] - sums["kl"]) / count
        else:
            record["train_elbo"] = self.model.bound_of(sums) / count
        record |= {f"train_{name}": total / count for name, total in sums.items()}
        record |= {"train_count": int(totals[DATA_COUNT]), "gradient_norm": totals[NORMS] / sound,
                   "skipped": int(totals[SKIPPED]), "learning_rate": plan[0]}
        record |= {f"{name}_weight": plan[1 + i] for i, name in enumerate(step.scheduled)}
        if self.model.bound:  # the objective has other terms beside the bound
            record["train_objective"] = -totals[OBJECTIVE] / count
        if "bound" in step.term_names and "bound" not in sums:  # iwae's, of which the terms of the ELBO are reported
            others = sum(self.model.weights.get(name, 1.0) * sums[name] for name in step.term_names if name in sums)
            record["train_bound"] = (-totals[OBJECTIVE] - others) / count
        return record
