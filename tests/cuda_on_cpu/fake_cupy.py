"""A CuPy without a GPU, stricter than the real one: arrays that refuse to become NumPy's by themselves.

`install(monkeypatch, driver)` puts it in the place of `cupy` and `cupyx`. Its functions are NumPy's over hidden NumPy
arrays. There are those alone that CuPy has, with CuPy's parameters: cupy.json lists them (see signatures.py). As CuPy's
do, they refuse NumPy arrays among their arguments, and return arrays where NumPy gives numbers; and an array says no to
float(), bool(), iteration and NumPy's own functions, which in CuPy would wait for the device or fail. `RawModule` runs
kernels on the host, and a stream captures them as CUDA's do: what else is asked for meanwhile is refused.
"""

import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from tinyvae_kernels.cuda.runtime import driver as drivers

from tinyvae.engine.devices import NAMESPACES, Namespace

TABLE = json.loads(Path(__file__).with_name("cupy.json").read_text())  # what CuPy has: parameters by module and name
MADE_FROM_HOST = ("asarray", "array")  # the functions that may be given NumPy's arrays: a copy to the device


class LeakError(TypeError):
    """Device memory was about to become host memory, or the other way round, without being asked."""


class Pointer:
    given = None  # the arrays by their addresses, where a test wants to know them

    def __init__(self, array):
        self.ptr = array.__array_interface__["data"][0]
        if Pointer.given is not None:
            Pointer.given[self.ptr] = array


def unwrap(value, what):
    if isinstance(value, ndarray):
        return value.hidden
    if isinstance(value, np.ndarray):
        raise LeakError(f"{what} was given a NumPy array of shape {value.shape}; make it a device array first")
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(v, what) for v in value)
    if isinstance(value, dict):
        return {key: unwrap(v, what) for key, v in value.items()}
    return value


def wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    return type(value)(map(wrap, value)) if isinstance(value, (list, tuple)) else value


def check_call(name, words, arguments, named):
    """TypeError if CuPy's function of that name does not take these arguments."""
    before, _, after = f" {words} ".partition(" * ")
    positional, keywords = before.split(), after.split()
    if len(arguments) > len(positional) and not any(word.startswith("*") for word in positional):
        raise TypeError(f"CuPy's {name} takes {len(positional)} arguments by position, found {len(arguments)}")
    if unknown := set(named) - {*positional, *keywords} if "**kwargs" not in words.split() else None:
        raise TypeError(f"CuPy's {name} takes {words!r}, found {', '.join(sorted(unknown))}")


def on_device(function, name, words="*args **kwargs"):
    def call(*arguments, **named):
        check_call(name, words, arguments, named)
        if Stream.capturing:
            raise CaptureError(f"{name} while a graph is captured: only kernels and products may run there")
        if name in MADE_FROM_HOST and not isinstance(arguments[0], ndarray):
            hidden, *arguments = arguments
            return wrap(function(hidden, *arguments, **unwrap(named, name)).copy())
        if name == "asarray" and named.get("dtype") in (None, arguments[0].dtype):
            return arguments[0]
        found = function(*unwrap(arguments, name), **unwrap(named, name))
        out = named.get("out")
        return out if isinstance(out, ndarray) else wrap(found)

    return call  # without `at`: CuPy's adds in an order that changes from run to run


def refuse(what):
    def method(self, *_, **__):
        raise LeakError(f"{what} of a device array: ask for its values with .get()")

    return method


class ndarray:  # CuPy's name
    """An array on the device."""

    __module__ = "cupy"
    __array_priority__ = 100

    def __init__(self, hidden):
        self.hidden = hidden

    shape, dtype, ndim, size, strides, flags, itemsize, nbytes = (
        property(lambda self, name=name: getattr(self.hidden, name))
        for name in ("shape", "dtype", "ndim", "size", "strides", "flags", "itemsize", "nbytes"))  # fmt: skip
    data = property(lambda self: Pointer(self.hidden))
    base = property(lambda self: None if self.hidden.base is None else self)
    T = property(lambda self: ndarray(self.hidden.T))

    def get(self):
        return self.hidden.copy()

    def set(self, values):
        self.hidden[...] = values

    def __len__(self):
        return len(self.hidden)

    def __getitem__(self, where):
        return ndarray(np.asarray(self.hidden[unwrap(where, "an index")]))

    def __setitem__(self, where, value):
        self.hidden[unwrap(where, "an index")] = unwrap(value, "an assignment")

    __float__, __int__, __index__, __bool__, __iter__, item, tolist, __array__ = map(refuse, (
        "float()", "int()", "an index", "bool()", "iteration", "item()", "tolist()", "NumPy's array"))  # fmt: skip

    def __array_ufunc__(self, ufunc, method, *inputs, **named):
        if method != "__call__":
            raise LeakError(f"NumPy's {ufunc.__name__}.{method} was called on a device array")
        # an operator between a NumPy number and a device array comes here; CuPy answers it
        return on_device(ufunc, ufunc.__name__)(*inputs, **named)

    def __array_function__(self, function, kinds, arguments, named):
        raise LeakError(f"NumPy's {function.__name__} was called on a device array: call the namespace's")


for _name in ("reshape", "transpose", "astype", "sum", "mean", "max", "min", "all", "any", "copy", "swapaxes", "ravel",
              "fill", "squeeze"):
    setattr(ndarray, _name, lambda self, *arguments, _name=_name, **named: on_device(
        getattr(self.hidden, _name), _name, TABLE["cupy.ndarray"][_name])(*arguments, **named))
for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "floordiv", "mod", "and", "or", "xor", "rshift",
              "lshift", "gt", "ge", "lt", "le", "eq", "ne"):
    for _prefix in ("", "r"):
        if _prefix and _name in ("gt", "ge", "lt", "le", "eq", "ne"):
            continue
        _full = f"__{_prefix}{_name}__"
        setattr(ndarray, _full, lambda self, other, _full=_full: wrap(
            getattr(self.hidden, _full)(unwrap(other, _full))))
for _name in ("iadd", "isub", "imul", "itruediv"):
    _full = f"__{_name}__"

    def _in_place(self, other, _full=_full):
        getattr(self.hidden, _full)(unwrap(other, _full))
        return self

    setattr(ndarray, _full, _in_place)
for _name in ("neg", "abs", "invert"):
    _full = f"__{_name}__"
    setattr(ndarray, _full, lambda self, _full=_full: wrap(getattr(self.hidden, _full)()))
ndarray.__hash__ = object.__hash__


class CaptureError(RuntimeError):
    """CUDA would refuse this while a stream is captured."""


class Node(NamedTuple):
    """A launch in a graph, the stream that it was captured on, and the places of the nodes that must end before it."""

    call: Callable
    stream: Any
    after: frozenset


class Capture:
    """What the streams of a capture launch, and how they wait for each other."""

    def __init__(self, origin):
        self.origin, self.nodes = origin, []
        self.streams = {origin: frozenset()}  # every stream of the capture, with the nodes that its next one awaits
        self.workspaces = {}  # each workspace of cuBLAS, with the one stream that may use it

    def add(self, call):
        after = self.awaited(Stream.current)
        self.streams[Stream.current] = frozenset([len(self.nodes)])
        self.nodes.append(Node(call, Stream.current, after))

    def awaited(self, stream):
        if stream not in self.streams:
            raise CaptureError("work on a stream that takes no part in the capture: let it wait for an event first")
        return self.streams[stream]

    def joined(self):
        """Does the first stream wait, in the end, for every node?"""
        before = set(self.streams[self.origin])
        for place in reversed(range(len(self.nodes))):
            if place in before:
                before |= self.nodes[place].after
        return len(before) == len(self.nodes)


class Graph:
    """Captured launches as one call, in one of two orders that a card may choose, too: what was captured on other
    streams than the first begins as "early" as it may, or as "late". So results change where an event is missing."""

    def __init__(self, capture):
        self.nodes, self._origin = capture.nodes, capture.origin
        self._orders = {order: self._sorted(order == "early") for order in ("early", "late")}

    def _sorted(self, early):
        waiting, done = dict(enumerate(self.nodes)), []
        while waiting:
            ready = [node for node in waiting.items() if not node[1].after & waiting.keys()]
            place, node = min(ready, key=lambda one: (one[1].stream is self._origin) == early)
            done.append(node)
            del waiting[place]
        return done

    def launch(self):
        for node in self._orders[Stream.order]:
            node.call()


class Stream:
    """A stream that captures launches instead of running them; events let other streams take part in its capture."""

    capturing = None  # the capture under way, if any
    order = "early"  # when a graph runs what was captured on other streams than its first; "late" is the other choice

    def __init__(self, *, non_blocking=False):
        self.ptr, self._outer = 1 + id(self), []

    def __enter__(self):
        self._outer.append(Stream.current)
        Stream.current = self
        return self

    def __exit__(self, *_):
        Stream.current = self._outer.pop()

    def begin_capture(self):
        if Stream.current is not self or Stream.capturing:
            raise CaptureError("begin_capture of a stream that is not current, or inside another capture")
        Stream.capturing = Capture(self)

    def end_capture(self):
        capture, Stream.capturing = Stream.capturing, None
        if capture is None or capture.origin is not self:
            raise CaptureError("end_capture of a stream that began none")
        if not capture.joined():
            raise CaptureError("cudaErrorStreamCaptureUnjoined: the stream does not wait for all others of its capture")
        return Graph(capture)

    def record(self, event):
        event.record(self)

    def wait_event(self, event):
        capture = Stream.capturing
        if event._capture is not capture:
            raise CaptureError("the event was recorded in another capture than the one under way, or in none")
        if capture:
            capture.streams[self] = capture.streams.get(self, frozenset()) | event._after

    @classmethod
    def submit(cls, call):
        """Run now, or keep for the graph."""
        if cls.capturing:
            cls.capturing.add(call)
        else:
            call()


Stream.default = Stream.current = Stream()
Stream.default.ptr = 0


class Cublas:
    """The library that cublas_on_cpu.cpp stands in for; products wait for their stream as kernels do."""

    def __init__(self, library):
        self._library = library

    def __getattr__(self, name):
        function = getattr(self._library, name)
        if not name.endswith("gemm_v2"):
            return function

        def gemm(handle, *arguments):
            if self._library.coc_stream(handle) != Stream.current.ptr:
                raise CaptureError(f"{name} on another stream than the current one")
            used = Stream.capturing.workspaces if Stream.capturing else {}
            if used.setdefault(self._library.coc_workspace(handle), Stream.current) is not Stream.current:
                raise CaptureError(f"{name} with the workspace of another stream, which may use it at the same time")
            status = []
            Stream.submit(lambda: status.append(function(handle, *arguments)))
            return status[0] if status else 0

        return gemm


class Event:
    """A moment, by the host's clock; in a capture, what its stream has launched by then."""

    seconds, _capture = 0.0, None

    def __init__(self, *, disable_timing=False):
        self._timed = not disable_timing

    def record(self, stream=None):
        stream = stream or Stream.current
        if Stream.capturing:
            self._after = Stream.capturing.awaited(stream)
        self.seconds, self._capture = time.perf_counter(), Stream.capturing

    def synchronize(self):
        pass


def elapsed(start, stop):
    if not (start._timed and stop._timed):
        raise ValueError("the time between events that keep none")
    return 1000 * (stop.seconds - start.seconds)


class FakeModule(types.ModuleType):
    """NumPy's or SciPy's functions over device arrays, as far as CuPy has them."""

    def __init__(self, name, library):
        super().__init__(name)
        self.__dict__["_library"] = library

    def __getattr__(self, name):
        if name not in TABLE[self.__name__]:
            raise AttributeError(f"CuPy has no {self.__name__}.{name}")
        found, words = getattr(self._library, name), TABLE[self.__name__][name]
        return on_device(found, name, words) if callable(found) and not isinstance(found, type) else found


def install(monkeypatch, driver):
    """In the place of CuPy, with one device, until the test ends."""
    cupy, special = FakeModule("cupy", np), FakeModule("cupyx.scipy.special", scipy.special)
    cupy.ndarray, cupy.__version__ = ndarray, "14.2.0"
    as_strided = on_device(np.lib.stride_tricks.as_strided, "as_strided", "x shape strides")
    cupy.lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=as_strided))
    polygamma = special.polygamma

    def of_arrays(n, x):
        """As CuPy's, which broadcasts both and takes no Python number."""
        if not (isinstance(n, ndarray) and isinstance(x, ndarray)):
            raise TypeError(f"polygamma found {type(n).__name__} and {type(x).__name__}; CuPy's takes two arrays")
        return polygamma(n, x)

    special.polygamma = of_arrays

    class RawModule:
        def __init__(self, code, *, options=()):
            self._module = driver.module(code, options)

        def get_function(self, name):
            function = self._module.get_function(name)

            def launch(grid, block, arguments, **named):
                for argument in arguments:
                    if isinstance(argument, np.ndarray):
                        raise LeakError(f"{name} was given a NumPy array")
                hidden = tuple(a.hidden if isinstance(a, ndarray) else a for a in arguments)
                Stream.submit(lambda: function(grid, block, hidden, **named))

            return launch

    runtime = types.SimpleNamespace(driverGetVersion=lambda: 13000, getDeviceCount=lambda: 1,
                                    memGetInfo=lambda: (4 * 2**20, 16 * 2**20),
                                    getDeviceProperties=lambda _: {"name": b"no GPU at all", "totalGlobalMem": 2**34,
                                                                   "multiProcessorCount": 1})
    pool = types.SimpleNamespace(free_all_blocks=lambda: None, used_bytes=lambda: 3 * 2**20, free_bytes=lambda: 2**20)
    cupy.get_default_memory_pool = lambda: pool
    device = types.SimpleNamespace(compute_capability="90", synchronize=lambda: None)
    nvrtc = types.SimpleNamespace(getVersion=lambda: (13, 0))  # an attribute, as in CuPy, and no module
    cuda = types.ModuleType("cupy.cuda")
    cuda.runtime, cuda.nvrtc, cuda.Device = runtime, nvrtc, lambda *_: device
    cuda.Stream, cuda.get_current_stream = Stream, lambda: Stream.current
    cuda.Event, cuda.get_elapsed_time = Event, elapsed
    types_of_products = {"type": 1}
    cupy._core = types.SimpleNamespace(get_compute_type=lambda dtype: types_of_products["type"],
                                       set_compute_type=lambda dtype, value: types_of_products.update(type=value))
    cupy.RawModule, cupy.cuda = RawModule, cuda
    for name, module in (("cupy", cupy), ("cupy.cuda", cuda),
                         ("cupyx", types.ModuleType("cupyx")), ("cupyx.scipy", types.ModuleType("cupyx.scipy")),
                         ("cupyx.scipy.special", special)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(NAMESPACES, "cupy", Namespace("cuda", "cupy", "cupyx.scipy.special"))
    monkeypatch.setattr(drivers, "current", drivers.CuPy())
    monkeypatch.setattr(drivers, "library", lambda: Cublas(driver.cublas()))
    return cupy
