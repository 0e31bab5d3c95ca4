"""A short benchmark: this machine's peaks, and the time of a net's training step compared with them.

The step is checked before it is timed: a replayed step must leave the same bits as an eager one. The data are made up;
a quarter of the pixels are on, which is more than in digits. The floor of a step is the time of its matrix products
alone, by NumPy's BLAS.
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
from tinyvae.progress import stage
from tinyvae.runs import environment
from tinyvae.training.batches import BATCH, CURSOR
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

Step = Callable[[], None]
STEPS = 20  # the number of batches in an epoch of the made-up data, and of compared steps
# The largest believable ratio of the floor to a step. It can exceed 1, because the BLAS can be slower than our kernels.
BELIEVED = 1.5
TWINS, KERNELS, REPLAYED, FLOOR = "eager, twins", "eager, kernels", "replayed, kernels", "matrix products alone"


class Net(NamedTuple):
    """The sizes that determine the time of a step."""

    pixels: int = 784
    hidden: tuple[int, ...] = (400,)
    latent: int = 20
    batch: int = 128

    def __str__(self) -> str:
        return "-".join(map(str, (self.pixels, *self.hidden, self.latent)))


def training(net: Net) -> Training:
    """The training of a net before its first step, on made-up, mostly dark images with dynamic pixels."""
    model, settings = VAE(net.pixels, list(net.hidden), net.latent), Settings(batch=net.batch)
    grey = np.random.default_rng(0).random((STEPS * net.batch, net.pixels)) ** 3
    stored = (255 * grey).astype(np.uint8)
    data = DataSet("made-up", stored, stored[: net.batch], (1, net.pixels), 255.0, "dynamic", "bernoulli")
    ready = Training(model, data, settings)
    ready.begin_epoch()
    return ready


def repeatable(ready: Training, step: Step) -> Step:
    """The step, always with the first batch of the epoch, so that it can be repeated without end."""
    def call() -> None:
        rewind(ready)
        step()

    return call


def rewind(ready: Training) -> None:
    """Go back to the first batch; the number of the step, which addresses the noise, keeps rising."""
    ready.counters[CURSOR] = ready.counters[BATCH] = 0


def check_replay(make: Callable[[Net], Training], net: Net, steps: int = STEPS) -> None:
    """Train twice, by replay and eagerly; TapeError at the first step after which the bits of any array differ."""
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
    """The matrix products of a step, as launches of NumPy's product over their own arrays."""
    with fused(False):
        tape = training(net).step_now().program.record(net.batch)[0]
    return [launch for launch in tape.working() if launch.rule.name == "matmul"]


def in_turn(launches: list[Launch]) -> Step:
    """A function that runs the launches one after the other."""
    calls = [bound(launch) for launch in launches]

    def run() -> None:
        for call in calls:
            call()

    return run


def candidates(net: Net) -> tuple[dict[str, Step], Training, Tape]:
    """The same step eagerly with twins, eagerly with kernels, and replayed; with the replayed training and its tape."""
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
    """The result of `look`; `print` shows it as a page."""

    net: Net
    peaks: hardware.Peaks
    steps: int  # the number of compared steps
    products: int  # the number of matrix products in a step
    times: dict[str, timing.Timing]
    profile: profiles.Profile

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each candidate for a JSON file, with the units in the names."""
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
        """A warning if the products alone took much longer than a step, because another process was busy; else ""."""
        share = max(row["share_of_floor"] for row in self.rows() if row["step"] != FLOOR)
        return "" if share <= BELIEVED else (
            f"\nnot to be trusted: the products alone took {share:.1f} times as long as a step that contains them, so\n"
            "another process used the processors meanwhile; close other programs and measure again\n")

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
medians of {len(self.times[FLOOR].seconds)} rounds; us: lower is better; images/s: higher is better
floor/step: the time of the step's {self.products} matrix products alone, divided by that of the step; higher is better

the replayed step, launch by launch

{self.profile.table(self.peaks)}"""


def this_machine() -> str:
    """The processor, the versions of packages, and the BLAS, in one line."""
    found, blas = environment.environment(), environment.blas()
    packages = " ".join(f"{name} {found['packages'][name]}" for name in ("numpy", "numba") if name in found["packages"])
    parts = (blas["library"] or "unknown", blas["version"], blas["kernel"] and f"{blas['kernel']} kernel",
             blas["threads"] and f"{blas['threads']} threads")
    return (f"{found['cpu']}, {found['cores']} cores; Python {found['python']} {packages}; "
            f"BLAS {', '.join(part for part in parts if part)}")


def look(net: Net, steps: int = STEPS, rounds: int = 15, least: float = 0.05) -> Look:
    """Check that replay is exact, time the step in alternation with its products, and profile the replayed step.

    Each candidate runs for at least `least` seconds in a round. TapeError if a replayed step leaves other bits.
    """
    stage("comparing replayed with eager steps, 1 of 4")
    check_replay(training, net, steps)
    stage("measuring the peaks of this machine, 2 of 4")
    peaks = hardware.peaks()
    floor = products(net)
    found, ready, tape = candidates(net)
    stage("timing the step, 3 of 4")
    times = timing.measure({**found, FLOOR: in_turn(floor)}, rounds, least=least, pause=hardware.REST)
    stage("profiling the replayed step, 4 of 4")
    profile = profiles.profile(tape, 2 * rounds, lambda: rewind(ready))
    return Look(net, peaks, steps, len(floor), times, profile)
