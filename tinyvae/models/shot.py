"""SHOT-VAE's two ideas (Feng, Kong, Chen, Zhang, Zhu & Chen 2021) in a multilayer perceptron; each can be switched off.

The model is that of M2 (m2.py), p(y) p(z) p(x|y, z) with q(y|x) and q(z|x, y), and is trained as it is, with

    smoothing       the smooth-ELBO: a label stands for the distribution p~(y) = (1 - smoothing) [y is the label] +
                    smoothing / classes, in the bound of labelled data, sum_y p~(y) (-L(x, y)), and in the classifier's
                    term, sum_y p~(y) log q(y|x);
    interpolation   the weight of the optimal interpolation: for x~ = l x + (1 - l) x' of two data, with l ~ Beta(2, 2),
                    q(y|x~) is drawn to the same mixture of q(y|x) and q(y|x') by the cross-entropy; no gradient flows
                    into the targets.

    style           `apart`: q(z|x) does not read the class, as in the authors' model, and the interpolation draws its
                    mean and standard deviation, too, to theirs by squared error. A perceptron then leaves the class to
                    z. So q(z|x, y) is M2's by default, `given-class`.

    capacities      as the authors train on MNIST: with a `capacity_weight` w above 0 training holds the two KL of -U(x)
                    at capacities in place of lowering them,

                        -U(x) = E_q[log p(x|y, z)] - KL_z - KL_y   becomes   E_q[log p(x|y, z)] - w |KL_z - I_z| -
                        w |KL_y - I_y|,    KL_y = log(classes) - H[q(y|x)],

                    where I_z and I_y rise linearly over `ramp` steps from 0 to `capacity` and to `class_capacity`, or
                    log(classes) if that is less. The authors take w = 30 and the other defaults.

With all at 0 it is M2. The authors' code differs in that it draws y by Gumbel-softmax, where here the classes are
summed, and in that it lets the weights rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tinyvae.choices import known
from tinyvae.engine.rules import INDEX, into, rule
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.inference.bounds import Draw, Terms
from tinyvae.models.batch import Batch
from tinyvae.models.m2 import M2, probabilities

GIVEN_CLASS, APART = STYLES = "given-class", "apart"


def _risen(xp: Any, counters: Any, out: Any, steps: int, dtype: Any) -> Any:
    return into(out, xp.minimum(counters[:1] / steps, 1).astype(dtype))


# min(1, step / steps), (1,), of the step that `counters` holds
rule("risen", _risen, (None,), (INDEX,))


class Shot(M2, kind="shot"):
    """q(y|x), q(z|x, y) and p(x|y, z), each a network."""

    options: ClassVar = {
        "alpha": M2.options["alpha"], "smoothing": "The part of a label that goes to all classes alike; 0 for none.",
        "interpolation": "The weight of the interpolation between two data; 0 for none.",
        "style": "Whether q(z|x, y) reads the class, as in M2 (given-class), or not, as the authors' (apart).",
        "capacity_weight": "The weight of |KL - capacity| in place of each KL; 0 for the plain KL, the authors' is 30.",
        "capacity": "The nats at which KL(q(z|x) || p(z)) is held.",
        "class_capacity": "The nats at which KL(q(y|x) || p(y)) is held, at most log(classes).",
        "ramp": "The number of steps over which the capacities rise from 0.",
    }  # fmt: skip

    def build(self, pixels: int, classes: int = 10, hidden: int | Sequence[int] = 400, latent: int = 20,
              activation: str = "relu", alpha: float = 1.0, likelihood: str = "bernoulli",
              posterior: str = "normal", smoothing: float = 0.01, interpolation: float = 10.0,
              style: str = GIVEN_CLASS, capacity_weight: float = 0.0, capacity: float = 17.5,
              class_capacity: float = 17.0, ramp: int = 25_000) -> None:
        if not (0 <= smoothing < 1 and 0 <= interpolation < float("inf")):
            raise ValueError(f"found smoothing={smoothing} and interpolation={interpolation}; expected a number from 0 "
                             "to below 1, and a finite one of at least 0")
        if not (0 <= capacity_weight < float("inf") and 0 <= min(capacity, class_capacity) and ramp >= 1
                and max(capacity, class_capacity) < float("inf")):
            raise ValueError(f"found capacity_weight={capacity_weight}, capacity={capacity}, class_capacity="
                             f"{class_capacity} and ramp={ramp}; expected finite numbers of at least 0, and at least "
                             "one step")
        self.reads_class = known("style", style, STYLES) == GIVEN_CLASS
        super().build(pixels, classes, hidden, latent, activation, alpha, likelihood, posterior)
        self.weights = {"classifier": alpha} | ({"interpolation": -interpolation} if interpolation else {})
        self.mixes = f"interpolation={interpolation:g}, which mixes each datum with the next one" * (interpolation > 0)

    def of_all(self, batch: Batch, draw: Draw) -> Terms:
        weight = self.config["capacity_weight"]
        if batch.labelled is None or not weight:
            return super().of_all(batch, draw)
        q = self.q_y(self.read(batch.x))
        reconstruction, kl = self.parts(batch.x, self.every, draw)
        entropy, risen = q.entropy(), apply("risen", Tensor(draw.noise.counters), steps=self.config["ramp"],
                                            dtype=np.dtype(self.dtype))
        weights = probabilities(q)
        plain = (weights * (reconstruction - kl - self.log_classes)).sum(0) + entropy
        capacities = self.config["capacity"], min(self.config["class_capacity"], self.log_classes)
        away = sum(abs(found - limit * risen) for found, limit in zip(
            ((weights * kl).sum(0), self.log_classes - entropy), capacities, strict=True))
        held = (weights * reconstruction).sum(0) - weight * away
        return Terms({"unlabelled": plain}, unlabelled=held)  # records show the bound itself

    def known(self, x: Tensor, y: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        smoothing = self.config["smoothing"]
        if not smoothing:
            return super().known(x, y, draw)
        smooth = (1 - smoothing) * y + smoothing / y.shape[-1]  # (rows, classes)
        bound = (smooth.T * self.given(x, self.every, draw)).sum(0)
        return bound, (smooth * self.q_y(self.read(x)).logits.log_softmax()).sum(-1)

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        terms = super().terms(batch, draw)
        if batch.labelled is None or not self.config["interpolation"] or len(batch) < 2:
            return terms
        return terms | Terms(interpolation=self.between(batch.x, draw))

    def between(self, x: Tensor, draw: Draw) -> Tensor:
        """What q says of a mixture of each datum and the next one, against the mixture of what it says of both."""
        a, b, c = (draw.noise.uniform((len(x), 1), self.dtype) for _ in range(3))
        share = a.minimum(b).maximum(a.maximum(b).minimum(c))  # the median of three uniform numbers is Beta(2, 2)

        def mixed(values: Tensor) -> Tensor:
            values = values.detach()
            return share * values + (1 - share) * values[1:].concatenate(values[:1])

        seen, between = self.read(x), self.read(mixed(x))
        classes = -(mixed(self.q_y(seen).mean) * self.q_y(between).logits.log_softmax()).sum(-1)
        if self.reads_class:  # x~ mixes two classes, and q(z|x~, y) reads one
            return classes
        q, found = self.q_z(seen), self.q_z(between)
        mean, spread = (self._error(ours, mixed(theirs)) for ours, theirs in (
            (found.mean, q.mean), (found.variance.sqrt(), q.variance.sqrt())))
        return classes + mean + spread

    @staticmethod
    def _error(a: Tensor, b: Tensor) -> Any:
        d = a - b
        return (d * d).sum(-1)
