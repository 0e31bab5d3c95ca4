"""Loops with elementary functions must run in vectors: one that is left scalar is ten times slower, and right.

Looked for in the machine code, for a time proves nothing on a busy machine.
"""

import re

import numpy as np
import pytest

elementary = pytest.importorskip("tinyvae_kernels.cpu.runtime.elementary", reason="Numba is missing",
                                 exc_type=ImportError)
import llvmlite.binding as llvm  # noqa: E402 - comes with Numba
from tinyvae_kernels.cpu import activations, likelihoods, noise, posterior  # noqa: E402
from tinyvae_kernels.cpu.runtime import cache, compiled, helpers, memory  # noqa: E402

pytestmark = pytest.mark.skipif(not llvm.get_host_cpu_features().get("fma"), reason="no x86 processor with FMA")
# Multiplications only: a sum over a row is formed in vector lanes also where the loop before it was left scalar, and
# how often the compiler unrolls that sum differs from processor to processor.
PACKED = re.compile(r"\bv(?:fn?m(?:add|sub)\w*|mul)ps\b.*%[yz]mm")
MANY = 8  # packed multiplications: fewer than any polynomial here has


def packed(function, monkeypatch):
    """How many packed float32 multiplications there are in the machine code of a kernel."""
    monkeypatch.setattr(cache, "LOADED", None)  # compiled anew: the cache keeps no assembler text
    fresh = compiled.Kernel(function, helpers.HELPER["fastmath"]).compiled(np.float32)
    return len(PACKED.findall(fresh._library.get_asm_str()))


@pytest.mark.parametrize("kernel", [activations._tanh, activations._softplus, activations._softplus_grad,
                                    likelihoods._bernoulli, likelihoods._gaussian, posterior._sample_kl,
                                    posterior._sample_kl_grad, noise._normal], ids=lambda kernel: kernel.name)
def test_a_loop_with_an_elementary_function_runs_in_vectors(kernel, monkeypatch):
    assert packed(kernel.function, monkeypatch) >= MANY


def test_a_scalar_loop_is_found(monkeypatch):
    """Each number needs the one before; and a sum in vector lanes behind a scalar loop is no excuse for it."""
    exp, total, vector = elementary.exp, memory.total, memory.vector

    def scalar(p, n, s, part, parts):
        for i in range(1, n[0]):
            p[0][i] = exp(-p[0][i - 1])
        p[1][0] = total(vector(p[0], n[0]))

    assert packed(scalar, monkeypatch) < MANY
