"""tinyvae as a contestant: the step of `tv.fit`, and the floor of that step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import gpu_clock, nets
from benchmarks.nets import Net
from tinyvae.engine.devices import require_cuda, to_host
from tinyvae.runs import environment
from tinyvae.training.epochs import Training
from tinyvae.training.objective import DATA_COUNT, OBJECTIVE


class Trained:
    """A training that goes back to its first state; `step` makes a step.

    start: the arrays of that state by name.
    """

    def __init__(self, training: Training, step: Callable[[], Any], start: dict[str, Any]) -> None:
        self.training, self.step, self._start = training, step, start

    def restart(self) -> None:
        """Restore the state before the first step."""
        for name, array in self.training.state().items():
            array[...] = self._start[name]

    def losses(self, count: int) -> list[float]:
        self.restart()
        found = []
        for _ in range(count):
            self.training.totals[...] = 0
            self.step()
            found.append(self._loss())
        return found

    def _loss(self) -> float:
        totals = to_host(self.training.totals)
        return float(np.divide(totals[OBJECTIVE], totals[DATA_COUNT]))


def copied(training: Training) -> dict[str, Any]:
    """Copies of the arrays of the state of a training, by name."""
    return {name: array.copy() for name, array in training.state().items()}


class Replayed(Trained):
    """The contestant; workers.py explains its methods. `reference` runs the step that is timed, for the check."""

    def __init__(self, net: Net, device: str = "cpu", tf32: bool = False) -> None:
        self.steps, self.device, self.tf32 = nets.steps_an_epoch(net), device, tf32
        training, step, self.tape = self.recorded(net)
        super().__init__(training, step, copied(nets.training(net, device)))

    def recorded(self, net: Net) -> tuple[Any, Any, Any]:
        """Record the dense step, like that of the peers, and set its floor."""
        with nets.dense():
            found = nets.replayed(net, self.device, self.tf32)
        self.floor = self.products_alone(net, found[2])
        return found

    def products_alone(self, net: Net, tape: Any) -> Callable[[], Any]:
        """The floor of the step."""
        return nets.floor(net, tape)

    def about(self) -> dict[str, Any]:
        blas = environment.blas()
        versions = {name: environment.installed(name) for name in ("numpy", "numba")}
        return versions | {"blas": blas["kernel"], "threads": blas["threads"]}

    def reference(self) -> dict[str, Any]:
        """The batch, the normals, the loss and the gradient of a replayed step at the initial weights."""
        self.restart()
        self.step()
        drawn = {launch.rule.name: launch.outputs[0] for launch in self.tape.working() if launch.outputs}
        x, eps = (np.array(to_host(a)) for a in (drawn.get("binarised_rows", drawn.get("grey_rows")), drawn["normal"]))
        parameters = self.training.model.parameters
        gradients = {name: np.array(to_host(slot)) for name, slot in parameters._slots.items()}
        return {"x": x, "eps": eps.reshape(len(x), -1), "loss": self._loss(), "gradients": gradients}

    def epoch(self) -> None:
        for _ in range(self.steps):
            self.step()

    def products(self) -> None:
        """Compute the products of an epoch."""
        for _ in range(self.steps):
            self.floor()


class OnCard(Replayed):
    """The contestant on a GPU, where the host checks at intervals that all steps were finite."""

    def __init__(self, net: Net, device: str = "cuda", tf32: bool = False) -> None:
        super().__init__(net, device, tf32)
        self._epoch = nets.epoch(self.training, net)

    def products_alone(self, net: Net, tape: Any) -> Callable[[], Any]:
        """The floor: the products as the step calls them, in one CUDA graph."""
        return gpu_clock.program(nets.products(net, tape))

    def about(self) -> dict[str, Any]:
        return {"cupy": require_cuda().__version__, "tf32": self.tf32,
                "form": gpu_clock.form(self.tape.calls or ())}

    def epoch(self) -> None:
        self._epoch()

    def products(self) -> None:
        super().products()
        require_cuda().cuda.Device().synchronize()


class Sparse(Replayed):
    """The step of `tv.fit` whose first layer skips the zeros of the data; its draws are those of the dense step."""

    def recorded(self, net: Net) -> tuple[Any, Any, Any]:
        found = nets.replayed(net)
        if not any(launch.rule.name == "sparse_matmul" for launch in found[2].launches):
            raise SystemExit(f"{net}: the data have too few zeros for a sparse first layer")
        return found

    def first_batch(self) -> tuple[np.ndarray, np.ndarray]:
        found = self.reference()
        return found["x"], found["eps"]

    def loss_and_gradients(self, x: np.ndarray, eps: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        found = self.reference()
        if not (np.array_equal(x, found["x"]) and np.array_equal(eps, found["eps"])):
            raise SystemExit("the sparse step draws other numbers than the dense one")
        return found["loss"], found["gradients"]
