"""The nets that are measured: their data, a training of each, a step that can be repeated for ever, and its floor.

The floor of a step is its matrix products alone, by NumPy's BLAS with its default threads, over the step's own arrays:
no step that leaves its products to that BLAS is faster.
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
ROWS = 20_000  # of made-up data
REST = 0.15  # seconds before each turn: so long do a BLAS's threads wait for more work in a busy loop


@dataclass(frozen=True)
class Net:
    """The sizes that decide how long a step takes, and where its pixels come from."""

    pixels: int
    hidden: int
    latent: int
    batch: int
    data: str = MADE_UP
    dynamic: bool = False  # pixels drawn from grey values at each use; else fixed bits
    rows: int = ROWS  # of made-up data; at least a batch

    @property
    def size(self) -> str:
        return f"{self.pixels}-{self.hidden}-{self.latent}"

    @property
    def drawing(self) -> str:
        return "dynamic" if self.dynamic else "fixed"

    def as_dict(self) -> dict[str, Any]:
        """For a row of a results file."""
        return {"size": self.size, "batch": self.batch, "data": self.data, "pixels": self.drawing}

    def __str__(self) -> str:
        return f"{self.size}, batch {self.batch}, {self.data}, {self.drawing} pixels"


SMALL = Net(64, 128, 8, 100)
SIZES = (SMALL, Net(784, 200, 2, 20), Net(784, 500, 20, 100), Net(784, 500, 20, 1000), Net(784, 400, 20, 128, MNIST))


def chosen(quick: bool) -> list[Net]:
    """Each size once with fixed pixels, once with pixels drawn at each use; of a quick run only the smallest."""
    sizes: tuple[Net, ...] = (SMALL,) if quick else SIZES
    if not quick and not tv.data.find("mnist")["found"]:
        print("MNIST was not found (set TINYVAE_DATA to the folder that holds mnist/): its size is left out")
        sizes = tuple(net for net in sizes if net.data != MNIST)
    return [replace(net, dynamic=dynamic) for net in sizes for dynamic in (False, True)]


def data_set(net: Net) -> tv.DataSet:
    """Real digits, or dense dark pixels, grey = u^3: as grey bytes, or drawn once and kept as bits."""
    return _data_set(net.data, net.pixels, "dynamic" if net.dynamic else "static", max(net.rows, net.batch))


@lru_cache(maxsize=1)  # the candidates of one net share it
def _data_set(name: str, width: int, pixels: str, count: int) -> tv.DataSet:
    if name == MNIST:
        return tv.data.load(f"mnist-{pixels}")
    grey = np.random.default_rng(0).random((count, width), np.float32) ** 3
    stored = (255 * grey).astype(np.uint8)
    return treated(tv.DataSet(MADE_UP, stored, stored[:1], (1, width), 255.0), pixels)


def steps_an_epoch(net: Net) -> int:
    """Full batches only."""
    return len(data_set(net).train) // net.batch


def training(net: Net, device: str = "cpu") -> Training:
    """A net's training at its first step."""
    model = tv.VAE(net.pixels, net.hidden, net.latent, device=device)
    ready = Training(model, data_set(net), Settings(batch=net.batch))
    ready.begin_epoch()
    return ready


def weights(net: Net) -> dict[str, np.ndarray]:
    """The first weights, for everyone, by name: (in, out) and (out,)."""
    return tv.VAE(net.pixels, net.hidden, net.latent).parameters.arrays()


def order(net: Net) -> np.ndarray:
    """The rows of each batch of the first epoch, for everyone: (steps, batch)."""
    steps = steps_an_epoch(net)
    return permutation(0, "shuffle", 0, len(data_set(net).train))[: steps * net.batch].reshape(steps, net.batch)


def rewind(ready: Training) -> None:
    """Back to the first batch of the epoch; the step's number, which addresses the noise, goes on."""
    ready.counters[CURSOR] = ready.counters[BATCH] = 0


def repeatable(ready: Training, net: Net, step: Callable[[], None]) -> Callable[[], None]:
    """The step that begins its epoch anew after the last full batch."""
    last = steps_an_epoch(net)

    def call() -> None:
        if ready.now(BATCH) == last:
            rewind(ready)
        step()

    return call


def epoch(ready: Training, net: Net) -> Callable[[], None]:
    """The full batches of an epoch by a recorded and compared step, as `tv.fit` takes them: the host looks at times."""
    steps = steps_an_epoch(net)

    def call() -> None:
        rewind(ready)
        for start in range(0, steps, ready.interval):
            ready.step_many([net.batch] * min(ready.interval, steps - start))

    return call


def replayed(net: Net, device: str = "cpu", tf32: bool = False) -> tuple[Training, Callable[[], None], Tape]:
    """The step of `tv.fit`, recorded and compared already; with its training and the tape that it replays."""
    ready = training(net, device)
    step = repeatable(ready, net, ready.step)
    with tv.tf32(tf32):
        for _ in range(3):  # the first is recorded, two are compared with the same step run anew
            step()
    tape = ready.step_now().program.tape(net.batch)
    return ready, step, tape


@contextmanager
def dense() -> Iterator[None]:
    """What is recorded in this block multiplies the zeros of its data, too, as the peers and the floor do."""
    row = TABLE["sparse_matmul"]
    kernel, row.kernel = row.kernel, None
    try:
        yield
    finally:
        row.kernel = kernel


def products(net: Net, tape: Tape) -> list[Launch]:
    """The matrix products of a step recorded in `dense`, in its order, and all of them."""
    launches = [launch for launch in tape.working() if launch.rule.name == "matmul"]
    # once forward, twice backward, but for the gradient by the first layer's input, which nobody asks for
    first, weights = net.pixels * net.hidden, 2 * net.pixels * net.hidden + 3 * net.hidden * net.latent
    found, expected = sum(map(table.flops, launches)), 2 * net.batch * (3 * weights - first)
    if found != expected:
        raise SystemExit(f"the recorded products of {net} are {found:,} operations; expected {expected:,}, so they "
                         "are not its floor; nothing was timed")
    return launches


def floor(net: Net, tape: Tape) -> Callable[[], None]:
    """The products of a step over its arrays, each by the array library: NumPy, or CuPy on a GPU."""
    calls = [(*(tensor.data for tensor in launch.inputs), launch.outputs[0]) for launch in products(net, tape)]
    matmul = namespace_of(calls[0][2]).matmul

    def run() -> None:
        for a, b, out in calls:
            matmul(a, b, out=out)

    return run
