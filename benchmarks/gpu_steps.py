"""Timing the whole training step over the batch: on the CPU, on the GPU, and on the GPU with TF32.

Before it is timed, a step on the GPU is compared with that on the CPU, and a step with TF32 with one without. Replays
are timed by the clock of the host, so that its work counts; and so is the epoch of `tv.fit`, in which the host checks
at intervals that all steps were finite.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from tinyvae_kernels.cuda.runtime.jobs import Program

import tinyvae as tv
from benchmarks import gpu_clock, nets, tables
from benchmarks.nets import Net
from benchmarks.parts import Content, Part
from benchmarks.tables import Columns, Row
from tinyvae.engine import table
from tinyvae.engine.devices import require_cuda, to_host
from tinyvae.engine.program import Tape
from tinyvae.measure import timing
from tinyvae.training.epochs import Training
from tinyvae.training.objective import OBJECTIVE

NET, BATCHES = Net(784, 500, 20, 100), (100, 1000, 8192, 65_536)
CPU_TIMED = 1000  # the largest batch whose step is also timed on the CPU
# The number of compared steps is FIRST, but FEW for batches of more than MANY data.
FIRST, FEW, MANY = 20, 3, 10_000
# The largest allowed relative difference of losses, and of the first gradient relative to the largest element of its
# array. (If TF32 changes the sign of a ReLU's input, a gradient changes by some hundredths.)
ALLOWED = {"float32": (1e-5, 1e-4), "TF32": (1e-3, 0.2)}
TARGET, LARGE = 0.7, 8192  # the wanted share of the products in a step, from this batch on
WORK = f"""a training step of {NET.size}: gather the batch, draw normals, forward, backward, the loss's value, check
loss and gradient for NaN and infinity, Adam"""


class Begun(NamedTuple):
    """A training after its first steps, with the running sums of their losses and the first gradient by parameter."""

    ready: Training
    losses: np.ndarray
    gradients: dict[str, np.ndarray]

    @property
    def tape(self) -> Tape:
        return self.ready.step_now().program.tape(self.ready.settings.batch)


def begin(net: Net, device: str, tf32: bool = False) -> Begun:
    """Record the step and run it several times; the epoch starts again after its last batch."""
    ready = nets.training(net, device)
    step, losses, gradients = nets.repeatable(ready, net, ready.step), [], {}
    with tv.tf32(tf32):
        for number in range(FIRST if net.batch <= MANY else FEW):
            step()
            losses.append(to_host(ready.totals)[OBJECTIVE])
            if not number:
                gradients = {name: np.array(to_host(slot)) for name, slot in ready.model.parameters._slots.items()}
    return Begun(ready, np.array(losses), gradients)


def compare(net: Net, precision: str, ours: Begun, reference: Begun) -> dict[str, Any]:
    """The largest differences of losses and gradients; SystemExit if they exceed the allowed ones."""
    count = len(ours.losses) if precision == "float32" else 1  # with TF32 the losses of later steps differ
    loss = float(np.abs(ours.losses[:count] / reference.losses[:count] - 1).max())
    gradient = max(float(np.abs(ours.gradients[name] - g).max() / np.abs(g).max())
                   for name, g in reference.gradients.items())
    for what, found, allowed in zip(("losses", "gradients"), (loss, gradient), ALLOWED[precision], strict=True):
        if not found <= allowed:  # NaN fails
            raise SystemExit(f"{net}, {precision}: the {what} of the first steps differ by {found:.2g} from those of "
                             f"{'the CPU' if precision == 'float32' else 'float32'}, allowed {allowed:g}; it was "
                             "not timed")
    return {"loss_error": loss, "gradient_error": gradient, "steps_compared": count}


def products(net: Net, tape: Tape, tf32: bool, rounds: int) -> float:
    """The seconds of the step's products alone: by CuPy, or in a CUDA graph like the step, if that is faster."""
    with gpu_clock.array_library(tf32):
        library = gpu_clock.by_events(nets.floor(net, tape), rounds)
    return min(library.median, gpu_clock.of_launches(nets.products(net, tape), rounds)[0].median)


def kernels(tape: Tape) -> int:
    """The number of kernels that a replay launches."""
    tape.replay()
    return sum(len(call.jobs) if isinstance(call, Program) else 1 for call in tape.calls or ())


def timed(net: Net, precision: str, begun: Begun, rounds: int) -> Row:
    """The times of a step on the card."""
    tape, wait = begun.tape, require_cuda().cuda.Device().synchronize
    times = timing.measure({"replayed": tape.replay, "epoch": nets.epoch(begun.ready, net)}, rounds,
                           least=gpu_clock.LEAST, synchronize=wait)
    step, (low, high) = times["replayed"].median, times["replayed"].quartiles
    alone = products(net, tape, precision == "TF32", rounds)
    flops = sum(map(table.flops, nets.products(net, tape)))
    return {**net.as_dict(), "precision": precision, "gpu_microseconds": step * 1e6, "lower_quartile": low * 1e6,
            "upper_quartile": high * 1e6, "fit_microseconds": times["epoch"].median / nets.steps_an_epoch(net) * 1e6,
            "images_per_second": net.batch / step, "teraflops": flops / step / 1e12, "kernels": kernels(tape),
            "products_microseconds": alone * 1e6, "products_teraflops": flops / alone / 1e12,
            "share_of_products": alone / step, "rounds": rounds, "form": gpu_clock.form(tape.calls or ())}


def rows_of(net: Net, rounds: int) -> list[Row]:
    """The rows of the step in float32 and in TF32."""
    there, here = begin(net, "cuda"), begin(net, "cpu")
    errors, cpu = compare(net, "float32", there, here), None
    if net.batch <= CPU_TIMED:
        cpu = timing.measure({"cpu": here.tape.replay}, rounds, least=gpu_clock.LEAST)["cpu"].median * 1e6
    del here
    rounded = begin(net, "cuda", tf32=True)
    more = compare(net, "TF32", rounded, there)
    return [{**timed(net, "float32", there, rounds), **errors, "cpu_microseconds": cpu},
            {**timed(net, "TF32", rounded, rounds), **more, "cpu_microseconds": cpu}]


COLUMNS: Columns = {
    "batch": lambda row: f"{row['batch']:,}",
    "precision": lambda row: row["precision"],
    "us/step": lambda row: f"{row['gpu_microseconds']:,.1f}",
    "quartiles": lambda row: f"{row['lower_quartile']:,.1f} to {row['upper_quartile']:,.1f}",
    "tv.fit": lambda row: f"{row['fit_microseconds']:,.1f}",
    "CPU": lambda row: f"{row['cpu_microseconds']:,.0f}" if row["cpu_microseconds"] else "",
    "images/s": lambda row: f"{row['images_per_second']:,.0f}",
    "TFLOP/s": lambda row: f"{row['teraflops']:.3g}",
    "kernels": lambda row: f"{row['kernels']}",
    "as": lambda row: row["form"],
    "products": lambda row: f"{row['products_microseconds']:,.1f}",
    "products/step": lambda row: f"{row['share_of_products']:.0%}",
    "error: loss, gradient": lambda row: f"{row['loss_error']:.1g}, {row['gradient_error']:.1g}",
}
NOTE = f"""us/step, tv.fit, CPU, products (all in us) and error: lower is better; the others: higher is better
tv.fit: the time of an epoch divided by its steps, with the checks by the host; CPU: the same step on the CPU
kernels, as: how many a step launches, and how: in a CUDA graph or one by one, if it could not be captured
products: the step's products alone on this card, by CuPy or in a CUDA graph, whichever is faster
TFLOP/s: the operations of the products divided by the time of the step
error: relative for losses, and relative to the largest element for the first gradient; float32 is compared with the CPU
over the first {FIRST} steps ({FEW} of the largest batch), TF32 with float32 in the first step, before either is timed
target: products/step at least {TARGET:.0%} from batch {LARGE:,} on"""


def parts(batches: tuple[int, ...], rounds: int) -> dict[str, Part]:
    """A part for each batch."""
    def part(batch: int) -> Content:
        rows = rows_of(replace(NET, batch=batch), rounds)
        tables.say(f"batch {batch:,}: {rows[0]['gpu_microseconds']:,.0f} us a step in float32, "
                   f"{rows[1]['gpu_microseconds']:,.0f} in TF32")
        require_cuda().get_default_memory_pool().free_all_blocks()
        return {"rows": rows}

    return {f"step, batch {batch:,}": lambda _, batch=batch: part(batch) for batch in batches}


def show(content: Content) -> None:
    """Print the table."""
    rows = content.get("rows", [])
    tables.plain(WORK, COLUMNS, rows, NOTE, *(
        f"batch {row['batch']:,}, {row['precision']}: {row['share_of_products']:.0%}, "
        f"{'reached' if row['share_of_products'] >= TARGET else 'missed'}" for row in rows if row["batch"] >= LARGE))
