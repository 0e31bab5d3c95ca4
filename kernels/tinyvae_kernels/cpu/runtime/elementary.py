"""exp, expm1, log, log1p, tanh and the sine and cosine of a turn, as arithmetic that LLVM vectorises.

Numba's own are scalar calls, ten times slower. Each is within 2 rounding units of the exact value; NaN and
infinities go through. The polynomials are those of Cephes (S. L. Moshier, "Methods and Programs for Mathematical
Functions").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from tinyvae_kernels.cpu.runtime.helpers import HELPER, helper
from tinyvae_kernels.cpu.runtime.memory import as_float32, as_float64, as_int32, as_int64


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
    first = as_float32((half + np.int32(127)) << np.int32(23))
    return (p * (r * r) + r + f(1.0)) * first * as_float32((k - half + np.int32(127)) << np.int32(23))


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
    first = as_float64((half + np.int64(1023)) << np.int64(52))
    return (1.0 + 2.0 * (p / (q - p))) * first * as_float64((k - half + np.int64(1023)) << np.int64(52))


# exp(x) - 1 and exp(x) - 1 - x. For |x| < 1, where digits would cancel, by the series of the latter. From 1e3 on the
# exponential is infinite, and infinity minus infinity would be NaN.


@helper
def _series32(x: Any) -> Any:
    # x^2 (1/2! + x/3! + ... + x^9/11!)
    f = np.float32
    p = f(1 / 39916800)
    p = p * x + f(1 / 3628800)
    p = p * x + f(1 / 362880)
    p = p * x + f(1 / 40320)
    p = p * x + f(1 / 5040)
    p = p * x + f(1 / 720)
    p = p * x + f(1 / 120)
    p = p * x + f(1 / 24)
    p = p * x + f(1 / 6)
    p = p * x + f(1 / 2)
    return p * x * x


@helper
def _series64(x: Any) -> Any:
    p = 1 / 6402373705728000
    p = p * x + 1 / 355687428096000
    p = p * x + 1 / 20922789888000
    p = p * x + 1 / 1307674368000
    p = p * x + 1 / 87178291200
    p = p * x + 1 / 6227020800
    p = p * x + 1 / 479001600
    p = p * x + 1 / 39916800
    p = p * x + 1 / 3628800
    p = p * x + 1 / 362880
    p = p * x + 1 / 40320
    p = p * x + 1 / 5040
    p = p * x + 1 / 720
    p = p * x + 1 / 120
    p = p * x + 1 / 24
    p = p * x + 1 / 6
    p = p * x + 1 / 2
    return p * x * x


def _expm132(x: Any) -> Any:
    return x + _series32(x) if abs(x) < np.float32(1.0) else exp(x) - np.float32(1.0)


def _expm164(x: Any) -> Any:
    return x + _series64(x) if abs(x) < 1.0 else exp(x) - 1.0


def _exp_remainder32(x: Any) -> Any:
    f = np.float32
    far = exp(x) - (f(1.0) + x if x < f(1e3) else f(0.0))
    return _series32(x) if abs(x) < f(1.0) else far


def _exp_remainder64(x: Any) -> Any:
    near = abs(x) < 1.0
    series = _series64(x if near else 0.0)
    far = exp(x) - (1.0 + x if x < 1e3 else 0.0)
    return series if near else far


def _log1p32(x: Any) -> Any:
    # for 0 <= x <= 1: log(1 + x) = 2 artanh(s), s = x / (2 + x) <= 1/3, by the series s + s^3/3 + s^5/5 + ...
    f = np.float32
    s = x / (f(2.0) + x)
    z = s * s
    p = f(1 / 15)
    p = p * z + f(1 / 13)
    p = p * z + f(1 / 11)
    p = p * z + f(1 / 9)
    p = p * z + f(1 / 7)
    p = p * z + f(1 / 5)
    p = p * z + f(1 / 3)
    return f(2.0) * (s + s * z * p)


def _log1p64(x: Any) -> Any:
    s = x / (2.0 + x)
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
    far = f(1.0) - f(2.0) / (exp(a + a) + f(1.0))
    return near if a < f(0.625) else (-far if x < f(0.0) else far)


def _tanh64(x: Any) -> Any:
    # near 0 Cephes' rational function x + x z P(z) / Q(z), z = x^2
    a = abs(x)
    z = x * x
    p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z - 1.61468768441708447952e3
    q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3
    near = x + x * z * (p / q)
    far = 1.0 - 2.0 / (exp(a + a) + 1.0)
    return near if a < 0.625 else (-far if x < 0.0 else far)


def _log32(x: Any) -> Any:
    # x = 2**e m, sqrt(1/2) <= m < sqrt(2), read from the bits; the rest is Cephes' logf. For positive normal x only
    f = np.float32
    bits = as_int32(x)
    e = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    m = as_float32(bits - (e << np.int32(23))) - f(1.0)
    z = m * m
    p = f(7.0376836292e-2)
    p = p * m - f(1.1514610310e-1)
    p = p * m + f(1.1676998740e-1)
    p = p * m - f(1.2420140846e-1)
    p = p * m + f(1.4249322787e-1)
    p = p * m - f(1.6668057665e-1)
    p = p * m + f(2.0000714765e-1)
    p = p * m - f(2.4999993993e-1)
    p = p * m + f(3.3333331174e-1)
    n = f(e)
    return (m + (p * m * z - f(2.12194440e-4) * n - f(0.5) * z)) + f(0.693359375) * n


def _log64(x: Any) -> Any:
    bits = as_int64(x)
    e = (bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
    m = as_float64(bits - (e << np.int64(52))) - 1.0
    z = m * m
    p = 1.01875663804580931796e-4
    p = p * m + 4.97494994976747001425e-1
    p = p * m + 4.70579119878881725854e0
    p = p * m + 1.44989225341610930846e1
    p = p * m + 1.79368678507819816313e1
    p = p * m + 7.70838733755885391666e0
    q = m + 1.12873587189167450590e1
    q = q * m + 4.52279145837532221105e1
    q = q * m + 8.29875266912776603211e1
    q = q * m + 7.11544750618563894466e1
    q = q * m + 2.31251620126765340583e1
    n = np.float64(e)
    return (m + (m * (z * (p / q)) - n * 2.121944400546905827679e-4 - 0.5 * z)) + n * 0.693359375


@helper
def _sine32(r: Any) -> Any:
    # Cephes' sinf, |r| <= pi / 4
    f = np.float32
    z = r * r
    return ((f(-1.9515295891e-4) * z + f(8.3321608736e-3)) * z - f(1.6666654611e-1)) * z * r + r


@helper
def _cosine32(r: Any) -> Any:
    f = np.float32
    z = r * r
    p = (f(2.443315711809948e-5) * z - f(1.388731625493765e-3)) * z + f(4.166664568298827e-2)
    return p * (z * z) - f(0.5) * z + f(1.0)


@helper
def _sine64(r: Any) -> Any:
    z = r * r
    p = 1.58962301576546568060e-10
    p = p * z - 2.50507477628578072866e-8
    p = p * z + 2.75573136213857245213e-6
    p = p * z - 1.98412698295895385996e-4
    p = p * z + 8.33333333332211858878e-3
    p = p * z - 1.66666666666666307295e-1
    return p * z * r + r


@helper
def _cosine64(r: Any) -> Any:
    z = r * r
    p = -1.13585365213876817300e-11
    p = p * z + 2.08757008419747316778e-9
    p = p * z - 2.75573141792967388112e-7
    p = p * z + 2.48015872888517045348e-5
    p = p * z - 1.38888888888730564116e-3
    p = p * z + 4.16666666666665929218e-2
    return p * (z * z) - 0.5 * z + 1.0


# The sine and the cosine of x turns, 0 <= x <= 1: the nearest quarter turn k is taken off, which costs no digit, and
# what is left is at most an eighth of a turn. Each quarter turn makes a sine a cosine and a cosine minus a sine.


def _sine_of_turn32(x: Any) -> Any:
    f = np.float32
    q = np.floor(f(4.0) * x + f(0.5))
    r = (f(4.0) * x - q) * f(1.5707963267948966)
    k = np.int32(q)
    value = _cosine32(r) if k & np.int32(1) else _sine32(r)
    return -value if k & np.int32(2) else value


def _cosine_of_turn32(x: Any) -> Any:
    f = np.float32
    q = np.floor(f(4.0) * x + f(0.5))
    r = (f(4.0) * x - q) * f(1.5707963267948966)
    k = np.int32(q)
    value = _sine32(r) if k & np.int32(1) else _cosine32(r)
    return -value if (k + np.int32(1)) & np.int32(2) else value


def _sine_of_turn64(x: Any) -> Any:
    q = np.floor(4.0 * x + 0.5)
    r = (4.0 * x - q) * 1.5707963267948966
    k = np.int64(q)
    value = _cosine64(r) if k & np.int64(1) else _sine64(r)
    return -value if k & np.int64(2) else value


def _cosine_of_turn64(x: Any) -> Any:
    q = np.floor(4.0 * x + 0.5)
    r = (4.0 * x - q) * 1.5707963267948966
    k = np.int64(q)
    value = _sine64(r) if k & np.int64(1) else _cosine64(r)
    return -value if (k + np.int64(1)) & np.int64(2) else value


# ---- ratios, in float64 ----------------------------------------------------------------------------------------------


@helper
def log_quotient(x: Any, y: Any) -> Any:
    # log(x / y), x and y above 0 and their quotient a normal number. For close numbers it is log(1 + d) with the exact
    # difference d = (x - y) / y; what rounding u = 1 + d loses is d - (u - 1), and the logarithm's slope is 1 / u
    d = (x - y) / y
    u = 1.0 + d
    near = -0.5 < d < 0.5
    return log(u if near else x / y) + ((d - (u - 1.0)) / u if near else 0.0)


def _for_both_types(single: Callable, double: Callable) -> Callable:
    """One name for the helpers of both types; which is meant is decided when a kernel is compiled."""

    def stub(x):  # type: ignore[no-untyped-def]
        raise TypeError(f"{single.__name__} is for compiled kernels only")

    for function in (single, double):
        function.__annotations__.clear()  # Numba wants the signatures of function and stub equal, annotations included
    overload(stub, jit_options=HELPER)(lambda x: single if x == types.float32 else double)  # type: ignore[arg-type]
    return stub


exp = _for_both_types(_exp32, _exp64)
expm1 = _for_both_types(_expm132, _expm164)
exp_remainder = _for_both_types(_exp_remainder32, _exp_remainder64)
log = _for_both_types(_log32, _log64)  # of positive normal numbers
log1p = _for_both_types(_log1p32, _log1p64)  # of numbers from 0 to 1
tanh = _for_both_types(_tanh32, _tanh64)
sine_of_turn = _for_both_types(_sine_of_turn32, _sine_of_turn64)
cosine_of_turn = _for_both_types(_cosine_of_turn32, _cosine_of_turn64)
