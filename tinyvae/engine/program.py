"""Programs: operations that are recorded once and then run again, without building a graph or allocating a result.

A `Tape` keeps the launches of a `with` block in order. Their arrays stay where they are, so the list can be run again
over the same buffers. What must change from one replay to the next (the batch, the step, the learning rate) lives in
arrays that launches read, never in a Python number, which would be frozen into the recording. A `Program` makes sure of
that for a function that is called again and again:

    program = Program(step)   # step() runs operations; it may take a key, such as a batch size
    program()                 # runs and records it
    program()                 # replays it, runs it once more anew, and compares the bits; twice
    program()                 # replays it, now and from now on
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import numpy as np

from tinyvae.engine import table
from tinyvae.engine.devices import Array, to_host
from tinyvae.engine.tape import RECORDING, Key, Launch, TapeError, key, recording
from tinyvae.engine.tensor import Tensor, apply

COMPARED = 2  # replays of a program that are held against the same step run anew
_number = itertools.count(1)


class Tape:
    """Records every operation run inside `with Tape() as tape:`; read it with `print`, run it again with `replay`."""

    def __init__(self) -> None:
        self.number = next(_number)
        self.launches: list[Launch] = []
        self.calls: list[Callable[[], Any]] | None = None
        self._redirected: set[Key] = set()

    def __enter__(self) -> Tape:
        if recording() is self:
            raise TapeError("this tape is recording already; use a second Tape for a second program")
        RECORDING.set((*RECORDING.get(), self))
        self.calls = None
        return self

    def __exit__(self, *_: Any) -> None:
        RECORDING.set(tuple(tape for tape in RECORDING.get() if tape is not self))

    def working(self) -> list[Launch]:
        """The launches that do work when replayed; a view of a fixed buffer stays valid by itself."""
        return [launch for launch in self.launches if not launch.rule.view]

    def replay(self) -> None:
        """Run the recorded launches again, in order, into the same arrays."""
        if self.calls is None:
            if recording() is self:
                raise TapeError("replay() inside the recording: leave the `with` block first")
            found, self.calls = [bound(launch) for launch in self.working()], []
            for join, group in itertools.groupby(found, key=lambda call: getattr(call, "join", None)):
                together = list(group)
                self.calls += [join(together)] if join else together  # neighbours that can run as one call
        with np.errstate(all="ignore"):
            for call in self.calls:
                call()

    def state(self) -> list[Array]:
        """The arrays that the launches change in place and did not make: what one replay leaves to the next."""
        changed = [launch.inputs[i] for launch in self.launches for i in launch.rule.writes]
        return list({id(tensor.data): tensor.data for tensor in changed if tensor.launch is None}.values())

    def redirect(self, tensor: Tensor, home: Array) -> bool:
        """Let the launch that made `tensor` write into `home` instead of an array of its own, if nobody reads that.

        So a weight's gradient lands in its part of the flat gradient vector without a copy.
        """
        launch = tensor.launch
        if launch is None or launch.tape != self.number or launch.rule.view or launch.rule.writes:
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
        return table.of_launches(self.launches)


def bound(launch: Launch) -> Callable[[], Any]:
    """A launch as a call without arguments, over the arrays it has now."""
    arrays, attributes = [tensor.data for tensor in launch.inputs], launch.attributes
    if not launch.rule.writes:
        attributes = attributes | {"out": launch.outputs[0] if launch.rule.outputs == 1 else tuple(launch.outputs)}
    return getattr(launch.call, "bind", partial(partial, launch.call))(launch.xp, *arrays, **attributes)


def write_into(tensor: Tensor, home: Array) -> None:
    """Make `home` hold the tensor's values, now and at every replay: written there in the first place if possible."""
    tape = recording()
    if tape is None:
        home[...] = tensor.data
    elif not tape.redirect(tensor, home):
        apply("store", tensor, Tensor(home))


class Program:
    """A function of operations that is recorded at its first call and replayed at later ones.

    Parameters
    ----------
    step
        Runs operations and returns tensors (one, several in a tuple, list or dict, or none). What it changes must be
        changed in place by operations, as an optimizer changes the parameters: a replay repeats nothing else.

    `program(*key)` calls `step(*key)`, or replays the tape recorded for that key, and returns what the step returned
    when it was recorded, its tensors filled anew. The first two replays are held against the step run anew from the
    same state, bit for bit: TapeError names the first launch that differs. The tape of the first call stays the one
    that is replayed, so the step must return its tensors: what it puts aside belongs to the latest run.
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.tapes: dict[tuple[Hashable, ...], Tape] = {}
        self._results: dict[tuple[Hashable, ...], Any] = {}
        self._compared: dict[tuple[Hashable, ...], int] = {}

    def __call__(self, *key: Hashable) -> Any:
        if key not in self.tapes:
            self.tapes[key], self._results[key] = self.record(*key)
            self._compared[key] = 0
        elif self._compared[key] < COMPARED:
            self._compare(key)
            self._compared[key] += 1
        else:
            self.tapes[key].replay()
        return self._results[key]

    def record(self, *key: Hashable) -> tuple[Tape, Any]:
        """Run the step, and return its tape and its result; the program itself keeps neither."""
        with np.errstate(all="ignore"), Tape() as tape:
            result = self.step(*key)
        return tape, result

    def tape(self, *key: Hashable) -> Tape:
        """The tape recorded for a key."""
        return self.tapes[key]

    def is_settled(self, *key: Hashable) -> bool:
        """Is a call with this key only a replay from now on?"""
        return self._compared.get(key) == COMPARED

    def clear(self) -> None:
        """Forget all recordings, and free their arrays."""
        for kept in (self.tapes, self._results, self._compared):
            kept.clear()

    def _compare(self, key: tuple[Hashable, ...]) -> None:
        """Replay, and run the step anew from the state before it: both must leave the same bits."""
        tape = self.tapes[key]
        state = tape.state()
        before = [array.copy() for array in state]
        tape.replay()
        replayed = _bits([*state, *_arrays(self._results[key])])
        for array, value in zip(state, before, strict=True):
            array[...] = value
        again, result = self.record(*key)
        if _bits([*state, *_arrays(result)]) == replayed:
            return
        for ours, theirs in zip(tape.launches, again.launches, strict=False):
            if ours.rule is not theirs.rule or _bits(ours.outputs) != _bits(theirs.outputs):
                raise TapeError(f"a replayed step differs from the same step run anew, first in {ours}: a value that "
                                "changes from step to step was frozen into the recording")
        raise TapeError("a replayed step leaves another state than the same step run anew")


def _arrays(result: Any) -> list[Array]:
    """The arrays of the tensors that a step returned."""
    if isinstance(result, Tensor):
        return [result.data]
    if isinstance(result, dict):
        result = list(result.values())
    return [array for part in result for array in _arrays(part)] if isinstance(result, (list, tuple)) else []


def _bits(arrays: list[Array]) -> list[bytes]:
    return [to_host(array).tobytes() for array in arrays]
