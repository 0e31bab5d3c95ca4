"""Fused operations: one kernel where the readable form takes several passes over memory.

Each row here names its twin, a composition of ordinary rows that is its specification, and gives all its gradients
in one launch. The kernels live in the package `tinyvae_kernels` and are imported when the first fused row runs:

    with tinyvae.fused(False):  ...   # the twins, in this block; no Numba needed
    tinyvae.fused(False)              # or from here on

A fused row has no second derivative; its twin has.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyvae import distributions  # noqa: F401 - their rows get kernels here
from tinyvae.distributions import special  # noqa: F401 - their rows get kernels here
from tinyvae.engine.devices import NAMESPACES, namespace_of
from tinyvae.engine.noise import stream_number
from tinyvae.engine.rules import ANY, INDEX, TABLE, UNIT, rule
from tinyvae.nn import optimizers  # noqa: F401 - their rows get kernels here
from tinyvae.training import batches  # noqa: F401 - their rows get kernels here

if TYPE_CHECKING:
    from tinyvae.engine.tensor import Tensor

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


class tf32:
    """Let a GPU's products of float32 matrices round factors to TF32's 11 bits (True) or not (False), from now on or in
    a block: faster, and a product's error is about 1e-3 of its terms. A recorded step keeps what it was recorded with;
    the CPU and float64 know no TF32."""

    on = False

    def __init__(self, on: bool = True) -> None:
        self._before, tf32.on = tf32.on, bool(on)

    def __enter__(self) -> tf32:
        return self

    def __exit__(self, *_: Any) -> None:
        tf32.on = self._before


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


def lay_out(vector: Any, matrices: Sequence[tuple[int, int, int]]) -> None:
    """Tell the CPU's kernels of which matrices a flat vector is made, as (first number, rows, columns)."""
    if namespace_of(vector).device == "cpu" and importlib.util.find_spec("tinyvae_kernels"):
        importlib.import_module("tinyvae_kernels.layouts").lay_out(vector, matrices)


class Kernel:
    """A row's kernel on one device, called like the row's value. `bind` gives it as a call over fixed arrays, which a
    tape joins with its neighbours into one; `prepare` makes the kernel's arguments of the row's."""

    def __init__(self, launcher: Any, prepare: Callable[..., dict[str, Any]] | None) -> None:
        self.launcher, self.prepare = launcher, prepare or (lambda arrays, **attributes: attributes)

    def __call__(self, xp: Any, *arrays: Any, **attributes: Any) -> Any:
        return self.launcher(*arrays, **self.prepare(arrays, **attributes))

    def bind(self, xp: Any, *arrays: Any, **attributes: Any) -> Callable[[], Any]:
        return self.launcher.bind(*arrays, **self.prepare(arrays, **attributes))


def accelerate(name: str, prepare: Callable[..., dict[str, Any]] | None = None) -> None:
    """Give a row the kernel of its name."""

    @functools.cache
    def choose(device: str) -> Kernel | None:
        kernels = load(device)
        launcher = getattr(kernels, name, None)  # a device need not have all
        return None if launcher is None else Kernel(launcher, prepare)

    TABLE[name].kernel = lambda xp: choose(xp.device)


def fuse(name: str, twin: Callable, grads: Any = None, domain: Any = (ANY,), outputs: int = 1,
         constants: tuple[int, ...] = (), accepts: Callable[..., bool] | None = None) -> None:
    """A row whose value is the kernel of its name, and which runs `twin` where the kernel cannot serve.

    A kernel trusts the shapes it is given: `accepts` says of the inputs' shapes whether they are its own, so that what
    broadcasts in another way goes to the twin, and what is wrong gets the twin's error instead of foreign memory.
    """
    row = rule(name, None, grads, domain, outputs=outputs)
    row.twin, row.constants = twin, constants
    row.accepts = accepts and (lambda *arrays: accepts(*(array.shape for array in arrays)))
    accelerate(name)


# ---- matrix products -------------------------------------------------------------------------------------------------


def _multiplies(a: Any, b: Any) -> bool:
    kernels = load(namespace_of(a).device)
    return kernels is not None and kernels.multiplies(a, b)


def _sparse(x: Tensor, w: Tensor) -> tuple[Tensor, None]:
    return x @ w, None


def _sparse_grads(g: Any, y: Any, x: Tensor, w: Tensor) -> tuple[None, Tensor]:
    return None, g[0].contiguous().apply("sparse_matmul_grad", y[1], x)


def _mostly_zeros(x: Any, w: Any) -> bool:
    """Are these two matrices, the first with so many zeros that it pays to leave them out?"""
    kernels = load(namespace_of(x).device)
    return kernels is not None and x.ndim == w.ndim == 2 and x.shape[1:] == w.shape[:1] and kernels.pays(x, w)


TABLE["matmul"].accepts, TABLE["matmul"].strided = _multiplies, True
accelerate("matmul")
_exact = TABLE["matmul"].kernel


def _product(xp: Any) -> Kernel | None:
    assert _exact is not None
    kernel = _exact(xp)
    if kernel is None or not tf32.on or xp.device == "cpu":
        return kernel
    return Kernel(kernel.launcher, lambda arrays, **attributes: attributes | {"tf32": True})


TABLE["matmul"].kernel = _product
# x @ w for data x, whose zeros are left out; the kernel also gives the index of what is not 0
fuse("sparse_matmul", _sparse, _sparse_grads, (UNIT, ANY), 2, (0,))
fuse("sparse_matmul_grad", lambda g, index, x: x.swap() @ g, domain=(ANY, INDEX, UNIT),
     accepts=lambda g, index, x: len(x) == 2 and g[:1] == x[:1] and index == (x[0], x[1] + 1))
TABLE["sparse_matmul"].accepts = _mostly_zeros

# ---- a layer's bias and activation -----------------------------------------------------------------------------------


def _activation(pre: Tensor, bias: Tensor, kind: str) -> Tensor:
    a = pre + bias
    return a if kind == "identity" else a.apply(kind)


def _activation_grads(g: Tensor, y: Tensor, pre: Tensor, bias: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind == "identity":
        return g, g.contiguous().apply("bias_grad")
    return g.contiguous().apply("bias_activation_grad", y, kind=kind)


# The slope of each activation, by its value y.
SLOPES = {"tanh": lambda y: 1 - y * y, "relu": lambda y: (y > 0).cast(y.dtype), "softplus": lambda y: -((-y).expm1())}


def _activation_grad(g: Tensor, y: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    before = g * SLOPES[kind](y)
    return before, before.reshape(-1, before.shape[-1]).sum(0)


# activation(pre + bias)
fuse("bias_activation", _activation, _activation_grads, (ANY, ANY),
     accepts=lambda pre, bias: bias == pre[-1:] > (0,))
fuse("bias_grad", lambda g: g.reshape(-1, g.shape[-1]).sum(0), domain=(ANY,), accepts=lambda g: g[-1:] > (0,))
fuse("bias_activation_grad", _activation_grad, domain=(ANY, ANY), outputs=2,
     accepts=lambda g, y: g == y and y[-1:] > (0,))


# ---- the sampled posterior -------------------------------------------------------------------------------------------


def _sample_kl(raw: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    mu, logvar = raw.split(2)
    z = mu + (0.5 * logvar).exp() * eps  # AEVB eq. (4): z = g(eps, x)
    kl = 0.5 * (mu * mu + logvar.exp() - 1 - logvar).sum(-1)  # AEVB appendix B
    return z, kl


def _sample_kl_grads(g: Any, y: Any, raw: Tensor, eps: Tensor) -> tuple[Tensor, None]:
    return g[0].contiguous().apply("gaussian_sample_kl_grad", g[1].contiguous(), raw, eps), None


def _sample_kl_grad(dz: Tensor, dkl: Tensor, raw: Tensor, eps: Tensor) -> Tensor:
    mu, logvar = raw.split(2)
    sigma, by_kl = (0.5 * logvar).exp(), dkl.reshape(-1, 1)
    by_mu = dz.sum(0) + by_kl * mu
    by_logvar = 0.5 * ((dz * eps).sum(0) * sigma + by_kl * logvar.expm1())
    return by_mu.concatenate(by_logvar, axis=-1)


# z = mu + sigma eps and KL(q(z|x) || N(0, 1)), from (mu, logvar) side by side; eps is (samples, batch, latent)
fuse("gaussian_sample_kl", _sample_kl, _sample_kl_grads, (ANY, ANY), outputs=2, constants=(1,),
     accepts=lambda raw, eps: len(eps) == 3 and raw == (eps[1], 2 * eps[2]))
fuse("gaussian_sample_kl_grad", _sample_kl_grad, domain=(ANY, ANY, ANY, ANY),
     accepts=lambda dz, dkl, raw, eps: len(eps) == 3 and dz == eps and dkl == eps[1:2] and raw == (eps[1], 2 * eps[2]))


# ---- likelihoods -----------------------------------------------------------------------------------------------------
# The kernels give log p(x) and, from the same pass, its derivative by their input; a gradient then only scales rows.


def _bernoulli(logits: Tensor, x: Tensor) -> tuple[Tensor, None]:
    # x l - log(1 + exp(l)) = (x - [l > 0]) l - log(1 + exp(-|l|)); a certain x costs nothing, also at infinite l
    above = logits > 0
    rest = x - above.cast(logits.dtype)
    linear = rest * logits
    linear = (abs(logits) == math.inf).where((rest == 0).where(0.0, linear), linear)
    return (linear - above.where(-logits, logits).softplus()).sum(-1), None


def _gaussian(raw: Tensor, x: Tensor) -> tuple[Tensor, None]:
    a, logvar = raw.split(2)
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
     accepts=lambda logits, x: _of_rows(logits, x, 1))
# log p(x) of each row under N(sigmoid(a), exp(logvar)), from (a, logvar) side by side
fuse("gaussian_log_prob", _gaussian, _likelihood_grads, (ANY, UNIT), 2, (1,),
     accepts=lambda raw, x: _of_rows(raw, x, 2))
fuse("scale_rows", lambda g, a: g.reshape(*g.shape, 1) * a, domain=(ANY, ANY),
     accepts=lambda g, a: g == a[:-1] and a[-1:] > (0,))


# ---- the objective ---------------------------------------------------------------------------------------------------


def _objective(reconstruction: Tensor, kl: Tensor, rates: Tensor) -> Tensor:
    return rates[1] * kl.mean() - reconstruction.mean()


def _objective_grads(g: Tensor, y: Tensor, reconstruction: Tensor, kl: Tensor, rates: Tensor) -> tuple[Any, Any, None]:
    return *g.apply("objective_grad", kl, rates), None


def _objective_grad(g: Tensor, kl: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    each = (g / kl.size).reshape(1).broadcast_to(kl.shape)
    return -each, each * rates[1]


# what training minimises, in nats per datum: weight * KL - reconstruction, from both terms (batch,) and the rates
fuse("objective", _objective, _objective_grads, (ANY, ANY, ANY), constants=(2,),
     accepts=lambda reconstruction, kl, rates: len(kl) == 1 and reconstruction == kl > (0,) and rates == (2,))
fuse("objective_grad", _objective_grad, domain=(ANY, ANY, ANY), outputs=2,
     accepts=lambda g, kl, rates: g == () and len(kl) == 1 and kl > (0,) and rates == (2,))


# ---- rows with a readable value of their own -------------------------------------------------------------------------
# (their values stand in rules.py, special.py, noise.py, batches.py, optimizers.py and training.py)


def _new(arrays: Any, shape: Any, dtype: Any) -> Any:
    return namespace_of(arrays[0]).empty(shape, dtype)


def _normal(arrays: Any, seed: int, stream: str, site: int, shape: Any, dtype: Any, out: Any = None) -> dict[str, Any]:
    out = _new(arrays, shape, dtype) if out is None else out
    return {"out": out, "seed": seed, "stream": stream_number(stream), "site": site}


def _log_gamma(arrays: Any, seed: int, stream: str, site: int, samples: int, out: Any = None) -> dict[str, Any]:
    shape = arrays[0]
    out = _new(arrays, (samples, *shape.shape), shape.dtype) if out is None else out
    return {"out": out, "seed": seed, "stream": stream_number(stream), "site": site}


def _binarised_rows(arrays: Any, seed: int, stream: str, site: int, scale: float, dtype: Any,
                    out: Any = None) -> dict[str, Any]:
    out = _new(arrays, (len(arrays[1]), arrays[0].shape[1]), dtype) if out is None else out
    return {"out": out, "seed": seed, "stream": stream_number(stream), "site": site, "scale": scale}


def _grey_rows(arrays: Any, scale: float, dtype: Any, out: Any = None) -> dict[str, Any]:
    out = _new(arrays, (len(arrays[1]), arrays[0].shape[1]), dtype) if out is None else out
    return {"out": out, "scale": scale}


def _stored(stored: Any, index: Any, *_: Any) -> bool:
    return stored.dtype in (np.uint8, np.float32) and stored.ndim == 2 and index.dtype == np.int64 and index.ndim == 1


accelerate("normal", _normal)
accelerate("binarised_rows", _binarised_rows)
accelerate("log_gamma", _log_gamma)
accelerate("grey_rows", _grey_rows)
TABLE["binarised_rows"].accepts = TABLE["grey_rows"].accepts = _stored
for _name in ("next_indices", "next_rates", "tick", "guard", "weight_prior", "adam", "adagrad", "sgd", "lgamma",
              "polygamma", "gamma_log_sample_grad"):  # fmt: skip
    accelerate(_name)
TABLE["gamma_log_sample_grad"].accepts = lambda w, a: w.shape == a.shape
