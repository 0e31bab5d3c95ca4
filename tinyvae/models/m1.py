"""M1: the features of a VAE, then a classifier of them (Kingma, Rezende, Mohamed & Welling 2014, section 3.1).

The VAE learns from all data and reads no label. When an epoch ends, scikit-learn fits a logistic regression to the
posterior means of the labelled data. Its weights are parameters of the model, so checkpoints hold them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from tinyvae.data import DataSet
from tinyvae.distributions import Categorical
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.models.base import Model, Phase, widths_of
from tinyvae.models.batch import Batch, rows_of
from tinyvae.models.learners import AEVB
from tinyvae.models.priors import STANDARD
from tinyvae.models.vae import VAE

DRAWS = 10  # of the pixels of each labelled datum, where pixels are drawn


class M1(VAE, kind="m1"):
    """A VAE, and q(y|x) = softmax(W mean[z|x] + b)."""

    needs = ("labelled",)
    has_pictures = True  # it generates from z alone
    options: ClassVar = VAE.options | {
        "strength": "The inverse of the penalty of the logistic regression, scikit-learn's C."}
    __init__ = Model.__init__

    def build(self, pixels: int, hidden: int | Sequence[int] = 400, latent: int = 20, activation: str = "relu",
              likelihood: str = "bernoulli", posterior: str = "normal", flow_steps: int = 0, prior: str = STANDARD,
              pseudo_inputs: int = 0, learner: str = AEVB, classes: int = 10, strength: float = 1.0) -> None:
        if not 0 < strength < math.inf:
            raise ValueError(f"found strength={strength}; expected a finite number above 0, the inverse of the penalty "
                             "of the logistic regression")
        super().build(pixels, widths_of(hidden), latent, activation, likelihood, posterior, flow_steps, prior,
                      pseudo_inputs, learner)
        self.classifier = self.network("classifier", latent, (), Categorical, classes)

    def phases(self) -> Sequence[Phase]:
        networks = tuple(network.name for network in self._networks if network is not self.classifier)
        return tuple(replace(phase, networks=networks) for phase in super().phases())

    def classify(self, batch: Batch) -> Tensor:
        return self.classifier(self.q(batch.x).mean).mean

    def learn(self, data: DataSet) -> None:
        """Fit the classifier to the posterior means of the labelled training data."""
        from sklearn.linear_model import LogisticRegression

        labels = np.zeros(0, int) if data.train_labels is None else data.train_labels
        known = np.flatnonzero(labels >= 0)
        dynamic = data.pixels == "dynamic"
        noise = Noise(0, "features", self.xp.zeros(1, np.int64)) if dynamic else None
        rows, index = rows_of(self, data, "train", noise, only=known), Tensor(self.xp.arange(len(known)))
        found = []
        for number in range(DRAWS if dynamic else 1):
            if noise is not None:
                noise.restart(number)
            found.append(self.q(rows.at(index).x).mean.numpy())
        features = np.concatenate(found).astype(np.float64)
        targets = np.tile(labels[known], len(found))
        fitted = LogisticRegression(C=self.config["strength"], max_iter=1000).fit(features, targets)
        coefficients, offsets = fitted.coef_, fitted.intercept_
        if len(fitted.classes_) == 2:  # one score, of the second class against the first
            coefficients, offsets = np.vstack([-coefficients, coefficients]) / 2, np.append(-offsets, offsets) / 2
        weight = np.zeros((features.shape[1], self.config["classes"]))
        bias = np.full(self.config["classes"], offsets.min() - 50.0)  # a class without a label gets no probability
        weight[:, fitted.classes_], bias[fitted.classes_] = coefficients.T, offsets
        layer = self.classifier.layers[0]
        layer.weight.data[...], layer.bias.data[...] = self.xp.asarray(weight), self.xp.asarray(bias)
