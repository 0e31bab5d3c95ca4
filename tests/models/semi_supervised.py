"""M2, semi-supervised learning with deep generative models (Kingma, Rezende, Mohamed & Welling 2014).

p(x, y, z) = p(y) p(z) p(x|y, z) with p(y) uniform;  q(y, z|x) = q(y|x) q(z|x, y). For a label that is known

    -L(x, y) = E_q(z|x,y)[log p(x|y, z)] + log p(y) - KL(q(z|x, y) || p(z))                       (eq. 6)

and for one that is not, the sum over all classes, U: sum_y q(y|x) (-L(x, y)) + H[q(y|x)] (eq. 7). The classifier's own
log q(y|x) is added for known labels, with the weight alpha (eq. 9).
"""

import math

import numpy as np

from tinyvae.distributions import LIKELIHOODS, Categorical, Normal
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Joint, Terms, elbo
from tinyvae.models import Model


class M2(Model):
    """q(y|x), q(z|x, y) and p(x|y, z), each a network."""

    needs = ("y", "labelled")

    def build(self, pixels, classes=10, hidden=50, latent=5, alpha=1.0, likelihood="bernoulli"):
        self.q_y = self.network("q_y", pixels, hidden, Categorical, classes)
        self.q_z = self.network("q_z", pixels + classes, hidden, Normal, latent)
        self.p_x = self.network("p_x", classes + latent, hidden, LIKELIHOODS[likelihood].family, pixels)
        self.p_z = Normal.standard(latent, self.dtype, self.xp)
        self.every = Tensor(self.xp.asarray(np.eye(classes, dtype=self.dtype)[:, None]))  # (classes, 1, classes)
        self.log_classes, self.weights = math.log(classes), {"classifier": alpha}

    def given(self, x, y, draw):
        """-L(x, y): (rows,), or (classes, rows) for y = every class."""
        p = Joint(self.p_z, lambda z: self.p_x(y, z))
        return elbo(p, lambda _: self.q_z(x, y), x, draw.noise, draw.samples) - self.log_classes

    def unlabelled(self, x, draw):
        """-U(x), (rows,)."""
        q = self.q_y(x)
        return (q.mean.T * self.given(x, self.every, draw)).sum(0) + q.entropy()

    def terms(self, batch, draw):
        terms = Terms(unlabelled=self.unlabelled(batch.x, draw))
        if (seen := batch.labelled) is not None:
            terms |= Terms(labelled=self.given(seen.x, seen.y, draw), classifier=self.q_y(seen.x).log_prob(seen.y))
        return terms
