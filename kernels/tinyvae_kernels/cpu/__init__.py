"""The kernels for NumPy arrays, in Numba: this module has the launchers that `tinyvae_kernels.NAMES` lists.

Arrays are C-contiguous (the factors of a product may be transposed) and of one floating type, float32 or float64; a
launcher refuses others. A launcher allocates its results when `out` is None and otherwise writes into `out`. No
kernel's bits depend on the number of threads.
"""

# ruff: noqa: F401 - they are looked up by name
from tinyvae_kernels.cpu.activations import activates, bias_activation, bias_activation_grad, bias_grad
from tinyvae_kernels.cpu.likelihoods import bernoulli_log_prob, gaussian_log_prob, scale_rows
from tinyvae_kernels.cpu.noise import binarised_rows, grey_rows, normal
from tinyvae_kernels.cpu.optimizers import adagrad, adam, guard, sgd, weight_prior
from tinyvae_kernels.cpu.posterior import gaussian_sample_kl, gaussian_sample_kl_grad
from tinyvae_kernels.cpu.rejection import log_gamma
from tinyvae_kernels.cpu.runtime.products import matmul, multiplies
from tinyvae_kernels.cpu.sparse import pays, sparse_matmul, sparse_matmul_grad
from tinyvae_kernels.cpu.special import gamma_log_sample_grad, lgamma, polygamma
from tinyvae_kernels.cpu.steps import accumulate, next_indices, next_rates, objective, objective_grad, tick
