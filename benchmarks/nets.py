"""The measured nets: their data, their training, a step that can be repeated without end, and the floor of the step.

The floor of a step is the time of its matrix products alone, by NumPy's BLAS with its default threads, over the step's
own arrays. No step that computes its products with this BLAS is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

import tinyvae as tv
from tinyvae.data.dataset import treated
from tinyvae.engine import table
from tinyvae.engine.devices import namespace_of
from tinyvae.engine.noise import permutation
from tinyvae.engine.program import Tape
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tape import Launch
from tinyvae.training.batches import BATCH, CURSOR
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

MADE_UP, MNIST = "made-up", "MNIST"
ROWS = 20_000  # the number of made-up data
REST = 0.15  # seconds of rest before each turn, after which the threads of a BLAS sleep


@dataclass(frozen=True)
class Net:
    """The sizes that determine the time of a step, and the source of its pixels."""

    pixels: int
    hidden: int
    latent: int
    batch: int
    data: str = MADE_UP
    dynamic: bool = False  # whether pixels are drawn from grey values at each use, or are fixed bits
    rows: int = ROWS  # the number of made-up data, at least a batch

    @property
    def size(self) -> str:
        return f"{self.pixels}-{self.hidden}-{self.latent}"

    @property
    def drawing(self) -> str:
        return "dynamic" if self.dynamic else "fixed"

    def as_dict(self) -> dict[str, Any]:
        """The entries of a row in a results file."""
        return {"size": self.size, "batch": self.batch, "data": self.data, "pixels": self.drawing}

    def __str__(self) -> str:
        return f"{self.size}, batch {self.batch}, {self.data}, {self.drawing} pixels"


SMALL = Net(64, 128, 8, 100)
SIZES = (SMALL, Net(784, 200, 2, 20), Net(784, 500, 20, 100), Net(784, 500, 20, 1000), Net(784, 400, 20, 128, MNIST))


def chosen(quick: bool) -> list[Net]:
    """The nets of all sizes, with fixed and with dynamic pixels; for a quick run only those of the smallest size."""
    sizes: tuple[Net, ...] = (SMALL,) if quick else SIZES
    if not quick and not tv.data.find("mnist")["found"]:
        print("MNIST was not found (set TINYVAE_DATA to the folder that holds mnist/): its size is left out")
        sizes = tuple(net for net in sizes if net.data != MNIST)
    return [replace(net, dynamic=dynamic) for net in sizes for dynamic in (False, True)]


def data_set(net: Net) -> tv.DataSet:
    """MNIST, or made-up dark pixels grey = u^3: grey bytes if they are dynamic, else bits that were drawn once."""
    return _data_set(net.data, net.pixels, "dynamic" if net.dynamic else "static", max(net.rows, net.batch))


@lru_cache(maxsize=1)  # the candidates of a net share the data
def _data_set(name: str, width: int, pixels: str, count: int) -> tv.DataSet:
    if name == MNIST:
        return tv.data.load(f"mnist-{pixels}")
    grey = np.random.default_rng(0).random((count, width), np.float32) ** 3
    stored = (255 * grey).astype(np.uint8)
    return treated(tv.DataSet(MADE_UP, stored, stored[:1], (1, width), 255.0), pixels)


def steps_an_epoch(net: Net) -> int:
    """The number of full batches in an epoch."""
    return len(data_set(net).train) // net.batch


def training(net: Net, device: str = "cpu") -> Training:
    """The training of a net before its first step."""
    model = tv.VAE(net.pixels, net.hidden, net.latent, device=device)
    ready = Training(model, data_set(net), Settings(batch=net.batch))
    ready.begin_epoch()
    return ready


def weights(net: Net) -> dict[str, np.ndarray]:
    """The initial weights of all contestants by name: (in, out) and (out,)."""
    return tv.VAE(net.pixels, net.hidden, net.latent).parameters.arrays()


def order(net: Net) -> np.ndarray:
    """The rows of each batch of the first epoch for all contestants: (steps, batch)."""
    steps = steps_an_epoch(net)
    return permutation(0, "shuffle", 0, len(data_set(net).train))[: steps * net.batch].reshape(steps, net.batch)


def rewind(ready: Training) -> None:
    """Go back to the first batch of the epoch; the number of the step, which addresses the noise, keeps rising."""
    ready.counters[CURSOR] = ready.counters[BATCH] = 0


def repeatable(ready: Training, net: Net, step: Callable[[], None]) -> Callable[[], None]:
    """The step, which goes back to the first batch after the last full one."""
    last = steps_an_epoch(net)

    def call() -> None:
        if ready.now(BATCH) == last:
            rewind(ready)
        step()

    return call


def epoch(ready: Training, net: Net) -> Callable[[], None]:
    """The full batches of an epoch as `tv.fit` runs them: replayed, with checks by the host at intervals."""
    steps = steps_an_epoch(net)

    def call() -> None:
        rewind(ready)
        for start in range(0, steps, ready.interval):
            ready.step_many([net.batch] * min(ready.interval, steps - start))

    return call


def replayed(net: Net, device: str = "cpu", tf32: bool = False) -> tuple[Training, Callable[[], None], Tape]:
    """The training, the recorded and verified step of `tv.fit`, and the tape that it replays."""
    ready = training(net, device)
    step = repeatable(ready, net, ready.step)
    with tv.tf32(tf32):
        for _ in range(3):  # the first step is recorded, the next two are verified
            step()
    tape = ready.step_now().program.tape(net.batch)
    return ready, step, tape


@contextmanager
def dense() -> Iterator[None]:
    """Within this block a step is recorded that does not skip the zeros of its data, like the peers and the floor."""
    row = TABLE["sparse_matmul"]
    kernel, row.kernel = row.kernel, None
    try:
        yield
    finally:
        row.kernel = kernel


def products(net: Net, tape: Tape) -> list[Launch]:
    """All matrix products of a step that was recorded in `dense`, in their order."""
    launches = [launch for launch in tape.working() if launch.rule.name == "matmul"]
    # one product forward and two backward for each layer, without the gradient by the input of the first layer
    first, weights = net.pixels * net.hidden, 2 * net.pixels * net.hidden + 3 * net.hidden * net.latent
    found, expected = sum(map(table.flops, launches)), 2 * net.batch * (3 * weights - first)
    if found != expected:
        raise SystemExit(f"the recorded products of {net} are {found:,} operations; expected {expected:,}, so they "
                         "are not its floor; nothing was timed")
    return launches


def floor(net: Net, tape: Tape) -> Callable[[], None]:
    """A function that computes the products of a step over its arrays with NumPy, or with CuPy on a GPU."""
    calls = [(*(tensor.data for tensor in launch.inputs), launch.outputs[0]) for launch in products(net, tape)]
    matmul = namespace_of(calls[0][2]).matmul

    def run() -> None:
        for a, b, out in calls:
            matmul(a, b, out=out)

    return run
