"""Beta-gamma matrix factorisation of binary images (G-REP, section 5.3): positive scores, weights between 0 and 1.

    z ~ Gamma(0.1, 0.3)  (n, k)        w ~ Beta(0.1, 0.1)  (k, d)        x ~ Bernoulli(sigmoid(z logit w))  (n, d)

A tenth of the pixels is held out, and judged by the mean probability over draws of q. (The paper names the families and
the 100 components; the link and the priors' numbers are our reading of it.)

    python examples/beta_gamma_factorisation.py           # both estimators on 1000 binarised digits, for equal time
    python examples/beta_gamma_factorisation.py --quick   # made-up bits, in seconds
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import tinyvae as tv
from tinyvae.distributions import Beta, Gamma
from tinyvae.engine.noise import Noise
from tinyvae.inference.svi import Factor, Inference, LogJoint, infer

SHAPE, RATE, WEIGHT = 0.1, 0.3, 0.1
HELD_OUT = 0.1
METHODS: dict[str, dict[str, Any]] = {
    "G-REP": {"estimator": "grep", "samples": 1, "baseline": "none"},
    "BBVI": {"estimator": "score", "samples": 30, "baseline": "fitted"},
}


class Score(Gamma):
    """A Gamma whose shape stays above 0.001 and whose mean above 0.0001."""

    @classmethod
    def from_raw(cls, raw: tv.Tensor) -> Score:
        shape, mean = (part.softplus() + least for part, least in zip(raw.split(2), (1e-3, 1e-4), strict=True))
        return cls(shape, shape / mean)


class Weight(Beta):
    """A Beta whose parameters stay above 0.001."""

    @classmethod
    def from_raw(cls, raw: tv.Tensor) -> Weight:
        a, b = (part.softplus() + 1e-3 for part in raw.split(2))
        return cls(a, b)


def logits_of(z: tv.Tensor, w: tv.Tensor) -> tv.Tensor:
    """z logit w, (samples, n, d): the logits as they were drawn, for no w is exactly 0 or 1 there."""
    return z @ (w.log() - (1 - w).log())


def log_joint_of(x: np.ndarray, seen: np.ndarray) -> LogJoint:
    """log p(x, z, w) of the pixels that are seen, as terms, for bits x (n, d)."""
    bits, mask = tv.Tensor(x[None]), tv.Tensor(seen[None].astype(x.dtype))
    shape, rate, weight = (tv.Tensor(np.full((), value, x.dtype)) for value in (SHAPE, RATE, WEIGHT))
    score, unit = Gamma(shape, rate), Beta(weight, weight)

    def log_joint(z: dict[str, tv.Tensor]) -> list[tv.Term]:
        logits, log_z = logits_of(z["z"], z["w"]), z["z"].log()
        log_w, log_rest = z["w"].log(), (1 - z["w"]).log()
        return [
            tv.Term((bits * logits - logits.softplus()) * mask, "nd", ("z", "w")),
            tv.Term(score.log_density(log_z) - log_z, "nk", ("z",)),
            tv.Term(unit.log_density(log_w - log_rest) - log_w - log_rest, "kd", ("w",)),
        ]

    return log_joint


def fit(x: np.ndarray, seen: np.ndarray, components: int, method: str, seconds: float, steps: int) -> Inference:
    """Fit q until the time or the steps are over."""
    begun = time.perf_counter()
    free = {"z": Factor(Score, (len(x), components), "nk"), "w": Factor(Weight, (components, x.shape[1]), "kd")}
    return infer(log_joint_of(x, seen), free, steps=steps, optimizer="advi", lr=0.5, dtype=x.dtype,
                 enough=lambda step, elbo: time.perf_counter() - begun > seconds, **METHODS[method])


def judged(found: Inference, x: np.ndarray, held: np.ndarray, draws: int = 50) -> tuple[float, float]:
    """Mean log-likelihood of a held-out pixel in nats (higher is better), and its standard error over pixels."""
    total, noise = np.zeros(x.shape), Noise(1, "judge")
    for step in range(draws):
        noise.restart(step)
        logits = logits_of(*(found.q[name].sample(noise) for name in ("z", "w"))).numpy()[0].astype(np.float64)
        total += np.exp(-np.logaddexp(0, np.where(x > 0, -logits, logits)))
    log_mean = np.log(total[held] / draws)
    return float(log_mean.mean()), float(log_mean.std(ddof=1) / np.sqrt(held.sum()))


def digits(quick: bool) -> np.ndarray:
    """1000 binarised digits, (1000, 784); quick: made-up bits, (20, 16)."""
    if quick:
        draw = np.random.default_rng(0)
        return (draw.random((20, 16)) < (draw.random((20, 2)) > 0.5) @ (draw.random((2, 16)) * 0.5)).astype(np.float32)
    data = tv.data.load("mnist-static")
    return data.train[:1000].astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120, help="for each method")
    parser.add_argument("--quick", action="store_true", help="made-up bits, 2 components, 30 steps")
    chosen = parser.parse_args()
    x, components = digits(chosen.quick), 2 if chosen.quick else 100
    held = np.random.default_rng(0).random(x.shape) < HELD_OUT
    for method in METHODS:
        found = fit(x, ~held, components, method, chosen.seconds, 30 if chosen.quick else 100_000)
        value, error = judged(found, x, held)
        print(f"{method}: {len(found.elbo)} steps in {found.seconds[-1]:.1f} s; held-out log-likelihood {value:.4f} ± "
              f"{error:.4f} nats a pixel (higher is better, {held.sum():,} pixels, 50 draws)", flush=True)


if __name__ == "__main__":
    main()
