"""The tape: operations as a list of launches, walked backwards for derivatives, printed, and run again.

Running an operation makes one `Launch`: a function, its input tensors, the arrays it wrote. A tensor points to the
launch that made it and the launch to its inputs, so without a `Tape` a graph lives just as long as its tensors.
A `Tape` only keeps the launches in order. The arrays of a recorded launch stay where they are, so a recorded step
is a program over fixed buffers: `replay()` runs the list again, without building a graph or allocating a result.
What must change from one replay to the next (the batch, the step, the learning rate) lives in arrays that launches
read, never in a Python number, for that would be frozen into the program.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae.engine import listing
from tinyvae.engine.devices import Array
from tinyvae.engine.rules import Rule

if TYPE_CHECKING:
    from tinyvae.engine.tensor import Tensor

_serial = itertools.count()
_recording: list[Tape] = []


class TapeError(RuntimeError):
    """A value would be frozen into a recorded program, or belongs to another one."""


def recording() -> Tape | None:
    """The tape that records now, if any."""
    return _recording[-1] if _recording else None


class Launch:
    """One run of an operation. `outputs` are arrays: pointing to tensors would tie launch and tensor in a loop."""

    __slots__ = ("attributes", "call", "inputs", "outputs", "rule", "serial", "tape", "xp")

    def __init__(self, rule: Rule, call: Callable, xp: Any, inputs: Sequence[Tensor], outputs: list[Array],
                 attributes: dict[str, Any]) -> None:
        self.serial = next(_serial)
        self.rule, self.call, self.xp = rule, call, xp
        self.inputs, self.outputs, self.attributes = inputs, outputs, attributes
        self.tape = recording()
        if self.tape is not None:
            self.tape.launches.append(self)

    def bind(self) -> Callable[[], Any]:
        """The launch as a call without arguments, over the arrays it has now."""
        arrays, attributes = [tensor.data for tensor in self.inputs], self.attributes
        if not self.rule.writes:
            attributes = attributes | {"out": self.outputs[0] if self.rule.outputs == 1 else tuple(self.outputs)}
        return getattr(self.call, "bind", partial(partial, self.call))(self.xp, *arrays, **attributes)

    def __str__(self) -> str:
        shapes = ", ".join(str(tensor.shape) for tensor in self.inputs)
        return f"{self.rule.name}({shapes})"


class Tape:
    """Records every operation run inside `with Tape() as tape:`; read it with `print`, run it again with `replay`."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self._program: list[Callable[[], Any]] | None = None
        self._redirected: set[Key] = set()

    def __enter__(self) -> Tape:
        if recording() is self:
            raise TapeError("this tape is recording already; use a second Tape for a second program")
        _recording.append(self)
        self._program = None
        return self

    def __exit__(self, *_: Any) -> None:
        _recording.remove(self)

    def program(self) -> list[Launch]:
        """The launches that do work when replayed; a view of a fixed buffer stays valid by itself."""
        return [launch for launch in self.launches if not launch.rule.view]

    def replay(self) -> None:
        """Run the recorded launches again, in order, into the same arrays."""
        if self._program is None:
            if recording() is self:
                raise TapeError("replay() inside the recording: leave the `with` block first")
            calls, self._program = [launch.bind() for launch in self.program()], []
            for join, group in itertools.groupby(calls, key=lambda call: getattr(call, "join", None)):
                together = list(group)
                self._program += [join(together)] if join else together  # neighbours that can run as one call
        with np.errstate(all="ignore"):
            for call in self._program:
                call()

    def redirect(self, tensor: Tensor, home: Array) -> bool:
        """Let the launch that made `tensor` write into `home` instead of an array of its own, if nobody reads that.

        So a weight's gradient lands in its part of the flat gradient vector without a copy.
        """
        launch = tensor.launch
        if launch is None or launch.tape is not self or launch.rule.view or launch.rule.writes:
            return False
        name, own = key(tensor), launch.outputs[tensor.index]
        if home.shape != own.shape or home.dtype != own.dtype or not home.flags.c_contiguous:
            return False
        if name in self._redirected or any(key(t) == name for later in self.launches for t in later.inputs):
            return False
        self._redirected.add(name)
        home[...] = own
        launch.outputs[tensor.index] = tensor.data = home
        return True

    def profile(self, rounds: int = 50, reset: Callable[[], Any] = lambda: None) -> list[tuple[Launch, float]]:
        """Each working launch with its median time in seconds over `rounds` replays, `reset` called before each."""
        return listing.profile(self, rounds, reset)

    def first_nonfinite(self) -> tuple[Launch, Array] | None:
        """The first launch with a result that is not finite, and that result."""
        for launch in self.launches:
            for array in launch.outputs:
                if array.dtype.kind == "f" and not launch.xp.isfinite(array).all():
                    return launch, array
        return None

    def __len__(self) -> int:
        return len(self.launches)

    def __str__(self) -> str:
        return listing.table(self)


# ---- the backward sweep ----------------------------------------------------------------------------------------------

Key = tuple[int, int]


def key(tensor: Tensor) -> Key:
    """What names a tensor in the sweep: its launch's serial and output number, or for a leaf its identity."""
    return (tensor.launch.serial, tensor.index) if tensor.launch else (-1, id(tensor))


def walk(output: Tensor, wanted: Iterable[Tensor], seed: Tensor) -> dict[Key, Tensor]:
    """Derivatives of sum(seed * output) by each wanted tensor that `output` depends on, by `key`.

    The chain rule from the last launch to the first. It is a loop, so depth is no limit; launches are taken by
    serial, so sums are formed in a fixed order; only launches on a path to a wanted tensor are visited.
    """
    goals = {key(tensor) for tensor in wanted}
    useful = _paths(output, goals)
    make = type(seed)
    gradients: dict[Key, Tensor] = {key(output): seed}
    waiting = [-launch.serial for launch in [output.launch] if launch and launch.serial in useful]
    queued = set(waiting)  # negative, because a heap gives its smallest entry: the latest launch
    while waiting:
        launch = useful[-heapq.heappop(waiting)]
        g, y = [], []
        for i, array in enumerate(launch.outputs):
            name = (launch.serial, i)
            received = gradients.get(name) if name in goals else gradients.pop(name, None)
            g.append(make(launch.xp.zeros_like(array)) if received is None else received)
            y.append(make(array, array.dtype.kind == "f", launch, i))
        for i, contribution in _contributions(launch, g, y, goals, useful):
            source = launch.inputs[i]
            contribution, name = unbroadcast(contribution, source.shape), key(source)
            gradients[name] = gradients[name] + contribution if name in gradients else contribution
            if name[0] in useful and -name[0] not in queued:
                queued.add(-name[0])
                heapq.heappush(waiting, -name[0])
    return {name: gradients[name] for name in goals if name in gradients}


def history(output: Tensor) -> list[Launch]:
    """The launches that `output` depends on through tensors with derivatives, in the order they ran."""
    reached: dict[int, Launch] = {}
    stack = [output]
    while stack:
        launch = stack.pop().launch
        if launch is not None and launch.serial not in reached:
            reached[launch.serial] = launch
            stack.extend(tensor for tensor in launch.inputs if tensor.requires_grad)
    return [reached[serial] for serial in sorted(reached)]


def _paths(output: Tensor, goals: set[Key]) -> dict[int, Launch]:
    """The launches through which `output` depends on a goal, by serial."""
    useful: dict[int, Launch] = {}
    for launch in history(output):
        if any(_is_asked(launch, i, goals, useful) for i in range(len(launch.inputs))):
            useful[launch.serial] = launch
    return useful


def _is_asked(launch: Launch, i: int, goals: set[Key], useful: dict[int, Launch]) -> bool:
    tensor = launch.inputs[i]
    name = key(tensor)
    return tensor.requires_grad and launch.rule.flows(i) and (name in goals or name[0] in useful)


def _contributions(launch: Launch, g: list[Tensor], y: list[Tensor], goals: set[Key],
                   useful: dict[int, Launch]) -> Iterable[tuple[int, Tensor]]:
    """The gradient that a launch passes to each input that is asked for."""
    rule, inputs, attributes = launch.rule, launch.inputs, launch.attributes
    if rule.grads is None:
        raise TapeError(f"{rule.name} is a fused operation and has no second derivative; compute under `with "
                        "tinyvae.fused(False):`, where every operation has one" if rule.twin else
                        f"{rule.name} has no derivative; give its row `grads`, or stop the gradient before it: "
                        ".detach()")
    one = rule.outputs == 1
    asked = [i for i in range(len(inputs)) if _is_asked(launch, i, goals, useful)]
    if callable(rule.grads):
        together = rule.grads(g[0] if one else g, y[0] if one else y, *inputs, **attributes)
        return [(i, together[i]) for i in asked]
    return [(i, rule.grads[i](g[0], y[0], *inputs, **attributes)) for i in asked]


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum a gradient over the axes along which the input of shape `shape` was repeated."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    repeated = (i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1)
    return g.sum((*range(extra), *repeated)).reshape(shape)
