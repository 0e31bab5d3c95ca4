"""The sampled Gaussian posterior and its KL divergence from N(0, 1) or another Gaussian, in one pass each way; what a
flow does behind its network; and the KL divergence of Gammas and of Dirichlet vectors."""

from __future__ import annotations

import numpy as np

from tinyvae_kernels.cuda.runtime.arguments import count, new_like, rows_of, same_type
from tinyvae_kernels.cuda.runtime.jobs import THREADS, Array, Job, Launcher, Plan, neighbours, spread


@Launcher
def gaussian_sample_kl(raw: Array, eps: Array, out: tuple[Array, Array] | None) -> Plan:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(0, 1)), (batch,)."""
    z, kl = out if out is not None else (new_like(eps), new_like(raw, raw.shape[:1]))
    dtype, (samples, batch, latent) = same_type(raw, eps, z, kl), eps.shape
    count(2 * eps.size)
    arguments = (raw, eps, z, kl, np.int32(samples), count(batch), np.int32(latent))
    return (z, kl), [Job("posterior", "sample_kl", dtype, (-(-batch // 8),), (THREADS,), arguments)] if batch else []


@Launcher
def gaussian_sample_kl_grad(dz: Array, dkl: Array, raw: Array, eps: Array, out: Array | None) -> Plan:
    """The gradient by `raw`, from those by z and by KL."""
    out = new_like(raw) if out is None else out
    dtype, (samples, batch, latent) = same_type(dz, dkl, raw, eps, out), eps.shape
    count(2 * eps.size)
    arguments = (dz, dkl, raw, eps, out, np.int32(samples), count(batch), count(latent))
    return out, spread("posterior", "sample_kl_grad", dtype, batch * latent, *arguments)


@Launcher
def gaussian_sample_kl_from(raw: Array, other: Array, eps: Array, out: tuple[Array, Array] | None) -> Plan:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(m, s^2)), (batch,)."""
    z, kl = out if out is not None else (new_like(eps), new_like(raw, raw.shape[:1]))
    dtype, (samples, batch, latent) = same_type(raw, other, eps, z, kl), eps.shape
    count(2 * eps.size)
    arguments = (raw, other, eps, z, kl, np.int32(samples), count(batch), np.int32(latent))
    jobs = [Job("posterior", "sample_kl_from", dtype, (-(-batch // 8),), (THREADS,), arguments)]
    return (z, kl), jobs if batch else []


@Launcher
def gaussian_sample_kl_from_grad(dz: Array, dkl: Array, raw: Array, other: Array, eps: Array,
                                 out: tuple[Array, Array] | None) -> Plan:
    """The gradients by `raw` and by `other`, from those by z and by KL."""
    by_raw, by_other = out if out is not None else (new_like(raw), new_like(other))
    dtype, (samples, batch, latent) = same_type(dz, dkl, raw, other, eps, by_raw, by_other), eps.shape
    count(2 * eps.size)
    arguments = (dz, dkl, raw, other, eps, by_raw, by_other, np.int32(samples), count(batch), count(latent))
    return (by_raw, by_other), spread("posterior", "sample_kl_from_grad", dtype, batch * latent, *arguments)


@Launcher
def gate(raw: Array, z: Array, out: tuple[Array, Array] | None, opening: float) -> Plan:
    """f = c g z + (1 - g) m, as z (..., n), and sum_i log c g_i, (...), with g = sigmoid(s + opening), and c g = 1 for
    s = 0.

    `raw` (..., 2 n) holds m and s side by side.
    """
    moved, sums = out if out is not None else (new_like(z), new_like(z, z.shape[:-1]))
    dtype, (rows, width) = same_type(raw, z, moved, sums), rows_of(z)
    count(2 * z.size)
    arguments = (raw, z, moved, sums, np.float64(opening), count(rows), np.int32(width))
    return (moved, sums), [Job("posterior", "gate", dtype, (-(-rows // 8),), (THREADS,), arguments)] if rows else []


@Launcher
def gate_grad(dout: Array, dsum: Array, raw: Array, z: Array, out: tuple[Array, Array] | None, opening: float) -> Plan:
    """The gradients by `raw` and by z, from those by f and by the sum."""
    by_raw, by_z = out if out is not None else (new_like(raw), new_like(z))
    dtype, (rows, width) = same_type(dout, dsum, raw, z, by_raw, by_z), rows_of(z)
    count(2 * z.size)
    arguments = (dout, dsum, raw, z, by_raw, by_z, np.float64(opening), count(rows), count(width))
    return (by_raw, by_z), spread("posterior", "gate_grad", dtype, rows * width, *arguments)


@Launcher
def gamma_kl(a: Array, b: Array, a0: Array, b0: Array, out: Array | None) -> Plan:
    """The KL divergence of Gamma(a, b) from Gamma(a0, b0), which have the last axes of a and b."""
    out = new_like(a) if out is None else out
    arguments = (a, b, a0, b0, out)
    return out, spread("posterior", "gamma_kl", same_type(*arguments), a.size, *arguments, count(a.size),
                       count(a0.size))


@Launcher
def dirichlet_kl(a: Array, a0: Array, out: Array | None) -> Plan:
    """The KL divergence of Dirichlet vectors, (..., 1); a0 has the last axes of a."""
    (rows, width), (rows0, _) = rows_of(a), rows_of(a0)
    out = new_like(a, (*a.shape[:-1], 1)) if out is None else out
    count(a.size)
    arguments = (a, a0, out, count(rows), np.int32(width), count(rows0))
    return out, [Job("posterior", "dirichlet_kl", same_type(a, a0, out), (-(-rows // 8),), (THREADS,), arguments)]


@neighbours("normal", "sample_kl")
def _drawn_sample(draw: Job, sample: Job) -> Job | None:
    """Noise and the sample made of it: the noise is drawn where it is used, and kept for the gradient."""
    counters, eps, _, *address = draw.arguments
    if sample.arguments[1] is not eps:
        return None
    return sample._replace(kernel="drawn_sample_kl", arguments=(counters, *address, *sample.arguments))
