"""M2, semi-supervised learning with deep generative models (Kingma, Rezende, Mohamed & Welling 2014).

p(x, y, z) = p(y) p(z) p(x|y, z) with p(y) uniform;  q(y, z|x) = q(y|x) q(z|x, y). For a label that is known

    -L(x, y) = E_q(z|x,y)[log p(x|y, z)] + log p(y) - KL(q(z|x, y) || p(z))  <=  log p(x, y)              (eq. 6)

and for one that is not, the sum over all classes: -U(x) = sum_y q(y|x) (-L(x, y)) + H[q(y|x)]  <=  log p(x)   (eq. 7).
Training raises, per datum of N, of which M have labels (eq. 9, whose weight alpha is 0.1 N for the sum over all data),

    mean over all x of -U(x)  +  M/N mean over labelled (x, y) of -L(x, y)  +  alpha mean over labelled of log q(y|x).

The labelled data stand in the first mean, too, so that it is a bound of the same kind as that of the test data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tinyvae.choices import an, chosen
from tinyvae.distributions import LIKELIHOODS, Categorical, Distribution, prior_of
from tinyvae.engine.tensor import Tensor
from tinyvae.flows import posterior_family
from tinyvae.inference.bounds import Draw, Joint, Terms, terms_of
from tinyvae.models.base import Model, widths_of
from tinyvae.models.batch import Batch


class M2(Model, kind="m2"):
    """q(y|x), q(z|x, y) and p(x|y, z), each a network."""

    needs = ("labelled",)
    bound: tuple[str, ...] = ("unlabelled",)
    reads_class = True  # whether q(z|x, y) reads y
    options: ClassVar = {"alpha": "The weight of the mean log q(y|x) of labelled data in the objective."}

    def build(self, pixels: int, classes: int = 10, hidden: int | Sequence[int] = 400, latent: int = 20,
              activation: str = "relu", alpha: float = 1.0, likelihood: str = "bernoulli",
              posterior: str = "normal") -> None:
        check_alpha(alpha)
        pixel = chosen("likelihood", likelihood, LIKELIHOODS).family
        self.declare(pixels, classes, hidden, latent, activation, pixel, posterior)
        self.weights = {"classifier": alpha}

    def declare(self, inputs: int, classes: int, hidden: int | Sequence[int], latent: int, activation: str,
                family: type[Distribution], posterior: str) -> None:
        """The networks, for data x of `inputs` numbers with the likelihood `family`."""
        if classes < 2:
            raise ValueError(f"found {classes} class{'es' * (classes != 1)} with {an(self.kind)}; expected data whose "
                             "labels have at least 2")
        self.q_y = self.network("q_y", inputs, hidden, Categorical, classes, activation)
        read = (inputs, classes) if self.reads_class else inputs
        of_z = posterior_family(posterior, latent, widths_of(hidden))
        self.q_z = self.network("q_z", read, hidden, of_z, latent, activation)
        self.p_x = self.network("p_x", (latent, classes), hidden, family, inputs, activation)
        self.p_z = prior_of(posterior, latent, self.dtype, self.xp)
        self.every = Tensor(self.xp.asarray(np.eye(classes, dtype=self.dtype)[:, None]))  # (classes, 1, classes)
        self.log_classes, self.copies = math.log(classes), classes

    def read(self, x: Tensor) -> Tensor:
        """What q_y and q_z read of x: of counts log(1 + x). The likelihood p(x|y, z) is one of x itself."""
        return self.seen(x)

    # ---- the bounds --------------------------------------------------------------------------------------------------

    def posterior_given(self, x: Tensor, y: Tensor) -> tuple[Distribution, tuple[int, ...]]:
        """q(z|x, y) as one of many rows, and their leading axes: (rows,), or (classes, rows) for y = every class.

        W_x x is computed once for all classes (`Network`), and every bound and estimator works on rows.
        """
        raw = self.q_z.raw(self.read(x), y) if self.reads_class else self.q_z.raw(self.read(x))
        if raw.ndim < y.ndim:  # the same for every class
            raw = raw.broadcast_to(len(y), *raw.shape)
        return self.q_z.family.from_raw(raw.reshape(-1, raw.shape[-1])), raw.shape[:-1]

    def joint_given(self, y: Tensor, lead: tuple[int, ...]) -> Joint:
        """p(z) and p(x|y, z), for z of the rows of `posterior_given`."""
        return Joint(self.p_z, lambda z: Given(self.p_x.family, self.p_x.raw(z.reshape(-1, *lead, z.shape[-1]), y)))

    def parts(self, x: Tensor, y: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """E_q[log p(x|y, z)] and KL(q(z|x, y) || p(z)), each (rows,), or (classes, rows) for y = every class."""
        if draw.free_bits or draw.bound == "iwae":
            what = "bound=iwae, whose weights" if draw.bound == "iwae" else f"free_bits={draw.free_bits:g}, which"
            raise ValueError(f"found {what} belong to one q(z|x), with {an(self.kind)}, which has one q(z|x, y) for "
                             "each class: take bound=elbo-a or elbo-b without free_bits")
        q, lead = self.posterior_given(x, y)
        terms = terms_of(self.joint_given(y, lead), lambda _: q, x, draw)
        return terms["reconstruction"].reshape(*lead), terms["kl"].reshape(*lead)

    def given(self, x: Tensor, y: Tensor, draw: Draw) -> Tensor:
        """-L(x, y): (rows,), or (classes, rows) for y = every class."""
        reconstruction, kl = self.parts(x, y, draw)
        return reconstruction - kl - self.log_classes

    def unlabelled(self, x: Tensor, draw: Draw) -> Tensor:
        """-U(x), (rows,)."""
        q = self.q_y(self.read(x))
        return (probabilities(q) * self.given(x, self.every, draw)).sum(0) + q.entropy()

    def known(self, x: Tensor, y: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """-L(x, y) and log q(y|x) of labelled data, each (rows,)."""
        return self.given(x, y, draw), self.q_y(self.read(x)).log_prob(y)

    def of_all(self, batch: Batch, draw: Draw) -> Terms:
        """The terms of all x, with labels or without."""
        return Terms(unlabelled=self.unlabelled(batch.x, draw))

    def terms(self, batch: Batch, draw: Draw) -> Terms:
        terms = self.of_all(batch, draw)
        if (seen := batch.labelled) is not None and seen.y is not None:
            with draw.of(seen):
                labelled, classifier = self.known(seen.x, seen.y, draw)
            share = seen.available / batch.available  # M/N
            terms |= Terms({"labelled": labelled}, labelled=share * labelled)  # records show the bound itself
            terms |= Terms(classifier=classifier)
        return terms

    # ---- a trained model ---------------------------------------------------------------------------------------------

    def class_weights(self, x: Tensor, draw: Draw, samples: int) -> Tensor:
        """log p(x, y, z) - log q(z|x, y) of draws for each class, (samples, classes, rows): E[exp] is p(x, y)."""
        q, lead = self.posterior_given(x, self.every)
        p, (z, log_q) = self.joint_given(self.every, lead), q.draw(draw.noise, samples)
        found = p.likelihood(z).log_prob(x) + p.prior.log_prob(z) - log_q
        return found.reshape(samples, *lead) - self.log_classes

    def log_weights(self, batch: Batch, draw: Draw, samples: int) -> Tensor:
        return self.class_weights(batch.x, draw, samples).logsumexp(1)  # p(x) = sum_y p(x, y)

    def classify(self, batch: Batch) -> Tensor:
        return self.q_y(self.read(batch.x)).mean

    def restyled(self, x: Tensor, y: Tensor) -> Tensor:
        """Analogies: the mean image of every class in the style of each x with its label y, (classes, rows, pixels).

        The style is the mean of q(z|x, y) (Kingma et al. 2014, figure 1).
        """
        q, _ = self.posterior_given(x, y)
        return self.p_x(q.mean, self.every).mean


def check_alpha(alpha: float) -> None:
    """Raise ValueError for a weight of log q(y|x) with which training would lower it."""
    if not 0 <= alpha < math.inf:
        raise ValueError(f"found alpha={alpha}; expected a finite number of at least 0, the weight of log q(y|x), "
                         "which training raises")


def probabilities(q: Categorical) -> Tensor:
    """q(y|x) as the weights of a sum over the classes, (classes, rows).

    A probability below the square root of the smallest normal number counts as 0. It changes no digit of the sum, and
    its products with gradients would be subnormal numbers, with which many processors are ten times slower.
    """
    p = q.mean.T
    return (p > math.sqrt(np.finfo(p.dtype).tiny)).where(p, 0.0)


class Given:
    """p(x|y, z) from a network's output raw (samples, [classes,] rows, width): `log_prob` has one row for all classes
    and rows together, (samples, classes * rows)."""

    def __init__(self, family: Any, raw: Tensor) -> None:
        self.family, self.raw = family, raw

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|y, z), for x (rows, pixels)."""
        samples, *_, width = self.raw.shape
        return self.family.from_raw(self.raw.reshape(-1, len(x), width)).log_prob(x).reshape(samples, -1)
