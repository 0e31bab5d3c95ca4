"""The inputs on which each fused operation is measured, with the sizes of a step of 784-500-20 and batch 100."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

PIXELS, HIDDEN, LATENT, BATCH = 784, 500, 20, 100
WEIGHTS = sum((m + 1) * n for m, n in ((PIXELS, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, PIXELS)))
WIDTH = 512  # the number of hidden units in a large case
GATE = {"opening": 2.0}
IDLE, BETWEEN = "a quarter idle", "between products"  # labels of cases with the same call in other circumstances
Arrays = tuple[np.ndarray, ...]


class Case(NamedTuple):
    """One call of an operation. Arrays of numbers are float64 with values that float32 represents exactly."""

    operation: str
    label: str  # distinguishes the cases of an operation
    arrays: Arrays
    attributes: dict[str, Any]
    products: Arrays = ()  # two matrices that are multiplied before and after the call, as in a step

    def __str__(self) -> str:
        return f"{self.operation}, {self.label}" if self.label else self.operation


def cases() -> list[Case]:
    """The cases of all operations with a kernel, with the same numbers at every call."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rounded(scale * rng.normal(size=shape))

    pre, raw, eps = normal(1, BATCH, HIDDEN), normal(BATCH, 2 * LATENT), normal(1, BATCH, LATENT)
    other = np.ascontiguousarray(raw[::-1])
    logits, grey = normal(1, BATCH, PIXELS, scale=3), rounded(rng.random((BATCH, PIXELS)))
    values = {"tanh": np.tanh(pre), "relu": np.maximum(pre, 0), "softplus": np.logaddexp(0, pre)}
    found = [Case("bias_activation", "identity", (normal(1, BATCH, PIXELS), normal(PIXELS)), {"kind": "identity"})]
    for kind, y in values.items():
        found += [Case("bias_activation", kind, (pre, normal(HIDDEN)), {"kind": kind}),
                  Case("bias_activation_grad", kind, (normal(1, BATCH, HIDDEN), rounded(y)), {"kind": kind})]
    found += [
        Case("gaussian_sample_kl", "", (raw, eps), {}),
        Case("gaussian_sample_kl_grad", "", (normal(1, BATCH, LATENT), normal(BATCH), raw, eps), {}),
        Case("gaussian_sample_kl_from", "", (raw, other, eps), {}),
        Case("gaussian_sample_kl_from_grad", "", (normal(1, BATCH, LATENT), normal(BATCH), raw, other, eps), {}),
        Case("gate", "", (raw, other[:, :LATENT].copy()), GATE),
        Case("gate_grad", "", (normal(BATCH, LATENT), normal(BATCH), raw, other[:, :LATENT].copy()), GATE),
        Case("bernoulli_log_prob", "", (logits, np.round(grey)), {}),
        Case("gaussian_log_prob", "", (normal(1, BATCH, 2 * PIXELS), grey), {}),
        Case("scale_rows", "", (normal(1, BATCH), logits), {}),
        Case("normal", "", (np.array([7, 0, 0]),),
             {"seed": 3, "stream": "noise", "site": 0, "shape": (1, BATCH, LATENT), "dtype": None}),
        Case("binarised_rows", "", (rng.integers(0, 256, (2000, PIXELS)).astype(np.uint8),
                                    rng.permutation(2000)[:BATCH], np.array([7, 0, 0])),
             {"seed": 3, "stream": "binarise", "site": 0, "scale": 255.0, "dtype": None}),
    ]  # fmt: skip
    x, weight = np.round(grey), normal(PIXELS, HIDDEN, scale=0.05)
    back, counters = normal(BATCH, HIDDEN), np.array([7, BATCH, 1])
    pixels = 1.0 * (rng.random((BATCH, PIXELS)) < 0.13)  # the share of pixels that are on in MNIST
    padded = np.pad(pixels != 0, ((0, 0), (0, -PIXELS % 64)))
    index = np.packbits(padded, axis=1, bitorder="little").view("<i8").astype(np.int64)
    terms = rounded(normal(BATCH, scale=10) - 100), rounded(10 * rng.random(BATCH))
    found += [
        Case("matmul", "x @ W", (x, weight), {}), Case("matmul", "g @ W.T", (normal(BATCH, HIDDEN), weight.T), {}),
        Case("matmul", "x.T @ g", (x.T, back), {}),
        Case("sparse_matmul", "13% on", (pixels, weight), {}),
        Case("sparse_matmul_grad", "13% on", (back, index, pixels), {}),
        Case("bias_grad", "", (normal(1, BATCH, PIXELS),), {}),
        Case("objective", "", (*terms, rounded(np.array([1e-3, 0.5]))), {}),
        Case("objective_grad", "", (np.array(1.0), terms[1], rounded(np.array([1e-3, 0.5]))), {}),
        Case("grey_rows", "", (rng.integers(0, 256, (2000, PIXELS)).astype(np.uint8), rng.permutation(2000)[:BATCH]),
             {"scale": 255.0, "dtype": None}),
        Case("next_indices", "", (rng.permutation(2000), counters), {"batch": BATCH}),
        Case("next_rates", "", (rounded(rng.random((20, 2))), counters), {}),
        Case("tick", "", (counters,), {"batch": BATCH}),
        Case("accumulate", "", (*terms, np.array(100.0), np.zeros(7), np.array([1.0, 1.0, 3.0, 9.0])), {}),
    ]  # fmt: skip
    theta, g = normal(WEIGHTS, scale=0.05), normal(WEIGHTS)
    m, v = normal(WEIGHTS, scale=0.1), rounded(normal(WEIGHTS, scale=0.1) ** 2)
    rates, status = rounded(np.array([1e-2, 1.0])), np.array([1.0, 0.5, 1.0, 10.0])
    adam = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    idle = np.arange(WEIGHTS) < WEIGHTS // 4  # weights of pixels that have long been off
    tiny = np.float64(np.float32(1e-40))
    fading = theta, np.where(idle, 0, g), np.where(idle, tiny, m), np.where(idle, tiny, v)
    between = normal(BATCH, PIXELS), normal(PIXELS, HIDDEN)
    shape = rounded(10 ** rng.uniform(-2, 3, (BATCH, LATENT)))
    prior = np.full(LATENT, 0.5)
    log_z = rounded(np.log(rng.gamma(shape + 1)) + np.log(rng.random(shape.shape)) / shape)  # of z ~ Gamma(shape, 1)
    return [
        *found,
        Case("guard", "", (np.array(1.0), g, status), {"max_norm": math.inf}),
        Case("weight_prior", "", (g, theta), {"factor": 1e-5}),
        Case("adam", "", (theta, g, m, v, rates, status), adam),
        Case("adam", IDLE, (*fading, rates, status), adam),
        Case("adam", BETWEEN, (theta, g, m, v, rates, status), adam, between),
        Case("adagrad", "", (theta, g, v, rates, status), {"epsilon": 0.0}),
        Case("sgd", "", (theta, g, m, rates, status), {"momentum": 0.9}),
        Case("lgamma", "", (shape,), {}), Case("polygamma", "order 0", (shape,), {"order": 0}),
        Case("polygamma", "order 1", (shape,), {"order": 1}), Case("polygamma", "order 2", (shape,), {"order": 2}),
        Case("student_constant", "", (shape,), {}), Case("student_constant_slope", "", (shape,), {}),
        Case("stirling", "order 0", (shape,), {"order": 0}), Case("stirling", "order 1", (shape,), {"order": 1}),
        Case("log_ratio", "", (shape, prior, rounded(np.log(shape))), {}),
        Case("deviance", "", (prior, shape, rounded(np.log(shape))), {}),
        Case("gamma_kl", "", (shape, shape[::-1].copy(), prior, prior), {}),
        Case("dirichlet_kl", "", (shape, prior), {}),
        Case("gamma_log_sample_grad", "", (log_z, shape), {}),
        Case("log_gamma", "", (shape, np.array([7, 0, 0])), {"seed": 3, "stream": "noise", "site": 0, "samples": 1}),
    ]


def large(count: int) -> Iterator[Case]:
    """Yield the memory-bound operations, with `count` float32 numbers in their largest array."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return scale * rng.standard_normal(shape, np.float32)

    rows, rows_of_pairs, many, data = (count // n for n in (PIXELS, 2 * PIXELS, WIDTH, 2 * LATENT))
    yield Case("bias_activation", "identity", (normal(1, rows, PIXELS), normal(PIXELS)), {"kind": "identity"})
    values = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh, "softplus": lambda a: np.log1p(np.exp(a))}
    for kind, value in values.items():
        pre = normal(1, many, WIDTH)
        yield Case("bias_activation", kind, (pre, normal(WIDTH)), {"kind": kind})
        yield Case("bias_activation_grad", kind, (normal(1, many, WIDTH), value(pre)), {"kind": kind})
    yield Case("bias_grad", "", (normal(1, rows, PIXELS),), {})
    raw, eps = normal(data, 2 * LATENT), normal(1, data, LATENT)
    yield Case("gaussian_sample_kl", "", (raw, eps), {})
    yield Case("gaussian_sample_kl_grad", "", (normal(1, data, LATENT), normal(data), raw, eps), {})
    other = np.ascontiguousarray(raw[::-1])
    yield Case("gaussian_sample_kl_from", "", (raw, other, eps), {})
    yield Case("gaussian_sample_kl_from_grad", "", (normal(1, data, LATENT), normal(data), raw, other, eps), {})
    yield Case("gate", "", (raw, eps[0]), GATE)
    yield Case("gate_grad", "", (normal(data, LATENT), normal(data), raw, eps[0]), GATE)
    grey = rng.random((rows, PIXELS), np.float32)
    yield Case("bernoulli_log_prob", "", (normal(1, rows, PIXELS, scale=3), np.round(grey)), {})
    yield Case("gaussian_log_prob", "", (normal(1, rows_of_pairs, 2 * PIXELS), grey[:rows_of_pairs]), {})
    yield Case("scale_rows", "", (normal(1, rows), normal(1, rows, PIXELS)), {})
    counters, stored, index = np.array([7, 0, 0]), (255 * grey).astype(np.uint8), rng.permutation(rows)
    yield Case("normal", "", (counters,), {"seed": 3, "stream": "noise", "site": 0, "dtype": None,
                                           "shape": (1, count // LATENT, LATENT)})  # fmt: skip
    yield Case("binarised_rows", "", (stored, index, counters), {"seed": 3, "stream": "binarise", "site": 0,
                                                                 "scale": 255.0, "dtype": None})  # fmt: skip
    yield Case("grey_rows", "", (stored, index), {"scale": 255.0, "dtype": None})
    theta, g, m, v = normal(count, scale=0.05), normal(count), normal(count, scale=0.1), normal(count, scale=0.1) ** 2
    rates, status = rounded(np.array([1e-2, 1.0])), np.array([1.0, 0.5, 1.0, 10.0])
    yield Case("guard", "", (np.array(1.0), g, status), {"max_norm": math.inf})
    yield Case("weight_prior", "", (g, theta), {"factor": 1e-5})
    yield Case("adam", "", (theta, g, m, v, rates, status), {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8})
    yield Case("adagrad", "", (theta, g, v, rates, status), {"epsilon": 0.0})
    yield Case("sgd", "", (theta, g, m, rates, status), {"momentum": 0.9})


def rounded(a: Any) -> np.ndarray:
    """The numbers rounded to float32, as float64."""
    return np.asarray(a, np.float32).astype(np.float64)
