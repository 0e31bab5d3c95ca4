"""The benchmark of a GPU at sizes that the host can run, for a GPU that is not there."""

import time
from contextlib import contextmanager

import numpy as np
import pytest

import tinyvae as tv

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import cases, gpu_clock, gpu_compare, gpu_kernels, gpu_peers, gpu_rungs, gpu_steps, workers
from benchmarks.nets import Net
from benchmarks.peer_tinyvae import OnCard

FEW = "next_indices", "gaussian_sample_kl", "tick"


class Here:
    """A worker without a process."""

    def __init__(self, contestant):
        self.contestant = contestant

    def ask(self, method, *arguments):
        if method != "timed":
            return getattr(self.contestant, method)(*arguments)
        run, begin = getattr(self.contestant, arguments[0]), time.perf_counter()
        for _ in range(arguments[1]):
            run()
        return time.perf_counter() - begin


def made_up():
    grey = (255 * np.random.default_rng(0).random((50, 36)) ** 3).astype(np.uint8)
    return tv.DataSet("made-up", grey, grey[:7], (6, 6), 255.0, "dynamic", "bernoulli")


def shrink(monkeypatch):
    """Everything at a size that the host can run, in this process; the peers are those that the result is given."""
    found = {}

    @contextmanager
    def team(places, net, **options):
        ours = OnCard(net, **options)
        ours.epoch = lambda: ours.training.step_many([net.batch] * 2)  # of two steps, as those of the other contestants
        ours.steps = 2
        yield {name: Here(found[name](net) if name in found else ours) for name in places}

    every, large = cases.cases(), list(cases.large(2000))
    for module, values in (
        (gpu_clock, {"COPIED": 1000, "SIDE": 8, "LEAST": 1e-6, "AGAIN": 2}),
        (gpu_kernels, {"LARGE": 2000, "cases": lambda: [case for case in every if case.operation in FEW],
                       "large": lambda count: [case for case in large if case.operation in FEW]}),
        (gpu_rungs, {"cases": lambda: [case for case in every if case.operation in FEW], "large": lambda count: []}),
        (gpu_steps, {"NET": Net(36, 17, 5, 50, rows=150), "BATCHES": (50,), "FIRST": 3}),
        (gpu_peers, {"PEERS": {}, "ROWS": 1, "TARGETS": {50: 1.5}, "LEAST": 1e-6, "REST": 0,
                     "installed": lambda quick: dict.fromkeys(found, "nowhere:Nobody")}),
        (gpu_compare, {"HIDDEN": 17, "LATENT": 5, "EPOCHS": 1, "BATCH": 20, "SEEDS": 2}),
        (workers, {"team": team}),
    ):  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    return found
