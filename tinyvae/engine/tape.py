"""The chain rule, walked backwards over the operations that have run.

Each operation that runs leaves a `Launch`: which row of the table it was, its input tensors, the arrays it wrote. A
tensor points to the launch that made it, and a launch to its inputs. So a result L is the end of a graph, and the
chain rule gives the derivative of L by each tensor x in it as a sum over the launches y = f(..., x, ...) that read x:

    dL/dx = sum over these of  dL/dy dy/dx

The rows of rules.py know the summands: from g = dL/dy they give g dy/dx. Taken from the last launch to the first, every
launch finds its own dL/dy complete, because what reads y ran later. An example of four tensors, L = a exp(a) + exp(a):

    tensor       what it passes back                              the derivative is then
    L = c + b    1 to c, 1 to b                                   dL/dL = 1
    c = a * b    dL/dc b to a, dL/dc a to b                       dL/dc = 1
    b = exp(a)   dL/db b to a                                     dL/db = 1 + a      (from L and from c)
    a                                                             dL/da = b + (1 + a) b   (from c and from b)

The derivatives are computed by ordinary operations, so they have launches, and derivatives, themselves. `program.py`
keeps launches in a list, a `Tape`, and runs the list again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tinyvae.engine.devices import Array
from tinyvae.engine.rules import Rule

if TYPE_CHECKING:
    from tinyvae.engine.program import Tape
    from tinyvae.engine.tensor import Tensor

# The tapes whose `with` block runs now, the innermost last. Each thread has its own, because a context variable belongs
# to a thread (or to a task of asyncio): a thread never records the operations of another.
RECORDING: ContextVar[tuple[Tape, ...]] = ContextVar("tapes that record", default=())
_serial = itertools.count()
Key = tuple[int, int]


class TapeError(RuntimeError):
    """A value would be frozen into a recorded program, or belongs to another one."""


def recording() -> Tape | None:
    """The tape that records in this thread now, if any."""
    tapes = RECORDING.get()
    return tapes[-1] if tapes else None


class Launch:
    """One run of an operation.

    `outputs` are arrays and `tape` is a number, because references to tensors or to the tape would close a circle: a
    graph is freed at once when its last tensor goes.
    """

    __slots__ = ("attributes", "call", "inputs", "outputs", "rule", "serial", "tape", "xp")

    def __init__(self, rule: Rule, call: Callable, xp: Any, inputs: Sequence[Tensor], outputs: list[Array],
                 attributes: dict[str, Any]) -> None:
        self.serial = next(_serial)
        self.rule, self.call, self.xp = rule, call, xp
        self.inputs, self.outputs, self.attributes = inputs, outputs, attributes
        tape = recording()
        self.tape = None if tape is None else tape.number
        if tape is not None:
            tape.launches.append(self)

    def __str__(self) -> str:
        shapes = ", ".join(str(tensor.shape) for tensor in self.inputs)
        return f"{self.rule.name}({shapes})"


def key(tensor: Tensor) -> Key:
    """A tensor's name during the walk: its launch's serial and output number, or for a leaf its identity."""
    return (tensor.launch.serial, tensor.index) if tensor.launch else (-1, id(tensor))


def walk(output: Tensor, wanted: Iterable[Tensor], seed: Tensor) -> dict[Key, Tensor]:
    """Derivatives of sum(seed * output) by each wanted tensor that `output` depends on, by `key`.

    It is a loop, so depth is no limit; sums are formed in a fixed order, that of the launches; and only launches on a
    path to a wanted tensor are visited.
    """
    goals = {key(tensor) for tensor in wanted}
    gradients = {key(output): seed}
    for launch, asked in reversed(_paths(output, goals)):
        g, y = _outputs(launch, gradients, goals, type(seed))
        for i, by_input in _passed_back(launch, g, y, asked):
            name, by_input = key(launch.inputs[i]), unbroadcast(by_input, launch.inputs[i].shape)
            gradients[name] = gradients[name] + by_input if name in gradients else by_input
    return {name: gradients[name] for name in goals if name in gradients}


def history(output: Tensor) -> list[Launch]:
    """The launches that pass a gradient of `output` back, in the order they ran."""
    reached: dict[int, Launch] = {}
    stack = [output]
    while stack:
        launch = stack.pop().launch
        if launch is not None and launch.serial not in reached:
            reached[launch.serial] = launch
            stack.extend(tensor for i, tensor in enumerate(launch.inputs)
                         if tensor.requires_grad and launch.rule.flows(i))
    return [reached[serial] for serial in sorted(reached)]


def _paths(output: Tensor, goals: set[Key]) -> list[tuple[Launch, list[int]]]:
    """The launches through which `output` depends on a goal, in the order they ran, and by which of their inputs."""
    found, useful = [], set()
    for launch in history(output):
        names = [(i, key(tensor)) for i, tensor in enumerate(launch.inputs)
                 if tensor.requires_grad and launch.rule.flows(i)]
        asked = [i for i, name in names if name in goals or name[0] in useful]
        if asked:
            found.append((launch, asked))
            useful.add(launch.serial)
    return found


def _passed_back(launch: Launch, g: list[Tensor], y: list[Tensor], asked: list[int]) -> Iterable[tuple[int, Tensor]]:
    """The gradient that a launch passes to each input that is asked for, by the input's number."""
    rule, inputs, attributes = launch.rule, launch.inputs, launch.attributes
    if rule.grads is None:
        raise TapeError(f"{rule.name} is a fused operation and has no second derivative; compute under `with "
                        "tinyvae.fused(False):`, where every operation has one" if rule.twin else
                        f"{rule.name} has no derivative; give its row `grads`, or stop the gradient before it: "
                        ".detach()")
    if callable(rule.grads):
        together = rule.grads(*(pair[0] if rule.outputs == 1 else pair for pair in (g, y)), *inputs, **attributes)
        return [(i, together[i]) for i in asked]
    return [(i, rule.grads[i](g[0], y[0], *inputs, **attributes)) for i in asked]


def _outputs(launch: Launch, gradients: dict[Key, Tensor], goals: set[Key],
             make: type[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The derivatives by a launch's outputs, zeros by those that nobody read, and the outputs as tensors."""
    g, y = [], []
    for i, array in enumerate(launch.outputs):
        name = (launch.serial, i)
        received = gradients.get(name) if name in goals else gradients.pop(name, None)
        g.append(make(launch.xp.zeros_like(array)) if received is None else received)
        y.append(make(array, array.dtype.kind == "f", launch, i))
    return g, y


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum a gradient over the axes along which the input of shape `shape` was repeated."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    repeated = (i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1)
    return g.sum((*range(extra), *repeated)).reshape(shape)
