"""The sampled Gaussian posterior and its KL divergence from N(0, 1), in one pass each way."""

from __future__ import annotations

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel
from tinyvae_kernels.cpu.runtime.elementary import exp, exp_remainder, expm1
from tinyvae_kernels.cpu.runtime.jobs import Array, Job, Launcher, Plan, scratch
from tinyvae_kernels.cpu.runtime.memory import Matrix, Vector, total
from tinyvae_kernels.cpu.runtime.shares import share

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
