"""Training: the first step is recorded, every other is the same list of launches run again.

`Training` holds the state of a run, all of it in arrays, and does steps and epochs; `fit` trains a model in memory
or into a run folder (runs.py), which can be resumed after any interruption with the same bits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.engine.devices import CPU, DeviceError, memory_in_use, read, to_host
from tinyvae.engine.fusion import accelerate, tf32
from tinyvae.engine.noise import Noise, permutation
from tinyvae.engine.rules import ANY, DATA, rule
from tinyvae.engine.tape import Tape, TapeError
from tinyvae.engine.tensor import Tensor, apply, grad
from tinyvae.evidence.evaluation import evaluate
from tinyvae.inference import bounds
from tinyvae.inference.estimators import check_choice
from tinyvae.nn.optimizers import FINITE, KL_WEIGHT, NORM, Optimizer
from tinyvae.training.batches import BATCH, CURSOR, STEP, Batches
from tinyvae.training.checkpoint import fingerprint
from tinyvae.training.settings import SCHEDULES, Settings

# The places of `totals`, a float64 vector of sums over the epoch so far: data, their two terms and what was minimised,
# and over sound steps the gradient norm and the count; skipped steps.
DATA_COUNT, RECONSTRUCTION, KL, OBJECTIVE, NORMS, SOUND, SKIPPED = range(7)
COMPARED = 2  # replays that are held against the same step run anew
LOOK = 200  # steps on a GPU between two looks of the host, for which it waits
GPU_FAULTS = ("CUDARuntimeError", "CUDADriverError", "CublasError")  # types that only CuPy and the kernels have
SETTLED = 100  # steps after which an objective worse than the untrained model's is no overshoot any more


def _accumulate(xp: Any, reconstruction: Any, kl: Any, loss: Any, totals: Any, status: Any) -> None:
    if read(status[FINITE]) != 1.0:
        totals[SKIPPED] += 1
        return
    sums = (read(terms.sum(dtype=np.float64)) for terms in (reconstruction, kl))
    totals[:SKIPPED] += xp.asarray((len(kl), *sums, len(kl) * read(loss), read(status[NORM]), 1))


rule("accumulate", _accumulate, domain=(ANY, ANY, ANY, DATA, DATA), writes=(3,))
accelerate("accumulate")


class TrainingError(ArithmeticError):
    """Training cannot go on from here; `report` holds the details."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class NonFiniteError(TrainingError):
    """The loss or its gradient was not finite."""


class DivergedError(TrainingError):
    """The objective is far worse than that of the untrained model."""


class Training:
    """The state of a run and its steps. Everything that changes is in the arrays of `state()`."""

    def __init__(self, model: Any, data: DataSet, settings: Settings) -> None:
        if not isinstance(data, DataSet):
            raise TypeError(f"found data of type {type(data).__name__}; expected a DataSet: tv.data.load(name) or "
                            "tv.DataSet(name, train, test, shape, scale)")
        if data.dimensions != model.pixels:
            raise ValueError(f"{data.name} has {data.dimensions} pixels a datum; the model takes {model.pixels}")
        if model.config["likelihood"] == "bernoulli" and data.pixels == "gray":
            raise ValueError(f"a Bernoulli likelihood needs pixels of 0 and 1, and {data.name} is grey: take -dynamic, "
                             "-static or -threshold, or --likelihood gaussian or continuous-bernoulli")
        check_memory(model, settings)
        if settings.estimator:
            check_choice(model.posterior_family, settings.estimator)
        self.model, self.settings = model, settings
        self.data = hold_out(data, settings.validation, settings.seed)
        if settings.patience and self.data.valid is None:
            raise ValueError("early stopping (patience) needs validation data: hold some out with validation=COUNT; "
                             "choosing by the test data would make its bound too good")
        self.xp = model.xp
        self.counters = self.xp.zeros(3, np.int64)
        self.totals = self.xp.zeros(7)
        self.first_loss = math.nan  # of the first batch, in nats per datum: what the untrained model scores
        self.epoch = 0  # epochs completed
        self.best, self.best_epoch = -math.inf, 0
        self.optimizer = Optimizer(settings.optimizer, model.parameters.flat)
        self.interval = 1 if self.xp is CPU else LOOK
        self.noise = Noise(settings.seed, "noise", self.counters)
        self.batches = Batches(self.data.train, data.scale, settings.batch, settings.seed, data.pixels == "dynamic",
                               model.dtype, self.counters)
        self._programs: dict[int, tuple[Tape, int]] = {}  # by batch size: the tape, and how often it was compared

    # ---- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Every array that a step changes, by name; the parameters are one vector here."""
        moments = {f"optimizer.{name}": vector for name, vector in self.optimizer.moments.items()}
        return {"parameters": self.model.parameters.flat, **moments, "training.status": self.optimizer.status,
                "training.counters": self.counters, "training.totals": self.totals}

    def finished(self) -> bool:
        """Have all epochs been done, or has patience run out?"""
        waited = self.epoch - self.best_epoch
        return self.epoch >= self.settings.epochs or bool(self.settings.patience and waited >= self.settings.patience)

    def now(self, place: int) -> int:
        """A place of the counters."""
        return read(self.counters[place])

    # ---- one step ----------------------------------------------------------------------------------------------------

    def _loss(self, size: int) -> tuple[Tensor, bounds.Terms, Tensor]:
        """Forward and backward of the batch at the cursor: the loss in nats per datum, the ELBO's terms, the rates."""
        model, settings = self.model, self.settings
        x, rates = self.batches.next(size)
        self.noise.restart()
        if settings.bound == "iwae":
            bound, terms = bounds.iwae(model, model.q, x, self.noise, settings.importance_samples, settings.samples,
                                       settings.gradient)
            loss = -bound.mean()
        elif settings.free_bits:
            posterior = model.q(x)
            terms = bounds.terms(model, lambda _: posterior, x, self.noise, settings.samples, settings.bound)
            charged = bounds.free_bits_kl(posterior, model.prior, settings.free_bits)
            loss = rates[KL_WEIGHT] * charged - terms.reconstruction.mean()
        else:
            terms = bounds.terms(model, model.q, x, self.noise, settings.samples, settings.bound, settings.gradient,
                                 settings.estimator, settings.baseline)
            loss = apply("objective", *terms, rates)
        model.parameters.collect(grad(loss, list(model.parameters)))
        return loss, terms, rates

    def _build(self, size: int) -> None:
        """One whole step as operations. Whoever records this can replay it."""
        settings = self.settings
        loss, terms, rates = self._loss(size)
        self.optimizer.step(loss, self.model.parameters.gradient, rates, settings.clip or math.inf,
                            1 / self.batches.count if settings.weight_prior else 0.0)
        apply("accumulate", *terms, loss, Tensor(self.totals), Tensor(self.optimizer.status))
        self.batches.tick(size)

    def eager(self, size: int) -> None:
        """Do one whole step without a tape."""
        with np.errstate(all="ignore"):
            self._build(size)

    def record(self, size: int) -> Tape:
        """Do one whole step and keep it as a program."""
        with Tape() as tape:
            self.eager(size)
        return tape

    def step(self) -> None:
        """Train on the batch at the cursor and move on."""
        size = self.batches.size_now()
        with self._device_faults(size):
            self._advance(size)
            sound = read(self.optimizer.status[FINITE]) == 1.0
        if not sound and self.settings.on_nonfinite == "stop":
            raise self._fault(size)
        if math.isnan(self.first_loss) and (totals := to_host(self.totals))[SOUND] == 1:
            self.first_loss = totals[OBJECTIVE] / totals[DATA_COUNT]

    def _several(self, sizes: list[int]) -> None:
        """Steps that nobody looks into: the host reads at their end whether all were sound, so a GPU never waits.

        If one was not, all are taken back and done again one by one, up to the one that went wrong.
        """
        state, largest = self.state(), max(sizes)
        with self._device_faults(largest):
            before = {name: array.copy() for name, array in state.items()}
            skipped = read(self.totals[SKIPPED])
            for size in sizes:
                self._advance(size)
            sound = read(self.totals[SKIPPED]) == skipped
        if not sound and self.settings.on_nonfinite == "stop":
            for name, array in state.items():
                array[...] = before[name]
            for _ in sizes:
                self.step()

    @contextmanager
    def _device_faults(self, size: int) -> Iterator[None]:
        """A GPU without memory, or one that is gone, in a sentence."""
        try:
            yield
        except MemoryError as fault:
            raise self._no_memory(size, fault) from None
        except RuntimeError as fault:
            if type(fault).__name__ not in GPU_FAULTS:
                raise
            raise DeviceError(f"the GPU stopped answering ({fault}): what was saved last is "
                              "intact; look at nvidia-smi, then go on with tinyvae train --resume RUN") from None

    def _advance(self, size: int) -> None:
        tape, compared = self._programs.get(size, (None, 0))
        if tape is None:
            self._programs[size] = (self.record(size), 0)
        elif compared < COMPARED:
            self._compare(tape, size)
            self._programs[size] = (tape, compared + 1)
        else:
            tape.replay()

    def _no_memory(self, size: int, fault: MemoryError) -> DeviceError | MemoryError:
        """What to do about a step that does not fit: the bytes a datum takes, from steps of one and of two."""
        if self.xp is CPU:
            return fault
        self._programs.clear()
        used, free, total = memory_in_use()
        try:
            taken = [sum(array.nbytes for launch in self._tape_of_loss(n).program() for array in launch.outputs)
                     for n in (1, 2)]
            advice = f"a batch of {max(1, int(0.8 * free / (2 * (taken[1] - taken[0]))))} should fit"
        except MemoryError:
            advice = "not even a batch of 2 fits beside what others hold there"
        return DeviceError(f"a batch of {size} does not fit into the GPU's memory: {used / 2**20:,.0f} MiB are in use "
                           f"here and {free / 2**20:,.0f} of {total / 2**20:,.0f} MiB are free; {advice} (--batch)")

    def _tape_of_loss(self, size: int) -> Tape:
        with np.errstate(all="ignore"), Tape() as tape:
            self._loss(size)
        return tape

    def tf32_error(self) -> tuple[float, float]:
        """How far TF32 moves the loss and the gradient of the next batch, relative to themselves (norms)."""
        self.begin_epoch()
        found = []
        for on in (False, True):
            with np.errstate(all="ignore"), tf32(on):
                loss, _, _ = self._loss(self.batches.size_now())
            found.append((read(loss.data), to_host(self.model.parameters.gradient).astype(np.float64)))
        (loss, g), (rounded, h) = found
        return abs(rounded / loss - 1), float(np.linalg.norm(h - g) / np.linalg.norm(g))

    def _compare(self, tape: Tape, size: int) -> None:
        """Do a step by replay and again by recording it anew; both must leave the same bits."""
        state = self.state()
        before = {name: array.copy() for name, array in state.items()}
        tape.replay()
        after = {name: to_host(array).tobytes() for name, array in state.items()}
        for name, array in state.items():
            array[...] = before[name]
        again = self.record(size)
        if all(to_host(array).tobytes() == after[name] for name, array in state.items()):
            return
        for ours, theirs in zip(tape.launches, again.launches, strict=True):
            pairs = zip(ours.outputs, theirs.outputs, strict=True)
            if any(to_host(a).tobytes() != to_host(b).tobytes() for a, b in pairs):
                raise TapeError(f"a replayed step differs from the same step run anew, first in {ours}: a value that "
                                "changes from step to step was frozen into the recording")
        raise TapeError("a replayed step leaves another state than the same step run anew")

    def _fault(self, size: int) -> NonFiniteError:
        """Run the step that went wrong again, eagerly, and name the first operation whose result is not finite."""
        self.counters -= self.xp.asarray((1, size, 1))
        step, cursor, batch = to_host(self.counters).tolist()
        report = {"epoch": self.epoch + 1, "batch": batch, "step": step, "seed": self.settings.seed,
                  "indices": to_host(self.batches.order)[cursor : cursor + size].tolist()}
        tape = self._tape_of_loss(size)
        launch, values = tape.first_nonfinite() or (None, self.model.parameters.gradient)
        values = to_host(values)
        finite = values[np.isfinite(values)]
        shown = f"finite part from {finite.min():.3g} to {finite.max():.3g}" if finite.size else "nothing finite"
        report |= {"operation": str(launch or "the gradient's norm"), "nan": int(np.isnan(values).sum()),
                   "inf": int(np.isinf(values).sum()), "size": int(values.size)}
        return NonFiniteError(
            f"not finite in epoch {report['epoch']}, batch {report['batch']} (step {report['step']}): first in "
            f"{report['operation']}, {report['nan']} NaN and {report['inf']} infinite of {report['size']} values, "
            f"{shown}; no parameter was changed by this step. A smaller --lr or --clip 100 helps most often; "
            "--on-nonfinite skip leaves such batches out", report)

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Lay out the order and the rates of the epoch that `epoch` and the counters point into."""
        if not self.now(STEP) and self.settings.data_mean_bias:
            self._start_bias()
        self.batches.begin(self.epoch)
        settings, steps = self.settings, self.batches.steps
        plan = np.zeros(self.batches.plan.shape, self.batches.dtype)
        for i in range(steps):
            done = self.epoch + i / steps
            rate = settings.lr * SCHEDULES[settings.schedule](done / max(1, settings.epochs))
            risen = min(1.0, (done + 1 / steps) / settings.warmup) if settings.warmup else 1.0
            plan[i] = (rate, settings.beta * risen)
        self.batches.plan[...] = self.xp.asarray(plan)

    def _start_bias(self) -> None:
        mean = np.zeros(self.model.pixels)
        for start in range(0, len(self.data.train), 1000):
            mean += self.data.train[start : start + 1000].sum(0, dtype=np.float64)
        self.model.start_at(mean / (len(self.data.train) * self.data.scale))

    def steps(self) -> Iterator[int]:
        """Do the rest of the current epoch, giving the number of batches done whenever the host has looked at them."""
        self.begin_epoch()
        sizes, done = self.batches.sizes(), self.now(BATCH)
        while done < len(sizes):
            settled = list(takewhile(self._is_settled, sizes[done : done + self.interval]))
            if len(settled) > 1:
                self._several(settled)
            else:
                self.step()
            done += max(1, len(settled))
            yield done

    def _is_settled(self, size: int) -> bool:
        """Is a step of this size a program that was compared with its operations, and the first loss known?"""
        return self._programs.get(size, (None, 0))[1] == COMPARED and not math.isnan(self.first_loss)

    def _check_divergence(self) -> None:
        """A too large step can throw the weights far out without any number becoming infinite.

        The first steps may overshoot and recover (Adagrad's always have full length), so they are allowed much more.
        """
        totals = to_host(self.totals)
        if not totals[SOUND]:
            raise NonFiniteError(f"all {self.batches.steps} batches of epoch {self.epoch + 1} were skipped: their loss "
                                 "or gradient was not finite; try a smaller --lr", {"epoch": self.epoch + 1})
        mean = totals[OBJECTIVE] / max(totals[DATA_COUNT], 1)
        margin = max(abs(self.first_loss) / 2, 0.1 * self.model.pixels) * (1 if self.now(STEP) >= SETTLED else 100)
        if self.settings.on_nonfinite == "stop" and mean > self.first_loss + margin:
            epoch = self.epoch + 1
            raise DivergedError(
                f"diverged in epoch {epoch}: the objective was {mean:.4g} nats per datum on average (lower is better), "
                f"that of the untrained model {self.first_loss:.4g}; this epoch was not saved. Try a smaller --lr",
                {"epoch": epoch, "objective": mean, "first_objective": self.first_loss})

    def end_epoch(self) -> dict[str, Any]:
        """Close the epoch: its record for the metrics file, with the model judged on test (and validation) data."""
        self._check_divergence()
        totals, (rate, weight) = to_host(self.totals), to_host(self.batches.plan)[-1].tolist()
        count, sound = (totals[i] or math.nan for i in (DATA_COUNT, SOUND))  # all skipped: a mean of nothing
        record: dict[str, Any] = {
            "epoch": self.epoch + 1, "step": self.now(STEP), "data": self.data.name,
            "train_elbo": (totals[RECONSTRUCTION] - totals[KL]) / count,
            "train_reconstruction": totals[RECONSTRUCTION] / count, "train_kl": totals[KL] / count,
            "train_count": int(totals[DATA_COUNT]), "gradient_norm": totals[NORMS] / sound,
            "skipped": int(totals[SKIPPED]), "learning_rate": rate, "kl_weight": weight,
        }  # fmt: skip
        # with iwae L_K beside the ELBO: it was minimised as it is, and its estimate is that of log p(x) by K draws
        draws = self.settings.importance_samples if self.settings.bound == "iwae" else 0
        if draws:
            record |= {"train_bound": -totals[OBJECTIVE] / count, "importance_samples": draws}
        for part in ("valid", "test"):
            if getattr(self.data, part) is not None:
                result = evaluate(self.model, self.data, part=part, importance_samples=draws)
                record |= {f"{part}_{key}": getattr(result, key) for key in (
                    "elbo", "elbo_stderr", "reconstruction", "kl", "data_count")}
                if draws:
                    record |= {f"{part}_bound": result.log_evidence, f"{part}_bound_stderr": result.log_evidence_stderr}
        record |= {key: getattr(result, key) for key in ("active_units", "active_threshold", "kl_per_dimension")}
        record["fingerprint"] = fingerprint(self.model.parameters.arrays())
        self.epoch += 1
        self.counters[CURSOR] = self.counters[BATCH] = 0
        self.totals[...] = 0
        score = record[f"{'valid' if self.data.valid is not None else 'train'}_{'bound' if draws else 'elbo'}"]
        record["best"] = bool(score > self.best)
        if record["best"]:
            self.best, self.best_epoch = score, self.epoch
        return record


def check_memory(model: Any, settings: Settings) -> None:
    """ValueError for a step that cannot fit into this machine's memory: three arrays for each layer and draw."""
    if model.xp is not CPU or not hasattr(os, "sysconf"):
        return  # a GPU says so itself, see `_no_memory`
    rows = settings.batch * settings.samples * settings.importance_samples
    needed = 3 * rows * (model.pixels + sum(model.config["hidden"])) * model.dtype.itemsize
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise ValueError(f"a step of {rows:,} draws needs about {needed / 2**30:,.0f} GiB, and this machine has "
                         f"{there / 2**30:,.0f}: make --batch, --samples or --importance-samples smaller")


def hold_out(data: DataSet, count: int, seed: int) -> DataSet:
    """Move `count` training data into the validation part, chosen by the stream "split"."""
    if not count:
        return data
    if count >= len(data.train):
        raise ValueError(f"found validation={count} of {len(data.train)} training data; some must be left to train on")
    order = permutation(seed, "split", 0, len(data.train))
    return replace(data, train=data.train[np.sort(order[count:])], valid=data.train[np.sort(order[:count])],
                   train_labels=None if data.train_labels is None else data.train_labels[np.sort(order[count:])])
