"""KL divergences of posteriors: of the Gaussian one from N(0, 1) or from another one, with its draws, in one pass each
way; of the Gamma, Beta and Dirichlet ones; and what a flow does behind its network."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.elementary import exp, exp_remainder, expm1, log1p
from tinyvae_kernels.cpu.runtime.helpers import helper
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan, scratch
from tinyvae_kernels.cpu.runtime.memory import Matrix, Pointer, Vector, matrix, total, vector
from tinyvae_kernels.cpu.runtime.shares import share
from tinyvae_kernels.cpu.special import BLOCK, blocks, derivative_job, log_gamma_job, log_quotients, repeated

# ---- Gaussian --------------------------------------------------------------------------------------------------------

# z, eps and their gradients are (samples * batch, latent): row number sample * batch + b belongs to datum b.


@kernel()
def _sample_kl(raw: Matrix, eps: Matrix, z: Matrix, kl: Vector, memory: Matrix, samples: int, part: int,
               parts: int) -> None:
    # z = mu + sigma eps (AEVB eq. 4); KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - logvar) / 2 summed (AEVB
    # appendix B), as mu^2 + (exp(logvar) - 1 - logvar), neither of which is negative. The loops over latents stand
    # innermost, each by itself, so that they run in vectors.
    batch, width = len(raw), eps.shape[1]
    terms, sigma = memory[2 * part], memory[2 * part + 1]
    half = raw.dtype.type(0.5)
    first, last = share(batch, part, parts)
    for b in range(first, last):
        for j in range(width):
            mu, logvar = raw[b, j], raw[b, width + j]
            sigma[j] = exp(half * logvar)
            terms[j] = mu * mu + exp_remainder(logvar)
        for sample in range(samples):
            for j in range(width):
                z[sample * batch + b, j] = raw[b, j] + sigma[j] * eps[sample * batch + b, j]
        kl[b] = half * total(terms)


@kernel()
def _sample_kl_grad(dz: Matrix, dkl: Vector, raw: Matrix, eps: Matrix, out: Matrix, samples: int, part: int,
                    parts: int) -> None:
    # by mu: the sum of dz, + dkl mu; by logvar: (sigma times the sum of dz eps, + dkl (sigma^2 - 1)) / 2
    batch, width = len(raw), eps.shape[1]
    half = raw.dtype.type(0.5)
    first, last = share(batch, part, parts)
    for b in range(first, last):
        for j in range(2 * width):
            out[b, j] = raw.dtype.type(0)
        for sample in range(samples):
            for j in range(width):
                by_z = dz[sample * batch + b, j]
                out[b, j] += by_z
                out[b, width + j] += by_z * eps[sample * batch + b, j]
        for j in range(width):
            logvar = raw[b, width + j]
            out[b, j] += dkl[b] * raw[b, j]
            out[b, width + j] = half * (out[b, width + j] * exp(half * logvar) + dkl[b] * expm1(logvar))


@Launcher
def gaussian_sample_kl(raw: Array, eps: Array, out: tuple[Array, Array] | None) -> Plan:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(0, 1)), (batch,).

    `raw` (batch, 2 latent) holds mu and logvar = log sigma^2 side by side.
    """
    z, kl = out if out is not None else (np.empty_like(eps), np.empty(raw.shape[0], raw.dtype))
    memory = scratch(eps.shape[2], eps.dtype, 2)
    return (z, kl), [Job(_sample_kl, raw, eps, z, kl, memory, len(eps), work=8 * eps.size)]


@Launcher
def gaussian_sample_kl_grad(dz: Array, dkl: Array, raw: Array, eps: Array, out: Array | None) -> Plan:
    """The gradient by `raw`, from those by z and by KL."""
    out = np.empty_like(raw) if out is None else out
    return out, [Job(_sample_kl_grad, dz, dkl, raw, eps, out, len(eps), work=8 * eps.size)]


# ---- Gaussian, from another Gaussian ---------------------------------------------------------------------------------


@kernel()
def _sample_kl_from(raw: Matrix, other: Matrix, eps: Matrix, z: Matrix, kl: Vector, memory: Matrix, samples: int,
                    largest: float, part: int, parts: int) -> None:
    # z = mu + sigma eps; KL(N(mu, sigma^2) || N(m, s^2)) = ((mu - m)^2 / s^2 + exp(t) - 1 - t) / 2 summed, where
    # t = logvar - log s^2
    batch, width = len(raw), eps.shape[1]
    terms, sigma = memory[2 * part], memory[2 * part + 1]
    half, quarter, most = raw.dtype.type(0.5), raw.dtype.type(-0.25), raw.dtype.type(largest)
    first, last = share(batch, part, parts)
    for b in range(first, last):
        for j in range(width):
            sigma[j] = min(exp(quarter * other[b, width + j]), most)  # 1 / sqrt(s), never infinite: 0 times it is 0
        for j in range(width):
            away = (raw[b, j] - other[b, j]) * sigma[j] * sigma[j]
            terms[j] = away * away + exp_remainder(raw[b, width + j] - other[b, width + j])
        for j in range(width):
            sigma[j] = exp(half * raw[b, width + j])
        for sample in range(samples):
            for j in range(width):
                z[sample * batch + b, j] = raw[b, j] + sigma[j] * eps[sample * batch + b, j]
        kl[b] = half * total(terms)


@kernel()
def _sample_kl_from_grad(dz: Matrix, dkl: Vector, raw: Matrix, other: Matrix, eps: Matrix, out: Matrix,
                         by_other: Matrix, samples: int, largest: float, part: int, parts: int) -> None:
    # the KL's part by mu: (mu - m) / s^2, by m its negative; by logvar: (exp(t) - 1) / 2, by log s^2 the negative of
    # that and of (mu - m)^2 / s^2 / 2. The sample's part as above.
    batch, width = len(raw), eps.shape[1]
    half, quarter, most = raw.dtype.type(0.5), raw.dtype.type(-0.25), raw.dtype.type(largest)
    first, last = share(batch, part, parts)
    for b in range(first, last):
        for j in range(2 * width):
            out[b, j] = raw.dtype.type(0)
        for sample in range(samples):
            for j in range(width):
                by_z = dz[sample * batch + b, j]
                out[b, j] += by_z
                out[b, width + j] += by_z * eps[sample * batch + b, j]
        for j in range(width):
            root = min(exp(quarter * other[b, width + j]), most)
            away = (raw[b, j] - other[b, j]) * root * root
            by_mu = dkl[b] * (away * root * root)
            by_logvar = half * dkl[b] * expm1(raw[b, width + j] - other[b, width + j])
            by_other[b, j] = -by_mu
            by_other[b, width + j] = -by_logvar - half * dkl[b] * (away * away)
            out[b, j] += by_mu
            out[b, width + j] = half * out[b, width + j] * exp(half * raw[b, width + j]) + by_logvar


def _largest(array: Array) -> float:
    """Nearly the largest number of the array's type; of another type, which the kernel refuses, that of a float."""
    return 0.98 * float(np.finfo(np.result_type(array.dtype, np.float32)).max)


@Launcher
def gaussian_sample_kl_from(raw: Array, other: Array, eps: Array, out: tuple[Array, Array] | None) -> Plan:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(m, s^2)), (batch,).

    `raw` and `other`, (batch, 2 latent), hold mu and log sigma^2, and m and log s^2, side by side.
    """
    z, kl = out if out is not None else (np.empty_like(eps), np.empty(raw.shape[0], raw.dtype))
    memory = scratch(eps.shape[2], eps.dtype, 2)
    return (z, kl), [Job(_sample_kl_from, raw, other, eps, z, kl, memory, len(eps), _largest(raw),
                          work=10 * eps.size)]


@Launcher
def gaussian_sample_kl_from_grad(dz: Array, dkl: Array, raw: Array, other: Array, eps: Array,
                                 out: tuple[Array, Array] | None) -> Plan:
    """The gradients by `raw` and by `other`, from those by z and by KL."""
    by_raw, by_other = out if out is not None else (np.empty_like(raw), np.empty_like(other))
    return (by_raw, by_other), [Job(_sample_kl_from_grad, dz, dkl, raw, other, eps, by_raw, by_other, len(eps),
                                    _largest(raw), work=10 * eps.size)]


# ---- the gate of an inverse autoregressive flow ----------------------------------------------------------------------


@helper
def _opened(a: Any, e: Any, zero: Any, one: Any) -> Any:
    # g = sigmoid(a) and 1 - g, neither by a difference; e is exp(-|a|)
    return (e if a < zero else one) / (one + e), (one if a < zero else e) / (one + e)


@kernel()
def _gate(raw: Matrix, z: Matrix, out: Matrix, sums: Vector, memory: Matrix, opening: float, part: int,
          parts: int) -> None:
    # f = c g z + (1 - g) m with g = sigmoid(a), a = s + opening and c = 1 / sigmoid(opening);
    # log g = min(a, 0) - log(1 + exp(-|a|))
    (rows, width), terms = z.shape, memory[part]
    zero, one, begin = raw.dtype.type(0), raw.dtype.type(1), raw.dtype.type(opening)
    c = one + exp(-begin)
    log_c = log1p(exp(-begin))
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for j in range(width):
            a = raw[i, width + j] + begin
            e = exp(-abs(a))
            g, rest = _opened(a, e, zero, one)
            out[i, j] = c * g * z[i, j] + rest * raw[i, j]
            terms[j] = (a if a < zero else zero) - log1p(e) + log_c
        sums[i] = total(terms)


@kernel()
def _gate_grad(dout: Matrix, dsum: Vector, raw: Matrix, z: Matrix, by_raw: Matrix, by_z: Matrix, opening: float,
               part: int, parts: int) -> None:
    # df/dz = c g, df/dm = 1 - g, df/da = (c z - m) g (1 - g), d log g / da = 1 - g
    rows, width = z.shape
    zero, one, begin = raw.dtype.type(0), raw.dtype.type(1), raw.dtype.type(opening)
    c = one + exp(-begin)
    first, last = share(rows, part, parts)
    for i in range(first, last):
        for j in range(width):
            a = raw[i, width + j] + begin
            g, rest = _opened(a, exp(-abs(a)), zero, one)
            by_z[i, j] = dout[i, j] * (c * g)
            by_raw[i, j] = dout[i, j] * rest
            by_raw[i, width + j] = (dout[i, j] * (c * z[i, j] - raw[i, j]) * g + dsum[i]) * rest


@Launcher
def gate(raw: Array, z: Array, out: tuple[Array, Array] | None, opening: float) -> Plan:
    """f = c g z + (1 - g) m, as z (..., n), and sum_i log c g_i, (...), with g = sigmoid(s + opening), and c g = 1 for
    s = 0.

    `raw` (..., 2 n) holds m and s side by side.
    """
    moved, sums = out if out is not None else (np.empty_like(z), np.empty(z.shape[:-1], z.dtype))
    memory = scratch(z.shape[-1], z.dtype)
    return (moved, sums), [Job(_gate, raw, z, moved, sums, memory, opening, work=12 * z.size)]


@Launcher
def gate_grad(dout: Array, dsum: Array, raw: Array, z: Array, out: tuple[Array, Array] | None, opening: float) -> Plan:
    """The gradients by `raw` and by z, from those by f and by the sum."""
    by_raw, by_z = out if out is not None else (np.empty_like(raw), np.empty_like(z))
    return (by_raw, by_z), [Job(_gate_grad, dout, dsum, raw, z, by_raw, by_z, opening, work=12 * z.size)]


# ---- Gamma and Dirichlet ---------------------------------------------------------------------------------------------
# With f(t) = e^t - 1 - t they are (distributions/gamma.py and dirichlet.py derive them)
#     Gamma      a0 f(l) + f(log(a0 / a)) / 2,                                  l = log(a / a0) - log(b / b0)
#     Dirichlet  sum of a0 f(l) + (1 - m) f(log(a0 / a)) / 2 + m f(-l) / 2,     l = log(a / a0) - log(s / s0), m = a / s
# and the gaps of Stirling's remainder, mu(a0) - mu(a) - (a0 - a) mu'(a), of which jobs of special.py compute the parts.
# p is repeated along the leading axes of q.


@kernel()
def _widened(a: Vector, out: Vector[np.float64], part: int, parts: int) -> None:
    first, last = share(a.size, part, parts)
    for i in range(first, last):
        out[i] = np.float64(a[i])


@kernel()
def _sums(a: Matrix[np.float64], out: Vector[np.float64], part: int, parts: int) -> None:
    first, last = share(out.size, part, parts)
    for line in range(first, last):
        s = 0.0
        for i in range(a.shape[1]):
            s += a[line, i]
        out[line] = s


@helper
def _gap(a0: Any, a: Any, mu0: Any, mu: Any, slope: Any) -> Any:
    return mu0 - mu - (a0 - a) * slope


@kernel()
def _gamma_kl(a: Pointer[np.float64], b: Pointer, a0: Pointer[np.float64], b0: Pointer, mu0: Pointer[np.float64],
              mu: Pointer[np.float64], slope: Pointer[np.float64], out: Pointer, memory: Pointer[np.float64],
              count: int, period: int, part: int, parts: int) -> None:
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 7 * parts, BLOCK)[7 * part : 7 * part + 7]
    shape, rate, shape0, rate0, rest, ratio, means = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
    first, last = share((count + BLOCK - 1) // BLOCK, part, parts)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, count - start)
        repeated(a, shape, start, size, count)
        repeated(b, rate, start, size, count)
        repeated(a0, shape0, start, size, period)
        repeated(b0, rate0, start, size, period)
        repeated(mu0, rest, start, size, period)
        for i in range(size):
            rest[i] = max(_gap(shape0[i], shape[i], rest[i], mu[start + i], slope[start + i]), 0.0)
        log_quotients(shape, shape0, ratio, size)
        log_quotients(rate, rate0, means, size)
        for i in range(size):
            large = shape0[i] * exp_remainder(ratio[i] - means[i]) + 0.5 * exp_remainder(-ratio[i])
            out[start + i] = dtype(large + rest[i])


@kernel()
def _dirichlet_kl(a: Pointer[np.float64], a0: Pointer[np.float64], mu0: Pointer[np.float64], mu: Pointer[np.float64],
                  slope: Pointer[np.float64], sums_mu0: Pointer[np.float64], sums_mu: Pointer[np.float64],
                  sums_slope: Pointer[np.float64], out: Pointer, memory: Pointer[np.float64], count: int, width: int,
                  period: int, group: int, part: int, parts: int) -> None:
    dtype, rows = vector(out, 1).dtype.type, matrix(memory, 8 * parts, group * width)[8 * part : 8 * part + 8]
    q, p, total, total0, left = rows[0], rows[1], rows[2], rows[3], rows[4]
    rest, ratio, means = rows[5], rows[6], rows[7]
    first, last = share((count + group - 1) // group, part, parts)
    for block in range(first, last):
        start = block * group
        lines = min(group, count - start)
        size = lines * width
        repeated(a, q, start * width, size, count * width)
        repeated(a0, p, start * width, size, period * width)
        repeated(mu0, rest, start * width, size, period * width)
        for line in range(lines):
            s, s0 = 0.0, 0.0
            for i in range(line * width, (line + 1) * width):
                s, s0 = s + q[i], s0 + p[i]
            for i in range(line * width, (line + 1) * width):
                total[i], total0[i] = s, s0
        for i in range(size):
            rest[i] = _gap(p[i], q[i], rest[i], mu[start * width + i], slope[start * width + i])
        log_quotients(q, p, ratio, size)
        log_quotients(total, total0, means, size)
        # 1 - m is that of the others, which s - a has no digits of where a is nearly all of s
        for line in range(lines):
            others = 0.0
            for i in range(line * width, (line + 1) * width):
                others += q[i] if q[i] + q[i] <= total[i] else 0.0
            for i in range(line * width, (line + 1) * width):
                left[i] = total[i] - q[i] if q[i] + q[i] <= total[i] else others
        for i in range(size):
            half, l = 0.5 / total[i], ratio[i] - means[i]
            p[i] = p[i] * exp_remainder(l) + half * (left[i] * exp_remainder(-ratio[i]) + q[i] * exp_remainder(-l))
        for line in range(lines):
            i = start + line
            j = line * width
            s, gaps = 0.0, -_gap(total0[j], total[j], sums_mu0[i % period], sums_mu[i], sums_slope[i])
            for j in range(line * width, (line + 1) * width):
                s, gaps = s + p[j], gaps + rest[j]
            out[i] = dtype(s + max(gaps, 0.0))


def _wide(a: Array) -> tuple[Array, list[Job]]:
    """The numbers in float64, and the jobs that copy them."""
    if a.dtype == np.float64:
        return a, []
    wide = np.empty(a.shape, np.float64)
    return wide, [Job(_widened, a, wide, work=a.size)]


def _remainders(a: Array, a0: Array) -> tuple[list[Array], list[Job]]:
    """mu(a0), mu(a) and mu'(a), and the jobs that make them; in float64."""
    mu0, mu, slope = np.empty_like(a0), np.empty_like(a), np.empty_like(a)
    return [mu0, mu, slope], [log_gamma_job(a0, mu0, remainder=True), log_gamma_job(a, mu, remainder=True),
                              derivative_job(a, slope, 0, remainder=True)]  # fmt: skip


@Launcher
def gamma_kl(a: Array, b: Array, a0: Array, b0: Array, out: Array | None) -> Plan:
    """The KL divergence of Gamma(a, b) from Gamma(a0, b0), which have the last axes of a and b."""
    out = np.empty_like(a) if out is None else out
    (shape, first), (shape0, second) = _wide(a), _wide(a0)
    mu, jobs = _remainders(shape, shape0)
    arguments = (shape, b, shape0, b0, *mu, out, blocks(7), a.size, a0.size)
    return out, [*first, *second, *jobs, Job(_gamma_kl, *arguments, work=100 * a.size)]


@Launcher
def dirichlet_kl(a: Array, a0: Array, out: Array | None) -> Plan:
    """The KL divergence of Dirichlet vectors, (..., 1); a0 has the last axes of a."""
    out, width = np.empty((*a.shape[:-1], 1), a.dtype) if out is None else out, a.shape[-1]
    (q, first), (p, second) = _wide(a), _wide(a0)
    sums, sums0 = np.empty(a.size // width), np.empty(a0.size // width)
    (mu, jobs), (mu_of_sums, jobs_of_sums) = _remainders(q, p), _remainders(sums, sums0)
    group = max(1, BLOCK // width)
    arguments = (q, p, *mu, *mu_of_sums, out, blocks(8, group * width), sums.size, width, sums0.size, group)
    return out, [*first, *second, Job(_sums, q, sums, work=a.size), Job(_sums, p, sums0, work=a0.size), *jobs,
                 *jobs_of_sums, Job(_dirichlet_kl, *arguments, work=150 * a.size)]  # fmt: skip
