"""What Python and NumPy ask of a tensor: its length, truth and number, its text, a copy, and their own functions.

A function of NumPy's that has a counterpart here runs it: `np.exp(x)` is `x.exp()`, and keeps the gradient. Any other
function gets the values of the tensors. It may answer what has no gradient to lose, such as a shape, a truth value or
an index. Where its answer is made of real numbers and a tensor has a gradient, the function is refused by its name,
because `tinyvae.grad` would take the answer for a constant.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# NumPy's operators and the tensor's; `array + tensor` calls NumPy's, which arrives here, too.
OPERATORS = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "truediv", "power": "pow",
             "matmul": "matmul"}  # fmt: skip
RENAMED = {"absolute": "abs", "negative": "neg", "gammaln": "lgamma"}  # ufuncs with another name than the operation


def _dot(a: Any, b: Any) -> Any:
    if not np.ndim(a) or not np.ndim(b):
        return np.multiply(a, b)
    return np.matmul(a, b) if np.ndim(b) <= 2 else NotImplemented  # else it sums over another axis than matmul


def _clipped(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    a = a if a_min is None else np.maximum(a, a_min)
    return a if a_max is None else np.minimum(a, a_max)


# The functions with a counterpart, by name, with the parameters that the counterpart knows; a call with others is
# treated like that of a function without one.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dot": _dot, "clip": _clipped,
    "concatenate": lambda arrays, axis=0: _first(arrays).joined(arrays, axis),
    "stack": lambda arrays, axis=0: _first(arrays).stacked(arrays, axis),
    "where": lambda condition, x, y: _first((condition, x, y)).run("where", condition, x, y),
    "reshape": lambda a, shape: a.reshape(shape),
    "transpose": lambda a, axes=None: a.transpose(axes),
    "broadcast_to": lambda array, shape: array.broadcast_to(shape),
    "sum": lambda a, axis=None, keepdims=False: a.sum(axis, keepdims),
    "mean": lambda a, axis=None, keepdims=False: a.mean(axis, keepdims),
    "max": lambda a, axis=None, keepdims=False: a.max(axis, keepdims),
    # These need no values, and what they give has no gradient.
    "shape": lambda a: a.shape, "ndim": lambda a: a.ndim, "size": lambda a: a.size,
    "zeros_like": lambda a: np.zeros(a.shape, a.dtype), "ones_like": lambda a: np.ones(a.shape, a.dtype),
    "empty_like": lambda a: np.empty(a.shape, a.dtype),
    "full_like": lambda a, fill_value: np.full(a.shape, fill_value, a.dtype),
}


class Protocols:
    """The part of a tensor that Python and NumPy call by themselves; `Tensor` has the rest."""

    __slots__ = ()
    shape: Any
    ndim: Any
    size: Any
    launch: Any
    requires_grad: bool
    run: Callable[..., Any]  # an operation by its name, as `tinyvae.apply`
    joined: Callable[..., Any]  # tensors of a list, side by side along an axis
    stacked: Callable[..., Any]  # as `tinyvae.stack`
    numpy: Callable[[], np.ndarray]

    # ---- as a sequence -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("found len() of a tensor with a single number, of shape (); expected one with an axis")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("found a loop over a tensor with a single number, of shape (); expected one with an axis")
        return (self[i] for i in range(len(self)))  # type: ignore[index]

    def __contains__(self, value: Any) -> bool:
        return bool((self.numpy() == np.asarray(value)).any())

    # ---- as a number -------------------------------------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        if self.size != 1:
            raise ValueError(f"found a tensor of shape {self.shape} in place of one number; reduce it first, as by "
                             ".sum() or .mean(), or take all values with .numpy()")
        return self.numpy().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.item(), digits)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"found a tensor of shape {self.shape} where one truth value is asked for; expected one "
                             "element: take (...).numpy().all() or .any(), and flag.where(a, b) in place of an if")
        return bool(self.item())

    # ---- as text -----------------------------------------------------------------------------------------------------

    def __format__(self, how: str) -> str:
        return format(self.item(), how) if how else str(self)

    # ---- as a copy ---------------------------------------------------------------------------------------------------

    def __copy__(self) -> Any:
        return self  # nothing changes a tensor

    def __getstate__(self) -> Any:
        """For `pickle` and `copy.deepcopy`: the values, without the launch that made them."""
        if self.launch is not None and self.requires_grad:
            raise TypeError(f"found a copy of the result of {self.launch}, which has a gradient that reaches into the "
                            "operations before it; expected a tensor of its own: copy .detach() or .numpy()")
        state: Any = object.__getstate__(self)
        return state[0], state[1] | {"launch": None}

    # ---- NumPy's functions -------------------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__
        if method != "__call__":
            return _of_values(f"{name}.{method}", getattr(ufunc, method), inputs, options)
        if options:
            return _of_values(name, ufunc, inputs, options)
        if name in OPERATORS:
            a, b = inputs
            dunder = OPERATORS[name]
            return getattr(a, f"__{dunder}__")(b) if isinstance(a, Protocols) else getattr(b, f"__r{dunder}__")(a)
        name = RENAMED.get(name, name)
        if not hasattr(self, name):
            return _of_values(name, ufunc, inputs, options)
        if isinstance(inputs[0], Protocols):  # by the method, because a tensor may keep its logarithm
            return getattr(inputs[0], name)(*inputs[1:])
        return self.run(name, *inputs)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        name = f"{function.__module__.removeprefix('numpy').removeprefix('.')}.{function.__name__}".removeprefix(".")
        ours = FUNCTIONS.get(name)
        answer = ours(*arguments, **options) if ours and _takes(ours, arguments, options) else NotImplemented
        return _of_values(name, function, arguments, options) if answer is NotImplemented else answer


def _first(values: Any) -> Any:
    return next(value for value in values if isinstance(value, Protocols))


def _takes(function: Callable[..., Any], arguments: Any, options: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError:
        return False
    return True


def _of_values(name: str, function: Callable[..., Any], arguments: Any, options: Any) -> Any:
    """What a function gives for the values of the tensors; TypeError where that loses a gradient."""
    tensors: list[Any] = []

    def gathered(value: Any) -> None:
        if isinstance(value, Protocols):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            any(map(gathered, value))

    def plain(value: Any) -> Any:
        if isinstance(value, Protocols):
            return value.numpy()
        return type(value)(map(plain, value)) if isinstance(value, (list, tuple)) else value

    gathered([*arguments, *options.values()])
    loses, answer = any(tensor.requires_grad for tensor in tensors), None
    try:
        if not (loses and "out" in options):  # `out` is an array without a gradient
            answer = function(*map(plain, arguments), **{key: plain(value) for key, value in options.items()})
            loses = loses and _has_numbers(answer)
    except RuntimeError:  # the values of recorded tensors are not known yet
        if not loses:
            raise
    if loses:
        raise TypeError(f"found np.{name} of a tensor with a gradient, which NumPy would lose; expected a tensor's own "
                        f"operations, such as +, @, .sum() and .exp(), or the values alone: np.{name} of x.numpy()")
    return answer


def _has_numbers(answer: Any) -> bool:
    """Whether an answer is, or contains, real numbers."""
    if isinstance(answer, (list, tuple)):
        return any(map(_has_numbers, answer))
    return isinstance(answer, float) or getattr(getattr(answer, "dtype", None), "kind", "") in ("f", "c")
