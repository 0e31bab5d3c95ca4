"""The fast twins: fused kernels over plain arrays. This package knows nothing of tinyvae.

`kernels_for(device)` gives the module whose functions serve arrays of that device; every such module has the
functions named in `NAMES`, with the same arguments, but for those in `CPU_ONLY`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "accumulate", "activates", "adagrad", "adam", "bernoulli_log_prob", "bias_activation", "bias_activation_grad", "bias_grad",
    "binarised_rows", "gamma_log_sample_grad", "gaussian_log_prob", "gaussian_sample_kl", "gaussian_sample_kl_grad",
    "grey_rows", "guard", "lgamma", "log_gamma", "matmul", "multiplies", "next_indices", "next_rates", "normal",
    "objective", "objective_grad", "pays", "polygamma", "scale_rows", "sgd", "sparse_matmul", "sparse_matmul_grad",
    "tick", "weight_prior",
)  # fmt: skip
# A GPU multiplies dense matrices faster than it could leave out their zeros; its array library has special functions.
CPU_ONLY = ("gamma_log_sample_grad", "lgamma", "log_gamma", "polygamma", "sparse_matmul", "sparse_matmul_grad")
_MODULES = {"cpu": "tinyvae_kernels.cpu", "cuda": "tinyvae_kernels.cuda"}


def kernels_for(device: str) -> ModuleType:
    """The kernels of a device; ImportError if what they are written in is missing."""
    return importlib.import_module(_MODULES[device])
