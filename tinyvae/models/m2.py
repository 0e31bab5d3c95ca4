"""M2, semi-supervised learning with deep generative models (Kingma, Rezende, Mohamed & Welling 2014).

p(x, y, z) = p(y) p(z) p(x|y, z) with p(y) uniform;  q(y, z|x) = q(y|x) q(z|x, y). For a label that is known

    -L(x, y) = E_q(z|x,y)[log p(x|y, z)] + log p(y) - KL(q(z|x, y) || p(z))                       (eq. 6)

and for one that is not, the sum over all classes, -U: sum_y q(y|x) (-L(x, y)) + H[q(y|x)] (eq. 7). The classifier's own
log q(y|x) is added for known labels, with the weight alpha (eq. 9).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import LIKELIHOODS, Categorical, Normal, misfit
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Joint, Terms, elbo
from tinyvae.models.base import Model
from tinyvae.models.batch import Batch


class M2(Model, kind="m2"):
    """q(y|x), q(z|x, y) and p(x|y, z), each a network."""

    needs = ("labelled",)
    options: ClassVar = {"alpha": "The weight of the classifier's term."}

    def build(self, pixels: int, classes: int = 10, hidden: int | Sequence[int] = 400, latent: int = 20,
              activation: str = "relu", alpha: float = 1.0, likelihood: str = "bernoulli") -> None:
        pixel = LIKELIHOODS[likelihood].family
        self.q_y = self.network("q_y", pixels, hidden, Categorical, classes, activation)
        self.q_z = self.network("q_z", pixels + classes, hidden, Normal, latent, activation)
        self.p_x = self.network("p_x", classes + latent, hidden, pixel, pixels, activation)
        self.p_z = Normal.standard(latent, self.dtype, self.xp)
        self.every = Tensor(self.xp.asarray(np.eye(classes, dtype=self.dtype)[:, None]))  # (classes, 1, classes)
        self.log_classes, self.weights = math.log(classes), {"classifier": alpha}

    def given(self, x: Tensor, y: Tensor, draw: Draw) -> Tensor:
        """-L(x, y): (rows,), or (classes, rows) for y = every class."""
        p = Joint(self.p_z, lambda z: self.p_x(y, z))
        return elbo(p, lambda _: self.q_z(x, y), x, draw.noise, draw.samples) - self.log_classes

    def unlabelled(self, x: Tensor, draw: Draw) -> Tensor:
        """-U(x), (rows,)."""
        q = self.q_y(x)
        return (q.mean.T * self.given(x, self.every, draw)).sum(0) + q.entropy()

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        terms = Terms(unlabelled=self.unlabelled(batch.x, draw))
        if (seen := batch.labelled) is not None and seen.y is not None:
            terms |= Terms(labelled=self.given(seen.x, seen.y, draw), classifier=self.q_y(seen.x).log_prob(seen.y))
        return terms

    def classify(self, batch: Batch) -> Tensor:
        return self.q_y(batch.x).mean

    def check(self, data: DataSet) -> None:
        super().check(data)
        if fault := misfit(self.config["likelihood"], data.kind, data.name):
            raise ValueError(fault)
