"""The sampled Gaussian posterior and its KL divergence from N(0, 1), in one pass each way."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyvae_kernels.cpu.runtime.compiled import kernel, matrix, share, total, vector
from tinyvae_kernels.cpu.runtime.elementary import exp
from tinyvae_kernels.cpu.runtime.team import Array, Job, Launcher, Plan, flat, scratch

# Sizes are (samples, batch, latent); of z and eps, rows number sample * batch + b.


@kernel()
def _sample_kl(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    samples, batch, width = n[0], n[1], n[2]
    raw, eps = matrix(p[0], batch, 2 * width), matrix(p[1], samples * batch, width)
    z, kl = matrix(p[2], samples * batch, width), vector(p[3], batch)
    terms, sigma = matrix(p[4], parts, width)[part], matrix(p[5], parts, width)[part]
    half, one = raw.dtype.type(0.5), raw.dtype.type(1)
    first, last = share(batch, part, parts)
    for b in range(first, last):
        for j in range(width):
            mu, logvar = raw[b, j], raw[b, width + j]
            sigma[j] = exp(half * logvar)
            terms[j] = mu * mu + sigma[j] * sigma[j] - one - logvar
        for sample in range(samples):
            for j in range(width):
                z[sample * batch + b, j] = raw[b, j] + sigma[j] * eps[sample * batch + b, j]
        kl[b] = half * total(terms)


@kernel()
def _sample_kl_grad(p: Any, n: Any, s: Any, part: Any, parts: Any) -> None:
    samples, batch, width = n[0], n[1], n[2]
    dz, dkl = matrix(p[0], samples * batch, width), vector(p[1], batch)
    raw, out = matrix(p[2], batch, 2 * width), matrix(p[4], batch, 2 * width)
    eps = matrix(p[3], samples * batch, width)
    half, one = raw.dtype.type(0.5), raw.dtype.type(1)
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
            sigma = exp(half * raw[b, width + j])
            out[b, j] += dkl[b] * raw[b, j]
            out[b, width + j] = half * (out[b, width + j] * sigma + dkl[b] * (sigma * sigma - one))


@Launcher
def gaussian_sample_kl(raw: Array, eps: Array, out: tuple[Array, Array] | None) -> Plan:
    """z = mu + sigma eps, (samples, batch, latent), and KL(N(mu, sigma^2) || N(0, 1)), (batch,).

    `raw` (batch, 2 latent) holds mu and logvar = log sigma^2 side by side.
    """
    z, kl = out if out is not None else (np.empty_like(eps), np.empty(raw.shape[0], raw.dtype))
    memory = (scratch(eps.shape[2], eps.dtype) for _ in range(2))
    arrays = (flat(raw), flat(eps), flat(z), flat(kl), *memory)
    return (z, kl), [Job(_sample_kl, arrays, eps.shape, work=8 * eps.size)]


@Launcher
def gaussian_sample_kl_grad(dz: Array, dkl: Array, raw: Array, eps: Array, out: Array | None) -> Plan:
    """The gradient by `raw`, from those by z and by KL."""
    out = np.empty_like(raw) if out is None else out
    arrays = (flat(dz), flat(dkl), flat(raw), flat(eps), flat(out))
    return out, [Job(_sample_kl_grad, arrays, eps.shape, work=8 * eps.size)]
