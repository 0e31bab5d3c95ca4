"""Tensor: an array whose operators are rows of the table of operations (rules.py), and `apply`, which runs a row.

`grad(output, tensors)` gives derivatives by the chain rule (tape.py); `output.backward()` adds them to `tensor.grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tinyvae.choices import whole_numbers
from tinyvae.engine.devices import CPU, FLOATS, Array, DeviceError, Namespace, as_array, namespace_of, to_host
from tinyvae.engine.fusion import fused, kernel_of, serves, tf32
from tinyvae.engine.rules import TABLE, Interval, Rule
from tinyvae.engine.tape import Launch, TapeError, history, key, recording, walk
from tinyvae.protocols import Protocols

Axis = int | Sequence[int] | None


def _unary(name: str) -> Callable[[Tensor], Tensor]:
    def method(self: Tensor) -> Tensor:
        return apply(name, self)

    method.__name__ = method.__qualname__ = name  # Python names it where it is called with too many arguments
    return method


def _binary(name: str) -> Callable[[Tensor, Any], Tensor]:
    return lambda self, other: apply(name, self, other) if _is_operand(other) else NotImplemented


def _reflected(name: str) -> Callable[[Tensor, Any], Tensor]:
    return lambda self, other: apply(name, other, self) if _is_operand(other) else NotImplemented


def _is_operand(value: Any) -> bool:
    """Whether a value can stand beside a tensor: a number, a list, an array. Python's answer to others, as None, is
    that they are not equal and have no sum."""
    return isinstance(value, (Tensor, int, float, list, tuple, complex)) or hasattr(value, "dtype")


def _reduction(name: str) -> Callable[..., Tensor]:
    """A method `(axis=None, keepdims=False)`; axis is one axis, several, or None for all."""
    return lambda self, axis=None, keepdims=False: apply(name, self, axis=self._axes(axis), keepdims=keepdims)


class Tensor(Protocols):
    """An array that remembers the launch which made it.

    `Tensor(array)` shares memory with the array. With `requires_grad` it is a leaf that derivatives are taken by;
    `name` says in messages which one.
    """

    __slots__ = ("__weakref__", "data", "grad", "index", "launch", "name", "requires_grad")

    def __init__(self, data: Any, requires_grad: bool = False, launch: Launch | None = None, index: int = 0,
                 name: str = "") -> None:
        self.data: Array = data if launch is not None else as_array(data)
        self.requires_grad, self.launch, self.index, self.name = requires_grad, launch, index, name
        self.grad: Tensor | None = None
        # an array of other numbers is named by the operation that cannot take it, with the way to convert it
        if self.data.dtype.kind in ("USVMm" if hasattr(data, "dtype") else "OUSVMmc"):
            raise TypeError(f"found {data!r:.60} for a tensor; expected numbers or truth values")
        if requires_grad and self.data.dtype not in FLOATS:
            raise TypeError(f"a tensor of type {self.data.dtype} has no derivative; make it float32 or float64 first")

    # ---- what it is --------------------------------------------------------------------------------------------------

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    device = property(lambda self: namespace_of(self.data).device)

    if not TYPE_CHECKING:  # so that mypy still finds a method that does not exist

        def __getattr__(self, name: str) -> Callable[..., Any]:
            """Any row of the table is a method by its name: `a.sinh()`, once there is a row "sinh"."""
            if name not in TABLE:
                raise AttributeError(f"a tensor has no method or operation {name!r}")
            return partial(self.apply, name)

    def __repr__(self) -> str:
        made = f", made by {self.launch.rule.name}" if self.launch else ", requires_grad=True" * self.requires_grad
        return f"Tensor({np.array2string(to_host(self.data), prefix='Tensor(')}{made})"

    # ---- leaving the graph -------------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array on the host; TapeError while a tape records them."""
        tape = recording()
        if tape is not None and self.launch is not None and self.launch.tape == tape.number:
            raise TapeError(f"the value of a recorded {self.launch.rule.name} was asked for while the tape records: "
                            "it would be frozen into the program; read it after the `with Tape()` block")
        return to_host(self.data)

    def __setitem__(self, where: Any, value: Any) -> NoReturn:
        raise TypeError("item assignment would change a value that a derivative may need; build a new tensor with "
                        "flag.where(a, b) or a.concatenate(b, axis=0)")

    # ---- operations: each is the row of its name in rules.py ---------------------------------------------------------

    __add__, __sub__, __mul__, __truediv__, __pow__ = map(_binary, ("add", "sub", "mul", "div", "pow"))
    __radd__, __rsub__, __rmul__, __rtruediv__, __rpow__ = map(_reflected, ("add", "sub", "mul", "div", "pow"))
    __gt__, __ge__, __lt__, __le__ = map(_binary, ("greater", "greater_equal", "less", "less_equal"))
    __eq__, __ne__ = map(_binary, ("equal", "not_equal"))  # type: ignore[assignment]
    __hash__ = object.__hash__
    __neg__, __abs__ = map(_unary, ("neg", "abs"))
    exp, log, expm1, log1p, sqrt, sign = map(_unary, ("exp", "log", "expm1", "log1p", "sqrt", "sign"))
    tan, tanh, sigmoid, softplus, relu = map(_unary, ("tan", "tanh", "sigmoid", "softplus", "relu"))
    lgamma, erf, detach = map(_unary, ("lgamma", "erf", "detach"))  # `detach`: the same values, but no gradient flows
    maximum, minimum = map(_binary, ("maximum", "minimum"))
    sum, mean, max, logsumexp = map(_reduction, ("sum", "mean", "max", "logsumexp"))

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, other) if _is_operand(other) else NotImplemented

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self) if _is_operand(other) else NotImplemented

    def where(self, a: Any, b: Any) -> Tensor:
        """`a` where this tensor of truth values is true, `b` elsewhere."""
        return apply("where", self, a, b)

    def cast(self, dtype: Any) -> Tensor:
        """Truth values as the numbers 0 and 1."""
        return apply("cast", self, dtype=np.dtype(dtype))

    def polygamma(self, order: int) -> Tensor:
        """The derivative of that order of the digamma function; order 0 is digamma itself."""
        order, = whole_numbers((order,), "order")
        if order < 0:
            raise ValueError(f"found polygamma of order {order}; expected at least 0")
        return apply("polygamma", self, order=order)

    def digamma(self) -> Tensor:
        return self.polygamma(0)

    def log_softmax(self, axis: int = -1) -> Tensor:
        return apply("log_softmax", self, axis=self._axes(axis))

    def _axes(self, axis: Axis) -> tuple[int, ...]:
        """Axes as the rows want them: a sorted tuple without negative numbers."""
        axes = tuple(range(self.ndim)) if axis is None else whole_numbers((axis,), "axis")
        if not all(-self.ndim <= i < self.ndim for i in axes):
            raise ValueError(f"axis {axis} does not exist in a tensor of shape {self.shape}")
        return tuple(sorted({i % self.ndim for i in axes}))

    # ---- shapes ------------------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        wanted = whole_numbers(shape, "shape")
        # scattered memory is copied first, by an operation: a replay repeats it
        return self if wanted == self.shape else apply("reshape", self.contiguous(), shape=wanted)

    def contiguous(self) -> Tensor:
        """The same values in unbroken memory: this tensor, or a copy."""
        return self if self.data.flags.c_contiguous else apply("copy", self)

    def transpose(self, *axes: Any) -> Tensor:
        """Axes in this order, by default from the last to the first."""
        order = tuple(range(self.ndim))[::-1] if axes in ((), (None,)) else whole_numbers(axes, "axes")
        return apply("transpose", self, axes=order)

    T = property(lambda self: self.transpose())

    def swap(self) -> Tensor:
        """The last two axes exchanged: the transposed matrix, or a batch of them."""
        return self.transpose(*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)

    def broadcast_to(self, *shape: Any) -> Tensor:
        return apply("broadcast_to", self, shape=whole_numbers(shape, "shape"))

    def __getitem__(self, where: Any) -> Tensor:
        """A slice, as a view; or rows by a tensor or array of whole numbers, along the first axis."""
        if isinstance(where, (Tensor, np.ndarray, list)):
            return apply("gather", self, where)
        key = where if isinstance(where, tuple) else (where,)
        if any(isinstance(part, (Tensor, np.ndarray, list, bool)) for part in key):
            raise TypeError("slice found an array among several indices; take rows by one array of whole numbers, then "
                            "slice the result: x[index][:, 2]")
        # with `...` a single number is a view, too, and follows its array in a replay; without, NumPy copies it
        key = key if any(part is ... for part in key) else (*key, ...)
        return apply("slice", self, key=key) if self.dtype in FLOATS else Tensor(self.data[key])

    def concatenate(self, *others: Any, axis: int = 0) -> Tensor:
        return self.joined((self, *others), axis)

    def joined(self, tensors: Sequence[Any], axis: int = 0) -> Tensor:
        """Tensors, of which this is one, side by side along an axis."""
        return apply("concatenate", *tensors, axis=self._axes(axis)[0])

    def split(self, parts: int, axis: int = -1) -> tuple[Tensor, ...]:
        """`parts` equal views along an axis."""
        if parts < 1:
            raise ValueError(f"found split into {parts} parts; expected at least 1")
        return apply("split", self, axis=self._axes(axis)[0], parts=parts)

    def unslice(self, key: Any, shape: Sequence[int]) -> Tensor:
        """Zeros of that shape with this tensor at `key`."""
        return apply("unslice", self, key=key, shape=tuple(shape))

    def scatter(self, index: Any, rows: int) -> Tensor:
        """Zeros with that many rows, to which each row of this tensor is added at its index."""
        return apply("scatter", self, index, rows=rows)

    def apply(self, name: str, *others: Any, **attributes: Any) -> Any:
        """Run the row of that name with this tensor as its first input."""
        return apply(name, self, *others, **attributes)

    # ---- derivatives -------------------------------------------------------------------------------------------------

    def backward(self) -> None:
        """Add the derivatives of this scalar to the `grad` of every leaf that it depends on."""
        if recording() is not None:
            raise TapeError("backward() inside a tape: its result would not be renewed by a replay; use tinyvae.grad")
        inputs = [self, *(tensor for launch in history(self) for tensor in launch.inputs)]
        leaves = list({id(t): t for t in inputs if t.requires_grad and t.launch is None}.values())
        for leaf, g in zip(leaves, grad(self, leaves), strict=True):
            leaf.grad = Tensor(g.data.copy() if leaf.grad is None else leaf.grad.data + g.data)


def stack(tensors: Iterable[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis."""
    if not isinstance(tensors, Iterable):
        raise TypeError(f"found {tensors!r:.60} to stack; expected several tensors: tinyvae.stack([a, b])")
    tensors = list(tensors)
    if not tensors:
        raise ValueError("found no tensors to stack; expected at least one")
    tensors = [t if isinstance(t, Tensor) else Tensor(t) for t in tensors]
    place, = whole_numbers((axis,), "axis")
    if not -tensors[0].ndim - 1 <= place <= tensors[0].ndim:
        raise ValueError(f"axis {axis} does not exist in a stack of tensors of shape {tensors[0].shape}")
    place %= tensors[0].ndim + 1
    rows = [t.reshape(*t.shape[:place], 1, *t.shape[place:]) for t in tensors]
    return rows[0].concatenate(*rows[1:], axis=place)


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product: (..., m, k) @ (..., k, n). A vector on the left is a row, on the right a column."""
    a, b = (t if isinstance(t, Tensor) else Tensor(t) for t in (a, b))
    if not (a.ndim and b.ndim) or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul found shapes {a.shape} and {b.shape}; expected (..., m, k) and (..., k, n)")
    if a.ndim > 1 and b.ndim > 1:
        return apply("matmul", a, b, **({"tf32": True} if tf32.setting.get() and a.device == "cuda" else {}))
    product = matmul(a.reshape(1, -1) if a.ndim == 1 else a, b.reshape(-1, 1) if b.ndim == 1 else b)
    # without the axes of length 1 that were added
    return product[(..., *[0] * (a.ndim == 1), *[slice(None) if b.ndim > 1 else 0])]


# ---- running an operation --------------------------------------------------------------------------------------------


def apply(name: str, *inputs: Any, **attributes: Any) -> Any:
    """Run a row of the table on tensors, arrays or numbers; returns a Tensor, or a tuple of them for several outputs.

    The row's kernel runs if the device has one that takes these inputs; otherwise the row's twin or its value.
    """
    row = TABLE.get(name) if isinstance(name, str) else None
    if row is None:
        raise ValueError(f"there is no operation {name!r}; there are {', '.join(TABLE)}")
    tensors, xp = _ready(row, inputs)
    call = kernel_of(row, xp) if fused.setting.get() else None
    if call is not None and not _served(row, tensors, xp, attributes):
        call = None
    if call is None and row.twin is not None:
        return row.twin(*tensors, **attributes)
    call, tape = call or row.value, recording()
    if call is None:
        raise TypeError(f"{name} has neither value nor twin; expected one of them in its row")
    if tape is not None:
        _belong(row, tensors, tape)
    arrays = [tensor.data for tensor in tensors]
    if row.writes:
        call(xp, *arrays, **attributes)
        Launch(row, call, xp, tensors, [], attributes)
        return None
    try:
        result = call(xp, *arrays, **({} if row.view else {"out": None}), **attributes)
    except TypeError as fault:
        if fault.__traceback__ is not None and fault.__traceback__.tb_next is not None:
            raise  # from inside the operation
        said = ", ".join(f"{key}={value!r}" for key, value in attributes.items()) or "none"
        raise TypeError(f"found the attributes {said} for {name}; expected others: {str(fault).partition('() ')[2]}"
                        ) from None
    except ValueError as fault:  # NumPy names shapes but not the operation
        shapes = " and ".join(str(tensor.shape) for tensor in tensors)
        raise ValueError(f"{name} cannot combine shapes {shapes}: {fault}") from None
    outputs = list(result) if row.outputs != 1 else [xp.asarray(result)]
    requires = any(tensor.requires_grad and row.flows(i) for i, tensor in enumerate(tensors))
    if not requires and tape is None:
        made = tuple(Tensor(array) for array in outputs)
    else:
        launch = Launch(row, call, xp, tensors, outputs, attributes)
        made = tuple(Tensor(array, requires and array.dtype in FLOATS, launch, i) for i, array in enumerate(outputs))
    return made[0] if row.outputs == 1 else made


def _ready(row: Rule, inputs: Sequence[Any]) -> tuple[list[Tensor], Namespace]:
    """The inputs as tensors of one device and one floating type. Python numbers take the type of the others."""
    if not isinstance(row.domain, Interval) and len(inputs) != len(row.domain):
        raise TypeError(f"{row.name} found {len(inputs)} inputs; expected {len(row.domain)}")
    tensors: list[Any] = []
    xp, kind = None, None
    for i, value in enumerate(inputs):
        if isinstance(value, (int, float, list, tuple, np.integer, np.floating)):
            tensors.append(value)
            continue
        tensors.append(tensor := value if isinstance(value, Tensor) else Tensor(value))
        here = namespace_of(tensor.data)
        if xp is None:
            xp = here
        elif here is not xp:
            raise DeviceError(f"{row.name} found one input on {xp.device} and one on {here.device}; nothing moves by "
                              f"itself: make both on one device with device={xp.device!r}")
        if row.domain_of(i).kind == "flag" and tensor.dtype != bool:
            raise TypeError(f"{row.name} found {tensor.dtype}; expected truth values: compare first, as in a > 0")
        if row.domain_of(i).kind != "number":
            continue
        if tensor.dtype not in FLOATS:
            raise TypeError(f"{row.name} found numbers of type {tensor.dtype}; expected float32 or float64: convert "
                            "the array with .astype(numpy.float32) first")
        if kind is None:
            kind = tensor.dtype
        elif tensor.dtype != kind:
            raise TypeError(f"{row.name} found {kind} and {tensor.dtype}; nothing is converted silently: give both "
                            "inputs one type with .astype")
    xp = xp or CPU
    for i, value in enumerate(tensors):
        if not isinstance(value, Tensor):
            dtype = kind or np.dtype(np.float64) if row.domain_of(i).kind == "number" else None
            tensors[i] = Tensor(as_array(value, dtype, xp))
    return tensors, xp


def _served(row: Rule, tensors: Sequence[Tensor], xp: Namespace, attributes: dict[str, Any]) -> bool:
    """Can the kernel serve these inputs, and is no derivative asked for that only the twin has?"""
    return (not any(tensors[i].requires_grad for i in row.constants)
            and serves(row, xp, [tensor.data for tensor in tensors], attributes))


def _belong(row: Rule, tensors: Sequence[Tensor], tape: Any) -> None:
    """TapeError for an input that depends on a parameter and that no replay of this tape would compute again."""
    for tensor in tensors:
        if tensor.requires_grad and tensor.launch is not None and tensor.launch.tape != tape.number:
            raise TapeError(f"{row.name} was given the result of {tensor.launch}, which depends on a parameter but was "
                            "made outside this tape: a replay would not renew it; compute it inside the `with` block")


Tensor.run, Tensor.stacked = staticmethod(apply), staticmethod(stack)

# ---- derivatives -----------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")  # an infinite derivative is a value; NumPy need not warn
def grad(output: Tensor, wanted: Any, seed: Any = None) -> Any:
    """Derivatives of the scalar `output` by each tensor of `wanted`, as tensors of the same shapes.

    The results are differentiable themselves. A tensor that `output` does not depend on gets zeros. `seed` (same
    shape as `output`) asks for the derivatives of sum(seed * output) instead. One tensor gives one result, a list
    gives a list.
    """
    if isinstance(wanted, Tensor):
        return grad(output, [wanted], seed)[0]
    for tensor in (output, *(wanted if isinstance(wanted, Iterable) else [wanted])):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"grad found {tensor!r:.60} of type {type(tensor).__name__}; expected a tensor and those "
                            "that derivatives are taken by: tinyvae.grad(loss, [a, b])")
    xp = namespace_of(output.data)
    if seed is None and output.size != 1:
        maker = output.launch  # of the numbers: a product with a vector, for one, ends with a slice
        while maker is not None and maker.rule.view and maker.inputs[0].launch is not None:
            maker = maker.inputs[0].launch
        made = f"made by {maker.rule.name}" if maker else "a leaf"
        raise ValueError(f"derivatives start from a single number; found shape {output.shape}, {made}: reduce it with "
                         ".sum() or .mean(), or pass seed=")
    for tensor in wanted:
        if not tensor.requires_grad:
            raise ValueError(f"a derivative by {tensor.name or 'a tensor'} of shape {tensor.shape} was asked for, but "
                             "it was made without requires_grad=True")
    start = Tensor(xp.ones_like(output.data)) if seed is None else seed if isinstance(seed, Tensor) else Tensor(seed)
    if start.shape != output.shape:
        raise ValueError(f"the seed has shape {start.shape}; expected that of the output, {output.shape}")
    found, results, taken = walk(output, wanted, start), [], {id(start)}
    for tensor in wanted:
        g = found[key(tensor)] if key(tensor) in found else Tensor(xp.zeros_like(tensor.data))
        # a row may return the gradient that it was given, or a view of it; each result gets memory of its own
        results.append(apply("copy", g) if id(g) in taken or g.data.base is not None else g)
        taken.add(id(g))
    return results
