"""The errors of a training step, each one sentence: not finite, diverged, too little memory, a lost GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyvae.data import DataSet
from tinyvae.data.checks import degeneracy, sameness
from tinyvae.distributions import LIKELIHOODS
from tinyvae.engine.devices import CPU, DeviceError, Namespace, memory_in_use, physical_memory, to_host
from tinyvae.engine.program import Tape
from tinyvae.models import Model
from tinyvae.nn.network import layer_outputs
from tinyvae.training.settings import Settings

# The names of the errors of CuPy and of the CUDA kernels; their types exist only if CuPy is installed.
GPU_FAULTS = ("CUDARuntimeError", "CUDADriverError", "CublasError", "CUBLASError")


class TrainingError(ArithmeticError):
    """Training cannot continue; `report` holds the details."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class NonFiniteError(TrainingError):
    """The loss or its gradient was not finite."""


class DivergedError(TrainingError):
    """The objective is far worse than that of the untrained model."""


def density_of(model: Model) -> str:
    """The name of the model's likelihood if it is the density of continuous data, else ""."""
    name = model.config.get("likelihood", "")
    return "" if name not in LIKELIHOODS or LIKELIHOODS[name].data in ("binary", "counts") else name


def check_variety(model: Model, data: DataSet) -> None:
    """Look for data on which the density of the likelihood has no bound, whatever the learning rate.

    ValueError if all training images are the same; a warning if their pixels are only 0 and 1.
    """
    if not (name := density_of(model)):
        return
    if same := sameness(data.train):
        raise ValueError(f"{same} in {data.name}, where the density of the likelihood {name} may have no bound: there "
                         "is nothing to learn; take other data")
    if data.kind == "binary":
        warnings.warn(f"all pixels of {data.name} are 0 or 1, where the density of the likelihood {name} has no bound: "
                      "its ELBO can rise without end; take the likelihood bernoulli", stacklevel=2)


def blame(model: Model, data: DataSet) -> str:
    """A sentence with the fault of the data on which a training failed; "" if none is seen."""
    name = density_of(model)
    found = degeneracy(data.train) if name else ""
    return f"The data are the cause: {found} in {data.name}, where the density of the likelihood {name} may have no " \
        "bound; take other data, or another likelihood" if found else ""


def not_finite(tape: Tape, gradient: Any, where: dict[str, Any], cause: str = "") -> NonFiniteError:
    """The error for a recorded step that is not finite; it names the first operation whose result is not finite.

    `where` identifies the step by epoch, batch, step, seed and indices, and becomes a part of the report. `cause` is
    the fault of the data, if one is known.
    """
    launch, values = tape.first_nonfinite() or (None, gradient)
    values = to_host(values)
    finite = values[np.isfinite(values)]
    shown = f"finite part from {finite.min():.3g} to {finite.max():.3g}" if finite.size else "nothing finite"
    report = where | {"operation": str(launch or "the gradient's norm"), "nan": int(np.isnan(values).sum()),
                      "inf": int(np.isinf(values).sum()), "size": int(values.size)}
    advice = cause or "A smaller --lr or --clip 100 helps most often; --on-nonfinite skip leaves such batches out"
    return NonFiniteError(
        f"not finite in epoch {report['epoch']}, batch {report['batch']} (step {report['step']}): first in "
        f"{report['operation']}, {report['nan']} NaN and {report['inf']} infinite of {report['size']} values, "
        f"{shown}; no parameter was changed by this step. {advice}", report)


def diverged(epoch: int, mean: float, first: float, cause: str = "") -> DivergedError:
    """The error for an epoch with a mean objective far above that of the untrained model, both in nats per datum."""
    return DivergedError(
        f"diverged in epoch {epoch}: the objective was {mean:.4g} nats per datum on average (lower is better), "
        f"that of the untrained model {first:.4g}; this epoch was not saved. {cause or 'Try a smaller --lr'}",
        {"epoch": epoch, "objective": mean, "first_objective": first})


def check_memory(model: Model, settings: Settings) -> None:
    """Raise ValueError if two arrays for each layer and draw of a step exceed this machine's memory."""
    if model.xp is not CPU:
        return
    rows = settings.batch * settings.samples * settings.importance_samples * model.copies
    needed, there = 2 * rows * layer_outputs(model.parameters) * model.dtype.itemsize, physical_memory()
    if needed > there:
        raise ValueError(f"a step of {rows:,} draws needs about {needed / 2**30:,.0f} GiB, and this machine has "
                         f"{there / 2**30:,.0f}: make --batch, --samples or --importance-samples smaller")


@contextmanager
def device_faults(xp: Namespace, size: int, forget: Callable[[], Any],
                  tape_of_loss: Callable[[int], Tape]) -> Iterator[None]:
    """Within this block, a GPU without enough memory for a batch, or a lost GPU, raises DeviceError with one sentence.

    `forget` frees the recorded steps; `tape_of_loss` records the loss and its gradient for a number of rows.
    """
    try:
        yield
    except MemoryError:
        if xp is CPU:
            raise
        raise _no_memory(size, forget, tape_of_loss) from None
    except RuntimeError as fault:
        if type(fault).__name__ not in GPU_FAULTS:
            raise
        raise DeviceError(f"the GPU stopped answering ({fault}): what was saved last is "
                          "intact; look at nvidia-smi, then go on with tinyvae train --resume RUN") from None


def _no_memory(size: int, forget: Callable[[], Any], tape_of_loss: Callable[[int], Tape]) -> DeviceError:
    """The error for a step that does not fit, with a batch size that should.

    The difference of a step of two data and a step of one is the memory that each datum takes.
    """
    forget()
    used, free, total = memory_in_use()
    try:
        taken = [sum(array.nbytes for launch in tape_of_loss(n).working() for array in launch.outputs) for n in (1, 2)]
        advice = f"a batch of {max(1, int(0.8 * free / (2 * (taken[1] - taken[0]))))} should fit"
    except MemoryError:
        advice = "not even a batch of 2 fits beside the memory of other processes"
    return DeviceError(f"a batch of {size} does not fit into the GPU's memory: {used / 2**20:,.0f} MiB are in use "
                       f"here and {free / 2**20:,.0f} of {total / 2**20:,.0f} MiB are free; {advice} (--batch)")
