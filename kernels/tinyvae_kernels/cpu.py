"""CPU kernels in Numba: each makes one pass over its arrays where the readable twin makes several.

Conventions. Arrays are C-contiguous and of one floating type, float32 or float64; a launcher refuses others. A
launcher allocates its results when `out` is None and otherwise writes into `out`. Every kernel is serial, so its
bits do not depend on the number of threads.

Numba's own exp, log1p and tanh are scalar calls; the ones below are arithmetic that LLVM vectorises. Three rules,
each measured: `error_model="numpy"` on kernels and helpers (a zero check would block vectorisation), helpers are
functions of their own (so that a kernel's flags do not loosen their arithmetic), and every constant has the type
of the data (a plain 0.5 is float64 and would widen float32).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

Array = np.ndarray
HELPER: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
SUM = {"contract", "nsz", "reassoc"}  # a row's sum may be formed in vector lanes; no flag here assumes away NaN


def kernel(fastmath: set[str] = HELPER["fastmath"]) -> Callable[[Callable], Any]:
    """Compile at first use, and keep the machine code on disk where a folder for it can be written."""

    def compiled(function: Callable) -> Any:
        options: dict[str, Any] = {"error_model": "numpy", "fastmath": fastmath, "nogil": True}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # a read-only installation and no home: nowhere to keep a cache
            return njit(**options)(function)

    return compiled


# ---- elementary functions --------------------------------------------------------------------------------------------


def _bitcast(source: Any, target: Any) -> Any:
    @intrinsic
    def cast(typing: Any, i: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), generate

    return cast


_as_float32 = _bitcast(types.int32, types.float32)
_as_float64 = _bitcast(types.int64, types.float64)


@njit(**HELPER)
def _exp32(x: Any) -> Any:
    # exp(x) = 2**n exp(r), |r| <= log(2) / 2; log(2) in two parts; the polynomial is Cephes' expf. 2**n is applied
    # in two halves, so that it overflows to inf and underflows to 0 by itself; outside [-104, 89] nothing changes
    f = np.float32
    y = f(-104.0) if x < f(-104.0) else (f(89.0) if x > f(89.0) else x)
    n = np.floor(y * f(1.44269504088896341) + f(0.5))
    r = (y - n * f(0.693359375)) - n * f(-2.12194440e-4)
    p = f(1.9875691500e-4)
    p = p * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    k = np.int32(n)
    half = k >> np.int32(1)
    first = _as_float32((half + np.int32(127)) << np.int32(23))
    return (p * (r * r) + r + f(1.0)) * first * _as_float32((k - half + np.int32(127)) << np.int32(23))


@njit(**HELPER)
def _exp64(x: Any) -> Any:
    # as above, with Cephes' rational function exp(r) = 1 + 2 r P(r^2) / (Q(r^2) - r P(r^2))
    y = -746.0 if x < -746.0 else (710.0 if x > 710.0 else x)
    n = np.floor(y * 1.4426950408889634073599 + 0.5)
    r = (y - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6
    z = r * r
    p = r * ((1.26177193074810590878e-4 * z + 3.02994407707441961300e-2) * z + 9.99999999999999999910e-1)
    q = ((3.00198505138664455042e-6 * z + 2.52448340349684104192e-3) * z + 2.27265548208155028766e-1) * z + 2.0
    k = np.int64(n)
    half = k >> np.int64(1)
    first = _as_float64((half + np.int64(1023)) << np.int64(52))
    return (1.0 + 2.0 * (p / (q - p))) * first * _as_float64((k - half + np.int64(1023)) << np.int64(52))


@njit(**HELPER)
def _log1p32(e: Any) -> Any:
    # for 0 <= e <= 1: log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3, by the series s + s^3/3 + s^5/5 + ...
    f = np.float32
    s = e / (f(2.0) + e)
    z = s * s
    p = f(1 / 15)
    p = p * z + f(1 / 13)
    p = p * z + f(1 / 11)
    p = p * z + f(1 / 9)
    p = p * z + f(1 / 7)
    p = p * z + f(1 / 5)
    p = p * z + f(1 / 3)
    return f(2.0) * (s + s * z * p)


@njit(**HELPER)
def _log1p64(e: Any) -> Any:
    s = e / (2.0 + e)
    z = s * s
    p = 1 / 33
    p = p * z + 1 / 31
    p = p * z + 1 / 29
    p = p * z + 1 / 27
    p = p * z + 1 / 25
    p = p * z + 1 / 23
    p = p * z + 1 / 21
    p = p * z + 1 / 19
    p = p * z + 1 / 17
    p = p * z + 1 / 15
    p = p * z + 1 / 13
    p = p * z + 1 / 11
    p = p * z + 1 / 9
    p = p * z + 1 / 7
    p = p * z + 1 / 5
    p = p * z + 1 / 3
    return 2.0 * (s + s * z * p)


@njit(**HELPER)
def _tanh32(x: Any) -> Any:
    # near 0 an odd polynomial (Cephes' tanhf); else 1 - 2 / (exp(2 |x|) + 1) with the sign of x
    f = np.float32
    a = abs(x)
    z = x * x
    p = f(-5.70498872745e-3)
    p = p * z + f(2.06390887954e-2)
    p = p * z + f(-5.37397155531e-2)
    p = p * z + f(1.33314422036e-1)
    p = p * z + f(-3.33332819422e-1)
    near = p * z * x + x
    far = f(1.0) - f(2.0) / (_exp32(a + a) + f(1.0))
    return near if a < f(0.625) else (-far if x < f(0.0) else far)


@njit(**HELPER)
def _tanh64(x: Any) -> Any:
    # near 0 Cephes' rational function x + x z P(z) / Q(z), z = x^2
    a = abs(x)
    z = x * x
    p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z - 1.61468768441708447952e3
    q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3
    near = x + x * z * (p / q)
    far = 1.0 - 2.0 / (_exp64(a + a) + 1.0)
    return near if a < 0.625 else (-far if x < 0.0 else far)


def _for_both_types(name: str, single: Any, double: Any) -> Any:
    """One name for kernels of both types; which helper it means is decided when a kernel is compiled."""

    def stub(x):  # type: ignore[no-untyped-def]
        raise TypeError(f"{name} is for compiled kernels only")

    # (lambdas, because Numba wants the signatures of both functions equal, annotations included)
    overload(stub, jit_options=HELPER)(  # type: ignore[arg-type]
        lambda x: (lambda x: single(x)) if x == types.float32 else (lambda x: double(x))
    )
    return stub


exp = _for_both_types("exp", _exp32, _exp64)
log1p = _for_both_types("log1p", _log1p32, _log1p64)
tanh = _for_both_types("tanh", _tanh32, _tanh64)


# ---- bias and activation ---------------------------------------------------------------------------------------------


@kernel()
def _identity(pre: Array, bias: Array, out: Array) -> None:
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            out[i, j] = pre[i, j] + bias[j]


@kernel()
def _tanh(pre: Array, bias: Array, out: Array) -> None:
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            out[i, j] = tanh(pre[i, j] + bias[j])


@kernel()
def _relu(pre: Array, bias: Array, out: Array) -> None:
    zero = pre.dtype.type(0)
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            a = pre[i, j] + bias[j]
            out[i, j] = zero if a < zero else a  # a NaN is not below zero, and stays


@kernel()
def _softplus(pre: Array, bias: Array, out: Array) -> None:
    zero = pre.dtype.type(0)
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            a = pre[i, j] + bias[j]
            out[i, j] = (zero if a < zero else a) + log1p(exp(-abs(a)))


@kernel()
def _tanh_grad(g: Array, y: Array, out: Array, bias: Array) -> None:
    one = y.dtype.type(1)
    bias[:] = 0
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            d = g[i, j] * (one - y[i, j] * y[i, j])
            out[i, j] = d
            bias[j] += d


@kernel()
def _relu_grad(g: Array, y: Array, out: Array, bias: Array) -> None:
    zero = y.dtype.type(0)
    bias[:] = 0
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            d = g[i, j] if y[i, j] > zero else zero
            out[i, j] = d
            bias[j] += d


@kernel()
def _softplus_grad(g: Array, y: Array, out: Array, bias: Array) -> None:
    # y = log(1 + exp(a)) has the slope sigmoid(a) = 1 - exp(-y); for small y, where digits would cancel, the series
    one, half, small = y.dtype.type(1), y.dtype.type(0.5), y.dtype.type(1e-3)
    sixth, part = y.dtype.type(1 / 6), y.dtype.type(1 / 24)
    bias[:] = 0
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            v = y[i, j]
            series = v * (one - v * (half - v * (sixth - v * part)))
            d = g[i, j] * (series if v < small else one - exp(-v))
            out[i, j] = d
            bias[j] += d


@kernel()
def _column_sums(g: Array, bias: Array) -> None:
    bias[:] = 0
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            bias[j] += g[i, j]


_FORWARD = {"identity": _identity, "tanh": _tanh, "relu": _relu, "softplus": _softplus}
_BACKWARD = {"tanh": _tanh_grad, "relu": _relu_grad, "softplus": _softplus_grad}


def bias_activation(pre: Array, bias: Array, out: Array | None, kind: str) -> Array:
    """activation(pre + bias): pre (..., n), bias (n,), result as pre."""
    out = np.empty_like(pre) if out is None else out
    _FORWARD[kind](_rows(pre), bias, _rows(out))
    return out


def bias_activation_grad(g: Array, y: Array, out: tuple[Array, Array] | None, kind: str) -> tuple[Array, Array]:
    """From the gradient g by the activation y: those by pre (as y) and by bias (n,)."""
    before, bias = out if out is not None else (np.empty_like(y), np.empty(y.shape[-1], y.dtype))
    _BACKWARD[kind](_rows(g), _rows(y), _rows(before), bias)
    return before, bias


# ---- the sampled posterior -------------------------------------------------------------------------------------------


@kernel(SUM)
def _sample_kl(joint: Array, eps: Array, z: Array, kl: Array) -> None:
    half, one = joint.dtype.type(0.5), joint.dtype.type(1)
    width = eps.shape[2]
    for b in range(joint.shape[0]):
        total = joint.dtype.type(0)
        for j in range(width):
            mu, logvar = joint[b, j], joint[b, width + j]
            sigma = exp(half * logvar)
            total += mu * mu + sigma * sigma - one - logvar
            for sample in range(eps.shape[0]):
                z[sample, b, j] = mu + sigma * eps[sample, b, j]
        kl[b] = half * total


@kernel()
def _sample_kl_grad(dz: Array, dkl: Array, joint: Array, eps: Array, out: Array) -> None:
    half, one = joint.dtype.type(0.5), joint.dtype.type(1)
    width = eps.shape[2]
    for b in range(joint.shape[0]):
        for j in range(width):
            sigma = exp(half * joint[b, width + j])
            by_z, by_sigma = joint.dtype.type(0), joint.dtype.type(0)
            for sample in range(eps.shape[0]):
                by_z += dz[sample, b, j]
                by_sigma += dz[sample, b, j] * eps[sample, b, j]
            out[b, j] = by_z + dkl[b] * joint[b, j]
            out[b, width + j] = half * (by_sigma * sigma + dkl[b] * (sigma * sigma - one))


def gaussian_sample_kl(joint: Array, eps: Array, out: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(0, 1)), (batch,).

    `joint` (batch, 2 latent) holds mu and logvar = log sigma^2 side by side.
    """
    z, kl = out if out is not None else (np.empty_like(eps), np.empty(joint.shape[0], joint.dtype))
    _sample_kl(joint, eps, z, kl)
    return z, kl


def gaussian_sample_kl_grad(dz: Array, dkl: Array, joint: Array, eps: Array, out: Array | None) -> Array:
    """The gradient by `joint`, from those by z and by KL."""
    out = np.empty_like(joint) if out is None else out
    _sample_kl_grad(dz, dkl, joint, eps, out)
    return out


# ---- likelihoods -----------------------------------------------------------------------------------------------------


@kernel(SUM)
def _bernoulli(logits: Array, x: Array, total: Array, residual: Array) -> None:
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    repeats = logits.shape[0] // x.shape[0]
    for i in range(logits.shape[0]):
        k = i % x.shape[0] if repeats > 1 else i
        row = zero
        for j in range(logits.shape[1]):
            a = logits[i, j]
            e = exp(-abs(a))
            row += x[k, j] * a - ((zero if a < zero else a) + log1p(e))
            residual[i, j] = x[k, j] - (e if a < zero else one) / (one + e)
        total[i] = row


@kernel(SUM)
def _gaussian(joint: Array, x: Array, total: Array, residual: Array) -> None:
    zero, half, one = joint.dtype.type(0), joint.dtype.type(0.5), joint.dtype.type(1)
    log2pi = joint.dtype.type(1.8378770664093453)
    width = x.shape[1]
    repeats = joint.shape[0] // x.shape[0]
    for i in range(joint.shape[0]):
        k = i % x.shape[0] if repeats > 1 else i
        row = zero
        for j in range(width):
            a, logvar = joint[i, j], joint[i, width + j]
            e = exp(-abs(a))
            mean = (e if a < zero else one) / (one + e)
            slope = e / ((one + e) * (one + e))
            precision = exp(-logvar)
            d = x[k, j] - mean
            row += half * (-log2pi - logvar - d * d * precision)
            residual[i, j] = d * precision * slope
            residual[i, width + j] = half * (d * d * precision - one)
        total[i] = row


@kernel()
def _scale_rows(g: Array, a: Array, out: Array) -> None:
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = g[i] * a[i, j]


def bernoulli_log_prob(logits: Array, x: Array, out: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """log p(x) of each row under Bernoulli pixels, (..., batch), and its derivative by the logits, x - sigmoid."""
    total, residual = out if out is not None else (np.empty(logits.shape[:-1], logits.dtype), np.empty_like(logits))
    _bernoulli(_rows(logits), x, _flat(total), _rows(residual))
    return total, residual


def gaussian_log_prob(joint: Array, x: Array, out: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """log p(x) of each row under N(sigmoid(a), exp(logvar)) pixels, and its derivative by joint = (a, logvar)."""
    total, residual = out if out is not None else (np.empty(joint.shape[:-1], joint.dtype), np.empty_like(joint))
    _gaussian(_rows(joint), x, _flat(total), _rows(residual))
    return total, residual


def scale_rows(g: Array, a: Array, out: Array | None) -> Array:
    """g[..., None] * a."""
    out = np.empty_like(a) if out is None else out
    _scale_rows(_flat(g), _rows(a), _rows(out))
    return out


# ---- noise -----------------------------------------------------------------------------------------------------------


@njit(**HELPER)
def _words(first: Any, site: Any, step: Any, attempt: Any, seed: Any, stream: Any, lanes: Array, words: Array) -> None:
    # Philox 4x32-10: four words for each counter from `first` on, as many as `lanes` (4, counters) has room for. The
    # rounds are the outer loop and the counters the inner one, so that a round is done for many counters at once
    blocks = lanes.shape[1]
    c0, c1, c2, c3 = lanes[0], lanes[1], lanes[2], lanes[3]
    for b in range(blocks):
        c0[b], c1[b], c2[b], c3[b] = np.uint32(first + b), np.uint32(site), np.uint32(step), np.uint32(attempt)
    k0, k1 = np.uint32(seed), np.uint32(stream)
    for _ in range(10):
        for b in range(blocks):
            p0, p1 = np.uint64(c0[b]) * np.uint64(0xD2511F53), np.uint64(c2[b]) * np.uint64(0xCD9E8D57)
            c0[b], c2[b] = np.uint32(p1 >> np.uint64(32)) ^ c1[b] ^ k0, np.uint32(p0 >> np.uint64(32)) ^ c3[b] ^ k1
            c1[b], c3[b] = np.uint32(p1), np.uint32(p0)
        k0, k1 = np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))
    for b in range(blocks):
        words[4 * b], words[4 * b + 1], words[4 * b + 2], words[4 * b + 3] = c0[b], c1[b], c2[b], c3[b]


@kernel()
def _normal(clock: Array, seed: Any, stream: Any, site: Any, out: Array) -> None:
    scale, offset = out.dtype.type(2.0**-32), out.dtype.type(2.0**-33)
    turn, two = out.dtype.type(2 * math.pi), out.dtype.type(2)
    lanes, words = np.empty((4, 64), np.uint32), np.empty(256, np.uint32)
    for start in range(0, out.size, 256):
        _words(start // 4, site, clock[0], 0, seed, stream, lanes, words)
        for i in range(start, min(start + 256, out.size), 2):
            a, b = out.dtype.type(words[i - start]), out.dtype.type(words[i - start + 1])
            radius, angle = math.sqrt(-two * math.log(a * scale + offset)), turn * (b * scale)
            out[i] = radius * math.cos(angle)
            if i + 1 < out.size:
                out[i + 1] = radius * math.sin(angle)


@kernel()
def _binarised_rows(stored: Array, index: Array, clock: Array, seed: Any, stream: Any, site: Any, scale: Any,
                    out: Array) -> None:
    # pixel (i, j) is number i * width + j of the draw; 1 with the probability of its grey value
    width = out.shape[1]
    zero, one, unit = out.dtype.type(0), out.dtype.type(1), out.dtype.type(2.0**-24)
    lanes, words = np.empty((4, width // 4 + 2), np.uint32), np.empty(4 * (width // 4 + 2), np.uint32)
    for i in range(out.shape[0]):
        first = (i * width) // 4
        _words(first, site, clock[0], 0, seed, stream, lanes, words)
        skip = i * width - 4 * first
        row = index[i]
        for j in range(width):
            u = out.dtype.type(np.int32(words[skip + j] >> np.uint32(8))) * unit
            out[i, j] = one if u < out.dtype.type(stored[row, j]) / scale else zero


def normal(clock: Array, out: Array, seed: int, stream: int, site: int) -> Array:
    """Standard normal numbers of the address (seed, stream, clock[0], site) into `out`."""
    _normal(clock, seed, stream, site, _flat(out))
    return out


def binarised_rows(stored: Array, index: Array, clock: Array, out: Array, seed: int, stream: int, site: int,
                   scale: float) -> Array:
    """The rows `index` of the stored grey images, each pixel drawn 0 or 1 at its grey value; out (batch, pixels)."""
    _binarised_rows(stored, index, clock, seed, stream, site, out.dtype.type(scale), out)
    return out


# ---- optimizers ------------------------------------------------------------------------------------------------------


@kernel(SUM)
def _sum_of_squares(g: Array) -> float:
    total = 0.0
    for i in range(g.size):
        total += np.float64(g[i]) * np.float64(g[i])
    return total


@kernel()
def _add_scaled(g: Array, theta: Array, factor: Any) -> None:
    for i in range(g.size):
        g[i] += factor * theta[i]


@kernel()
def _adam(theta: Array, g: Array, m: Array, v: Array, clip: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any,
          rest2: Any, correct: Any, epsilon: Any) -> None:
    # a weight whose pixel is never on has moments that fade into denormal numbers, ten times slower: they become 0
    zero, tiny = theta.dtype.type(0), theta.dtype.type(1e-30)
    for i in range(theta.size):
        d = clip * g[i]
        first = beta1 * m[i] + rest1 * d
        second = beta2 * v[i] + rest2 * d * d
        m[i] = zero if abs(first) < tiny else first
        v[i] = zero if second < tiny else second
        theta[i] -= rate * m[i] / (np.sqrt(v[i] * correct) + epsilon)


@kernel()
def _adagrad(theta: Array, g: Array, total: Array, clip: Any, rate: Any, epsilon: Any) -> None:
    zero = theta.dtype.type(0)
    for i in range(theta.size):
        d = clip * g[i]
        total[i] += d * d
        root = np.sqrt(total[i]) + epsilon
        theta[i] -= zero if d == zero else rate * d / root


@kernel()
def _sgd(theta: Array, g: Array, velocity: Array, clip: Any, rate: Any, momentum: Any) -> None:
    for i in range(theta.size):
        velocity[i] = momentum * velocity[i] + clip * g[i]
        theta[i] -= rate * velocity[i]


def sum_of_squares(g: Array) -> float:
    """The squared norm of a flat vector, in float64."""
    return _sum_of_squares(g)


def add_scaled(g: Array, theta: Array, factor: float) -> None:
    """g += factor * theta, in place."""
    _add_scaled(g, theta, g.dtype.type(factor))


def adam(theta: Array, g: Array, m: Array, v: Array, clip: float, rate: float, beta1: float, beta2: float,
         correct: float, epsilon: float) -> None:
    """One step of Adam in place; `rate` holds the first moment's bias correction, `correct` the second's."""
    kind = theta.dtype.type
    rest1, rest2 = kind(1 - beta1), kind(1 - beta2)  # formed in float64: in float32 1 - 0.999 has only five digits
    _adam(theta, g, m, v, kind(clip), kind(rate), kind(beta1), rest1, kind(beta2), rest2, kind(correct), kind(epsilon))


def adagrad(theta: Array, g: Array, total: Array, clip: float, rate: float, epsilon: float) -> None:
    """One step of Adagrad in place."""
    kind = theta.dtype.type
    _adagrad(theta, g, total, kind(clip), kind(rate), kind(epsilon))


def sgd(theta: Array, g: Array, velocity: Array, clip: float, rate: float, momentum: float) -> None:
    """One step of gradient descent with momentum, in place."""
    kind = theta.dtype.type
    _sgd(theta, g, velocity, kind(clip), kind(rate), kind(momentum))


def _flat(a: Array) -> Array:
    """All elements in one row, without a copy."""
    if not a.flags.c_contiguous:
        raise ValueError(f"found an array of strides {a.strides}; a kernel needs unbroken (C-contiguous) memory")
    return a.reshape(-1)


def _rows(a: Array) -> Array:
    """(..., n) as (rows, n), without a copy."""
    return _flat(a).reshape(-1, a.shape[-1])
