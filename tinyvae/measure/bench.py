"""A quick look at speed: this machine's peaks, and where one net's training step stands below them.

First checked, then timed: a replayed step must leave the same bits as an eager one. The data are made up: a quarter of
the pixels are on, more than in digits. The floor of a step is its matrix products alone, by NumPy's BLAS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyvae.data import DataSet
from tinyvae.engine import table
from tinyvae.engine.fusion import fused
from tinyvae.engine.program import Tape, bound
from tinyvae.engine.tape import Launch, TapeError
from tinyvae.measure import hardware, profiles, timing
from tinyvae.models import VAE
from tinyvae.training import environment
from tinyvae.training.batches import BATCH, CURSOR
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

Step = Callable[[], None]
STEPS = 20  # batches in an epoch of the made-up data, and steps that are compared
BELIEVED = 1.5  # times a step that its products may take alone: BLAS is slower than our kernels by less than that
TWINS, KERNELS, REPLAYED, FLOOR = "eager, twins", "eager, kernels", "replayed, kernels", "matrix products alone"


class Net(NamedTuple):
    """The sizes that decide how long a step takes."""

    pixels: int = 784
    hidden: tuple[int, ...] = (400,)
    latent: int = 20
    batch: int = 128

    def __str__(self) -> str:
        return "-".join(map(str, (self.pixels, *self.hidden, self.latent)))


def training(net: Net) -> Training:
    """A net's training on made-up images, mostly dark, whose pixels are drawn at each use; at its first step."""
    model, settings = VAE(net.pixels, list(net.hidden), net.latent), Settings(batch=net.batch)  # refuse wrong sizes
    grey = np.random.default_rng(0).random((STEPS * net.batch, net.pixels)) ** 3
    stored = (255 * grey).astype(np.uint8)
    data = DataSet("made-up", stored, stored[: net.batch], (1, net.pixels), 255.0, "dynamic", "bernoulli")
    ready = Training(model, data, settings)
    ready.begin_epoch()
    return ready


def repeatable(ready: Training, step: Step) -> Step:
    """The step from the start of the epoch, so that it can be run for ever."""
    def call() -> None:
        rewind(ready)
        step()

    return call


def rewind(ready: Training) -> None:
    """Back to the first batch; the step's number, which addresses the noise, goes on."""
    ready.counters[CURSOR] = ready.counters[BATCH] = 0


def check_replay(make: Callable[[Net], Training], net: Net, steps: int = STEPS) -> None:
    """Train twice, by replay and eagerly; TapeError at the first step that leaves other bits in any array."""
    replayed, eager = make(net), make(net)
    state, expected = replayed.state(), eager.state()
    for number in range(1, steps + 1):
        for ready, take in ((replayed, replayed.step), (eager, lambda: eager.step_now().eager(net.batch))):
            if ready.counters[BATCH] == ready.batches.steps:
                rewind(ready)
            take()
        for name, array in state.items():
            if array.tobytes() != expected[name].tobytes():
                raise TapeError(f"step {number}: replay and eager differ in {name}; nothing was timed")


def products(net: Net) -> list[Launch]:
    """The matrix products of a step, as launches of NumPy's product over arrays of their own."""
    with fused(False):
        tape = training(net).step_now().program.record(net.batch)[0]
    return [launch for launch in tape.working() if launch.rule.name == "matmul"]


def in_turn(launches: list[Launch]) -> Step:
    """The launches one after the other."""
    calls = [bound(launch) for launch in launches]

    def run() -> None:
        for call in calls:
            call()

    return run


def candidates(net: Net) -> tuple[dict[str, Step], Training, Tape]:
    """The same step eagerly with twins, with kernels, and replayed; with the training and the tape of the last."""
    def eagerly(kernels: bool) -> Step:
        ready = training(net)

        def step() -> None:
            with fused(kernels):
                ready.step_now().eager(net.batch)

        return repeatable(ready, step)

    with fused(True):
        ready = training(net)
        tape = ready.step_now().program.record(net.batch)[0]
    found = {TWINS: eagerly(False), KERNELS: eagerly(True), REPLAYED: repeatable(ready, tape.replay)}
    return found, ready, tape


@dataclass(frozen=True)
class Look:
    """What was seen; printed, it is a page."""

    net: Net
    peaks: hardware.Peaks
    steps: int  # that were compared
    products: int  # matrix products of a step
    times: dict[str, timing.Timing]
    profile: profiles.Profile

    def rows(self) -> list[dict[str, Any]]:
        """For a JSON file: a dict a candidate, with the units in the names."""
        found = []
        for name, t in self.times.items():
            low, high = t.quartiles
            found.append({
                "net": str(self.net), "batch": self.net.batch, "step": name, "microseconds": t.median * 1e6,
                "lower_quartile": low * 1e6, "upper_quartile": high * 1e6, "rounds": len(t.seconds),
                "images_per_second": self.net.batch / t.median,
                "share_of_floor": 1 / self.times[FLOOR].times_faster_than(t),
            })  # fmt: skip
        return found

    def disturbed(self) -> str:
        """A warning if the products took far longer than any step does without another process beside it, else ""."""
        share = max(row["share_of_floor"] for row in self.rows() if row["step"] != FLOOR)
        return "" if share <= BELIEVED else (
            f"\nnot to be trusted: the products alone took {share:.1f} times as long as a step that holds them, so\n"
            "another process had the processors meanwhile; close what else runs and look again\n")

    def __str__(self) -> str:
        cells = [("step", "us", "quartiles", "images/s", "floor/step")]
        for row in self.rows():
            cells.append((row["step"], f"{row['microseconds']:,.0f}",
                          f"{row['lower_quartile']:,.0f} to {row['upper_quartile']:,.0f}",
                          f"{row['images_per_second']:,.0f}", f"{row['share_of_floor']:.1%}"))
        return f"""{this_machine()}
peaks: {self.peaks}

a training step of {self.net}, batch {self.net.batch}, float32: gather, pixels, noise, forward, backward, guard, Adam
data: made up, each pixel drawn at each use, a quarter of them on
checked: replay and eager left the same bits in each of {self.steps} steps
{self.disturbed()}
{table.lines(cells)}
medians of {len(self.times[FLOOR].seconds)} rounds; of us lower is better, of images/s higher
floor/step: what the step's {self.products} matrix products take alone, through what the step takes; higher is better

the replayed step, launch by launch

{self.profile.table(self.peaks)}"""


def this_machine() -> str:
    """Processor, versions and BLAS in one line."""
    found, blas = environment.environment(), environment.blas()
    packages = " ".join(f"{name} {found['packages'][name]}" for name in ("numpy", "numba") if name in found["packages"])
    parts = (blas["library"] or "unknown", blas["version"], blas["kernel"] and f"{blas['kernel']} kernel",
             blas["threads"] and f"{blas['threads']} threads")
    return (f"{found['cpu']}, {found['cores']} cores; Python {found['python']} {packages}; "
            f"BLAS {', '.join(part for part in parts if part)}")


def look(net: Net, steps: int = STEPS, rounds: int = 15, least: float = 0.05) -> Look:
    """Check that replay is exact, then time the step in alternation with its products, and profile the replayed one.

    A round of a candidate takes at least `least` seconds. TapeError if a replayed step leaves other bits.
    """
    check_replay(training, net, steps)
    peaks = hardware.peaks()
    floor = products(net)
    found, ready, tape = candidates(net)
    times = timing.measure({**found, FLOOR: in_turn(floor)}, rounds, least=least, pause=hardware.REST)
    profile = profiles.profile(tape, 2 * rounds, lambda: rewind(ready))
    return Look(net, peaks, steps, len(floor), times, profile)
