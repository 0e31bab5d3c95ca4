"""Fused operations: one kernel where the readable form takes several passes over memory.

Each row here names its twin, a composition of ordinary rows that is its specification, and gives all its gradients
in one launch. The kernels live in the package `tinyvae_kernels` and are imported when the first fused row runs:

    with tinyvae.fused(False):  ...   # the twins, in this block; no Numba needed
    tinyvae.fused(False)              # or from here on

A fused row has no second derivative; its twin has.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae import batches  # noqa: F401 - its rows get kernels here
from tinyvae.devices import NAMESPACES
from tinyvae.noise import stream_number
from tinyvae.optimizers import guard, update
from tinyvae.rules import ANY, TABLE, UNIT, rule

if TYPE_CHECKING:
    from tinyvae.tensor import Tensor

LOG_2PI = math.log(2 * math.pi)


class fused:
    """Run fused operations by their kernels (True) or by their readable twins (False), from now on or in a block."""

    def __init__(self, on: bool = True) -> None:
        self._before = {name: xp.kernels for name, xp in NAMESPACES.items()}
        for xp in NAMESPACES.values():
            xp.kernels = bool(on)

    def __enter__(self) -> fused:
        return self

    def __exit__(self, *_: Any) -> None:
        for name, on in self._before.items():
            NAMESPACES[name].kernels = on


@functools.cache
def load(device: str) -> ModuleType | None:
    """The kernels of a device, or None after one warning that names what is missing."""
    try:
        from tinyvae_kernels import kernels_for

        return kernels_for(device)
    except (ImportError, KeyError) as fault:
        warnings.warn(f"the fused {device} kernels cannot be loaded ({fault}); their readable twins run instead, with "
                      "the same results to rounding, more slowly", RuntimeWarning, stacklevel=2)
        return None


def accelerate(name: str, kernel: Callable) -> None:
    """Give a row a kernel: `kernel(kernels, *arrays, out, **attributes)`, `kernels` being the device's module."""

    @functools.cache
    def choose(device: str) -> Callable | None:
        kernels = load(device)
        if kernels is None:
            return None
        return lambda xp, *arrays, **attributes: kernel(kernels, *arrays, **attributes)

    TABLE[name].kernel = lambda xp: choose(xp.device)


def fuse(name: str, twin: Callable, grads: Any = None, domain: Any = (ANY,), outputs: int = 1,
         constants: tuple[int, ...] = (), fits: Callable[..., bool] | None = None) -> None:
    """A row whose value is the kernel of its name, and which runs `twin` where the kernel cannot serve.

    A kernel trusts the shapes it is given: `fits` says of the inputs' shapes whether they are its own, so that what
    broadcasts in another way goes to the twin, and what is wrong gets the twin's error instead of foreign memory.
    """
    row = rule(name, None, grads, domain, outputs=outputs)
    row.twin, row.constants, row.fits = twin, constants, fits
    accelerate(name, lambda kernels, *arrays, **attributes: getattr(kernels, name)(*arrays, **attributes))


# ---- a layer's bias and activation -----------------------------------------------------------------------------------


def _activation(pre: Tensor, bias: Tensor, kind: str) -> Tensor:
    a = pre + bias
    return a if kind == "identity" else a.apply(kind)


def _activation_grads(g: Tensor, y: Tensor, pre: Tensor, bias: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind == "identity":
        return g, g  # the walk sums the second over the batch
    return g.contiguous().apply("bias_activation_grad", y, kind=kind)


# The slope of each activation, by its value y.
SLOPES = {"tanh": lambda y: 1 - y * y, "relu": lambda y: (y > 0).cast(y.dtype), "softplus": lambda y: -((-y).expm1())}


def _activation_grad(g: Tensor, y: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    before = g * SLOPES[kind](y)
    return before, before.reshape(-1, before.shape[-1]).sum(0)


# activation(pre + bias)
fuse("bias_activation", _activation, _activation_grads, (ANY, ANY),
     fits=lambda pre, bias: bias == pre[-1:] > (0,))
fuse("bias_activation_grad", _activation_grad, domain=(ANY, ANY), outputs=2,
     fits=lambda g, y: g == y and y[-1:] > (0,))


# ---- the sampled posterior -------------------------------------------------------------------------------------------


def _sample_kl(joint: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    mu, logvar = joint.split(2)
    z = mu + (0.5 * logvar).exp() * eps  # AEVB eq. (4): z = g(eps, x)
    kl = 0.5 * (mu * mu + logvar.exp() - 1 - logvar).sum(-1)  # AEVB appendix B
    return z, kl


def _sample_kl_grads(g: Any, y: Any, joint: Tensor, eps: Tensor) -> tuple[Tensor, None]:
    return g[0].contiguous().apply("gaussian_sample_kl_grad", g[1].contiguous(), joint, eps), None


def _sample_kl_grad(dz: Tensor, dkl: Tensor, joint: Tensor, eps: Tensor) -> Tensor:
    mu, logvar = joint.split(2)
    sigma, by_kl = (0.5 * logvar).exp(), dkl.reshape(-1, 1)
    by_mu = dz.sum(0) + by_kl * mu
    by_logvar = 0.5 * ((dz * eps).sum(0) * sigma + by_kl * logvar.expm1())
    return by_mu.concatenate(by_logvar, axis=-1)


# z = mu + sigma eps and KL(q(z|x) || N(0, 1)), from (mu, logvar) side by side; eps is (samples, batch, latent)
fuse("gaussian_sample_kl", _sample_kl, _sample_kl_grads, (ANY, ANY), outputs=2, constants=(1,),
     fits=lambda joint, eps: len(eps) == 3 and joint == (eps[1], 2 * eps[2]))
fuse("gaussian_sample_kl_grad", _sample_kl_grad, domain=(ANY, ANY, ANY, ANY),
     fits=lambda dz, dkl, joint, eps: len(eps) == 3 and dz == eps and dkl == eps[1:2] and joint == (eps[1], 2 * eps[2]))


# ---- likelihoods -----------------------------------------------------------------------------------------------------
# The kernels give log p(x) and, from the same pass, its derivative by their input; a gradient then only scales rows.


def _bernoulli(logits: Tensor, x: Tensor) -> tuple[Tensor, None]:
    return (x * logits - logits.softplus()).sum(-1), None


def _gaussian(joint: Tensor, x: Tensor) -> tuple[Tensor, None]:
    a, logvar = joint.split(2)
    d = x - a.sigmoid()
    return (-0.5 * (LOG_2PI + logvar + d * d * (-logvar).exp())).sum(-1), None


def _likelihood_grads(g: Any, y: Any, parameters: Tensor, x: Tensor) -> tuple[Tensor, None]:
    return g[0].contiguous().apply("scale_rows", y[1]), None


def _of_rows(parameters: tuple[int, ...], x: tuple[int, ...], per_pixel: int) -> bool:
    """Parameters (..., batch, per_pixel * pixels) and x (batch, pixels), or one x for all."""
    return (len(x) == 2 <= len(parameters) and x[0] in (1, parameters[-2]) and 0 not in x
            and parameters[-1] == per_pixel * x[1])


# log p(x) of each row, x in {0, 1}: sum of x l - log(1 + exp(l)) over the pixels
fuse("bernoulli_log_prob", _bernoulli, _likelihood_grads, (ANY, UNIT), 2, (1,),
     fits=lambda logits, x: _of_rows(logits, x, 1))
# log p(x) of each row under N(sigmoid(a), exp(logvar)), from (a, logvar) side by side
fuse("gaussian_log_prob", _gaussian, _likelihood_grads, (ANY, UNIT), 2, (1,),
     fits=lambda joint, x: _of_rows(joint, x, 2))
fuse("scale_rows", lambda g, a: g.reshape(*g.shape, 1) * a, domain=(ANY, ANY),
     fits=lambda g, a: g == a[:-1] and a[-1:] > (0,))


# ---- rows with a readable value of their own -------------------------------------------------------------------------
# (their values stand in noise.py, batches.py and optimizers.py)


def _normal(kernels: ModuleType, clock: Any, out: Any, seed: int, stream: str, site: int, shape: Any,
            dtype: Any) -> Any:
    out = np.empty(shape, dtype) if out is None else out
    return kernels.normal(clock, out, seed, stream_number(stream), site)


def _binarised_rows(kernels: ModuleType, stored: Any, index: Any, clock: Any, out: Any, seed: int, stream: str,
                    site: int, scale: float, dtype: Any) -> Any:
    out = np.empty((len(index), stored.shape[1]), dtype) if out is None else out
    return kernels.binarised_rows(stored, index, clock, out, seed, stream_number(stream), site, scale)


accelerate("normal", _normal)
accelerate("binarised_rows", _binarised_rows)
accelerate("guard", lambda kernels, *arrays, **attributes: guard(kernels.sum_of_squares, *arrays, **attributes))
accelerate("weight_prior", lambda kernels, g, theta, factor: kernels.add_scaled(g, theta, factor))
for _name in ("adam", "adagrad", "sgd"):
    accelerate(_name, lambda kernels, *arrays, _name=_name, **hyper: update(getattr(kernels, _name), *arrays, **hyper))
