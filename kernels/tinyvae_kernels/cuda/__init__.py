"""The kernels for CuPy arrays, in CUDA C (cuda/*.cu): the launchers that `tinyvae_kernels.NAMES` lists.

The same calls as the CPU's: arrays are C-contiguous and of one floating type, a launcher allocates its results when
`out` is None and otherwise writes into `out`, and `bind` gives the same launches as a call without arguments. Whole
numbers, clocks and sums live on the device like everything else, so a bound step moves nothing between host and device.

"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tinyvae_kernels import launching
from tinyvae_kernels.cuda.runtime import launches
from tinyvae_kernels.cuda.runtime.cublas import layout
from tinyvae_kernels.cuda.runtime.launches import Launch, Product, Program

Array = Any
THREADS = 256  # of a block
BLOCKS = 2048  # at most, for loops over everything by everyone: a few for each multiprocessor of any card
ROWS = 128  # that a block sums for a bias gradient, at least, and such sums at most: the order depends on shapes only
FEW = 4096  # rows of pixels: fewer get a block each, for by warps they would leave most of a card idle
SQUARES = 4096  # numbers whose squares a block sums; CHUNK in optimizers.cu


Plan = tuple[Any, list[Any]]  # a result, and the launches that make it


class Launcher(launching.Launcher):
    """See launching.py."""

    program = Program


# ---- arguments -------------------------------------------------------------------------------------------------------


def _whole(value: int) -> np.int64:
    return np.int64(value)


def _count(value: int) -> np.uint32:
    if value >= 2**31:
        raise ValueError(f"found an array of {value:,} numbers; a kernel takes fewer than 2,147,483,648: use a smaller "
                         "batch")
    return np.uint32(value)


def _like(array: Array, shape: Any = None, dtype: Any = None) -> Array:
    """New memory beside an array."""
    library = sys.modules[type(array).__module__.partition(".")[0]]
    return library.empty(array.shape if shape is None else shape, array.dtype if dtype is None else dtype)


def _flat(*arrays: Array) -> tuple[Array, ...]:
    for array in arrays:
        if not array.flags.c_contiguous:
            raise ValueError(f"found an array of strides {array.strides}; a kernel needs unbroken (C-contiguous) "
                             "memory")
    return arrays


def _same(*arrays: Array) -> Any:
    """The one floating type of unbroken arrays."""
    for array in _flat(*arrays):
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"found {arrays[0].dtype} and {array.dtype}; a kernel's arrays are of one type")
    return arrays[0].dtype


def _rows(array: Array) -> tuple[int, int]:
    width = array.shape[-1]
    return (array.size // width if width else 0), width


def _aligned(*arrays: Array) -> np.bool_:
    """Do these arrays begin where pieces of 16 bytes may?"""
    begin = [a.data.ptr if hasattr(a.data, "ptr") else a.__array_interface__["data"][0] for a in arrays]
    return np.bool_(all(place % 16 == 0 for place in begin))


def _pieces(width: int, *arrays: Array) -> np.bool_:
    """Do all rows of `width` numbers consist of pieces of 16 bytes? With new memory that depends on shapes only."""
    return np.bool_(width * arrays[0].dtype.itemsize % 16 == 0 and _aligned(*arrays))


def _accesses(array: Array, pieces: np.bool_) -> int:
    """How often everyone together reads from an array."""
    return -(-int(_count(array.size)) // (16 // array.dtype.itemsize if pieces else 1))


def _columns(width: int, dtype: Any, pieces: np.bool_) -> int:
    """How many warps lie along a row."""
    return -(-width // (32 * (16 // dtype.itemsize if pieces else 1)))


def _spread(file: str, kernel: str, dtype: Any, count: int, *arguments: Any) -> list[Launch]:
    """A loop over `count` things by everyone; nothing for nothing."""
    grid = (min(BLOCKS, -(-count // THREADS)),)
    return [Launch(file, kernel, dtype, grid, (THREADS,), arguments)] if count else []


def _alone(file: str, kernel: str, dtype: Any, *arguments: Any) -> list[Launch]:
    """One block."""
    return [Launch(file, kernel, dtype, (1,), (THREADS,), arguments)]


# ---- matrix products -------------------------------------------------------------------------------------------------


def multiplies(a: Array, b: Array, tf32: bool = False) -> bool:
    """Are these two matrices of one type, each unbroken along rows or along columns, and is cuBLAS there?"""
    return a.dtype == b.dtype and None not in (layout(a), layout(b)) and launches.driver.blas is not None


@Launcher
def matmul(a: Array, b: Array, out: Array | None, tf32: bool = False) -> Plan:
    """a (m, k) @ b (k, n) as (m, n); with `tf32` the factors' numbers are rounded to 11 bits (float32 only)."""
    if not multiplies(a, b) or a.shape[1] != b.shape[0]:
        raise ValueError(f"found factors {a.shape} of strides {a.strides} and {b.shape} of {b.strides}; expected "
                         "(m, k) and (k, n), each unbroken along rows or columns")
    out = _like(a, (a.shape[0], b.shape[1])) if out is None else out
    if _flat(out)[0].shape != (a.shape[0], b.shape[1]):
        raise ValueError(f"found a result of shape {out.shape}; expected {(a.shape[0], b.shape[1])}")
    return out, [Product(a, b, out, tf32)]


def pays(x: Array, w: Array) -> bool:
    """Leaving out the zeros of data does not pay beside a card's dense products."""
    return False


# ---- a layer's bias and activation -----------------------------------------------------------------------------------

_NAMES = {"identity": "identity", "relu": "relu", "tanh": "hyperbolic", "softplus": "softplus"}


def activates(*arrays: Array, kind: str) -> bool:
    """Is there a kernel of this activation?"""
    return kind in _NAMES


@Launcher
def bias_activation(pre: Array, bias: Array, out: Array | None, kind: str) -> Plan:
    """activation(pre + bias): pre (..., n), bias (n,), result as pre."""
    out = _like(pre) if out is None else out
    dtype, (rows, width) = _same(pre, bias, out), _rows(pre)
    pieces = _pieces(width, pre, bias, out)
    columns = _columns(width, dtype, pieces)
    grid = (columns, min(-(-rows // 8), max(1, BLOCKS // max(1, columns))))
    arguments = (pre, bias, out, _whole(rows), np.int32(width), pieces)
    return out, [Launch("activations", _NAMES[kind], dtype, grid, (32, 8), arguments)] if pre.size else []


def _sum_columns(kernel: str, first: tuple[Array, ...], bias: Array, like: Array) -> list[Launch]:
    (rows, width), dtype = _rows(like), _same(*first, bias)
    chunk = max(ROWS, -(-rows // ROWS))
    chunks = max(1, -(-rows // chunk))
    sums = bias if chunks == 1 else _like(bias, (chunks, width))
    pieces = _pieces(width, *first, sums)
    arguments = (*first, sums, _whole(rows), np.int32(width), np.int32(chunk), pieces)
    grid = (_columns(width, dtype, pieces), chunks)
    launches = [Launch("activations", kernel, dtype, grid, (32, 8), arguments)]
    return launches if chunks == 1 else launches + _sum_columns("column_sums", (sums,), bias, sums)


@Launcher
def bias_activation_grad(g: Array, y: Array, out: tuple[Array, Array] | None, kind: str) -> Plan:
    """From the gradient g by the activation y: those by pre (as y) and by bias (n,)."""
    before, bias = out if out is not None else (_like(y), _like(y, y.shape[-1:]))
    return (before, bias), _sum_columns(f"{_NAMES[kind]}_grad", (g, y, before), bias, y)


@Launcher
def bias_grad(g: Array, out: Array | None) -> Plan:
    """The gradient by a bias, (n,): the sum of g (..., n) over all rows."""
    out = _like(g, g.shape[-1:]) if out is None else out
    return out, _sum_columns("column_sums", (g,), out, g)


# ---- the sampled posterior -------------------------------------------------------------------------------------------


@Launcher
def gaussian_sample_kl(raw: Array, eps: Array, out: tuple[Array, Array] | None) -> Plan:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(0, 1)), (batch,)."""
    z, kl = out if out is not None else (_like(eps), _like(raw, raw.shape[:1]))
    dtype, (samples, batch, latent) = _same(raw, eps, z, kl), eps.shape
    _count(2 * eps.size)
    arguments = (raw, eps, z, kl, np.int32(samples), _count(batch), np.int32(latent))
    return (z, kl), [Launch("posterior", "sample_kl", dtype, (-(-batch // 8),), (THREADS,), arguments)] if batch else []


@Launcher
def gaussian_sample_kl_grad(dz: Array, dkl: Array, raw: Array, eps: Array, out: Array | None) -> Plan:
    """The gradient by `raw`, from those by z and by KL."""
    out = _like(raw) if out is None else out
    dtype, (samples, batch, latent) = _same(dz, dkl, raw, eps, out), eps.shape
    _count(2 * eps.size)
    arguments = (dz, dkl, raw, eps, out, np.int32(samples), _count(batch), _count(latent))
    return out, _spread("posterior", "sample_kl_grad", dtype, batch * latent, *arguments)


# ---- likelihoods -----------------------------------------------------------------------------------------------------


def _likelihood(kernel: str, parameters: Array, x: Array, out: Any) -> Plan:
    sums, residual = out if out is not None else (_like(parameters, parameters.shape[:-1]), _like(parameters))
    dtype = _same(parameters, x, sums, residual)
    rows, width = sums.size, x.shape[-1]
    pieces = _pieces(width, parameters, x, residual)
    arguments = (parameters, x, sums, residual, _count(rows), np.int32(width), _count(len(x)), pieces)
    grid, block = ((rows,), (THREADS,)) if rows < FEW else ((-(-rows // 8),), (32, 8))
    launches = [Launch("likelihoods", kernel, dtype, grid, block, arguments)] if rows else []
    return (sums, residual), launches


@Launcher
def bernoulli_log_prob(logits: Array, x: Array, out: tuple[Array, Array] | None) -> Plan:
    """log p(x) of each row under Bernoulli pixels, (..., batch), and its derivative by the logits, x - sigmoid."""
    return _likelihood("bernoulli", logits, x, out)


@Launcher
def gaussian_log_prob(raw: Array, x: Array, out: tuple[Array, Array] | None) -> Plan:
    """log p(x) of each row under N(sigmoid(a), exp(logvar)) pixels, and its derivative by raw = (a, logvar)."""
    return _likelihood("gaussian", raw, x, out)


@Launcher
def scale_rows(g: Array, a: Array, out: Array | None) -> Plan:
    """g[..., None] * a."""
    out = _like(a) if out is None else out
    dtype, (rows, width) = _same(g, a, out), _rows(a)
    pieces = _pieces(width, a, out)
    arguments = (g, a, out, _count(rows), _count(width), pieces)
    return out, _spread("likelihoods", "scale_rows", dtype, _accesses(a, pieces), *arguments)


# ---- noise and pixels ------------------------------------------------------------------------------------------------


@Launcher
def normal(counters: Array, out: Array, seed: int, stream: int, site: int) -> Plan:
    """Standard normal numbers of the address (seed, stream, counters[0], site) into `out`."""
    arguments = (counters, out, _count(out.size), np.uint32(seed), np.uint32(stream), np.uint32(site))
    return out, _spread("noise", "normal", _same(out), -(-out.size // 4), *arguments)


def _stored(stored: Array) -> str:
    return {"uint8": "bytes", "float32": "floats"}[stored.dtype.name]


@Launcher
def binarised_rows(stored: Array, index: Array, counters: Array, out: Array, seed: int, stream: int, site: int,
                   scale: float) -> Plan:
    """The rows `index` of the stored grey images, each pixel drawn 0 or 1 at its grey value; out (batch, pixels)."""
    dtype, (rows, width) = _same(out), out.shape
    arguments = (*_flat(stored, index, counters, out), _count(rows), _count(width), dtype.type(scale), np.uint32(seed),
                 np.uint32(stream), np.uint32(site))
    return out, _spread("noise", f"binarise_{_stored(stored)}", dtype, -(-int(_count(out.size)) // 4), *arguments)


@Launcher
def grey_rows(stored: Array, index: Array, out: Array, scale: float) -> Plan:
    """The rows `index` of the stored images over `scale`; out (batch, pixels)."""
    dtype, (rows, width) = _same(out), out.shape
    arguments = (*_flat(stored, index, out), _count(rows), _count(width), dtype.type(scale))
    return out, _spread("noise", f"grey_{_stored(stored)}", dtype, int(_count(out.size)), *arguments)


# ---- optimizers ------------------------------------------------------------------------------------------------------


@Launcher
def guard(loss: Array, g: Array, status: Array, max_norm: float, places: Any = ()) -> Plan:
    """Into `status`: the norm of g, the factor that clips it, if it and the loss are finite; counts sound steps."""
    dtype, chunks = _same(loss, g), -(-g.size // SQUARES)
    sums = _like(status, (chunks,))
    return None, [Launch("optimizers", "squares", dtype, (chunks,), (THREADS,),
                         (g, sums, _whole(g.size), _aligned(g))),
                  *_alone("optimizers", "verdict", dtype, loss, sums, status, _whole(chunks), np.float64(max_norm))]


@Launcher
def weight_prior(g: Array, theta: Array, factor: float) -> Plan:
    """g += factor * theta, in place."""
    dtype, aligned = _same(g, theta), _aligned(g, theta)
    arguments = (g, theta, dtype.type(factor), _count(g.size), aligned)
    return None, _spread("optimizers", "add_scaled", dtype, _accesses(g, aligned), *arguments)


def _update(kernel: str, vectors: tuple[Array, ...], status: Array, *last: Any) -> Plan:
    dtype, aligned = _same(*vectors), _aligned(*vectors[:-1])  # the last are the rates
    arguments = (*vectors, status, _count(vectors[0].size), *last, aligned)
    return None, _spread("optimizers", kernel, dtype, _accesses(vectors[0], aligned), *arguments)


@Launcher
def adam(theta: Array, g: Array, m: Array, v: Array, rates: Array, status: Array, beta1: float, beta2: float,
         epsilon: float, places: Any = ()) -> Plan:
    """One step of Adam in place, with the learning rate rates[0], if `status` says that the step is sound."""
    hyper = map(np.float64, (beta1, beta2, epsilon))
    return _update("adam", (theta, g, m, v, rates), status, *hyper)


@Launcher
def adagrad(theta: Array, g: Array, total: Array, rates: Array, status: Array, epsilon: float,
            places: Any = ()) -> Plan:
    """One step of Adagrad in place."""
    return _update("adagrad", (theta, g, total, rates), status, np.float64(epsilon))


@Launcher
def sgd(theta: Array, g: Array, velocity: Array, rates: Array, status: Array, momentum: float,
        places: Any = ()) -> Plan:
    """One step of gradient descent with momentum, in place."""
    return _update("sgd", (theta, g, velocity, rates), status, np.float64(momentum))


# ---- the small work of a step ----------------------------------------------------------------------------------------

ANY_TYPE = np.float32  # for kernels that touch no numbers of the floating type


@Launcher
def next_indices(order: Array, counters: Array, out: Array | None, batch: int) -> Plan:
    """The `batch` indices of `order` from the counters' cursor on."""
    out = _like(order, (batch,)) if out is None else out
    arguments = (*_flat(order, counters, out), _whole(order.size), np.int32(batch))
    return out, _alone("steps", "next_indices", ANY_TYPE, *arguments)


@Launcher
def next_rates(plan: Array, counters: Array, out: Array | None) -> Plan:
    """The row of `plan` (batches, rates) for the counters' batch."""
    out = _like(plan, plan.shape[1:]) if out is None else out
    return out, _alone("steps", "next_rates", _same(plan, out), plan, counters, out, *map(np.int32, plan.shape))


@Launcher
def objective(reconstruction: Array, kl: Array, rates: Array, out: Array | None) -> Plan:
    """weight * mean(kl) - mean(reconstruction), one number; the weight is rates[1]."""
    out = _like(kl, ()) if out is None else out
    arrays = (reconstruction, kl, rates, out)
    return out, _alone("steps", "objective", _same(*arrays), *arrays, _whole(kl.size))


@Launcher
def objective_grad(g: Array, kl: Array, rates: Array, out: tuple[Array, Array] | None) -> Plan:
    """The gradients of the objective by reconstruction and kl, each (batch,)."""
    both = out if out is not None else (_like(kl), _like(kl))
    arrays = (g, rates, *both)
    return both, _spread("steps", "objective_grad", _same(*arrays), kl.size, *arrays, _count(kl.size))


@Launcher
def accumulate(reconstruction: Array, kl: Array, loss: Array, totals: Array, status: Array) -> Plan:
    """Add a batch to the sums over the epoch, or count it as skipped."""
    arrays = (reconstruction, kl, loss)
    return None, _alone("steps", "accumulate", _same(*arrays), *arrays, totals, status, _whole(kl.size))


@Launcher
def tick(counters: Array, batch: int) -> Plan:
    """Move the counters past a batch."""
    return None, _alone("steps", "tick", ANY_TYPE, counters, np.int32(batch))
