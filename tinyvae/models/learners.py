"""Ways to learn the decoder p(x|z) and the encoder q(z|x) of a VAE, by the name under which it chooses one.

    aevb         both climb the same bound on log p(x) (Kingma & Welling 2014)
    wake-sleep   each has an objective of its own (Hinton, Dayan, Frey & Neal 1995):
                     wake    the decoder raises E_q(z|x)[log p(x, z)], of data x
                     sleep   the encoder raises E_p(x, z)[log q(z|x)], of a pair (z, x) that the model dreams
    mcem         the decoder raises log p(x, z) for z ~ p(z|x), which Markov chains draw (AEVB appendix E); so it climbs
                 log p(x) itself, and needs no encoder. The encoder raises log q(z|x) of the same draws, so that the
                 model can be judged and used like the others; the decoder does not see it.
    full-vb      the decoder's weights w have a posterior q(w), too (AEVB appendix F): both climb the bound on the
                 evidence of all N data, E_q(w)[sum of the bounds given w] - KL(q(w) || p(w)), here divided by N. The
                 trained model predicts with the mean of p(x|z, w) over draws of w.

The sleep objective lowers KL(p(z|x) || q(z|x)) for dreams x, where the bound lowers KL(q(z|x) || p(z|x)) for data x. So
the two do not climb one function together, which AEVB is compared with for that reason (section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from tinyvae.choices import an
from tinyvae.distributions import Distribution
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.inference.bounds import Draw, Joint, Terms, terms_of
from tinyvae.models.base import Model
from tinyvae.models.batch import Batch

AEVB, WAKE_SLEEP, MCEM, FULL_VB = "aevb", "wake-sleep", "mcem", "full-vb"
WEIGHT_DRAWS = 8  # of the decoder's weights, over which the predictive p(x|z) of full-vb is averaged


def wake_sleep(model: Any, batch: Batch, draw: Draw) -> Terms:
    """The terms `wake` and `sleep`; records show the terms of the bound, of the wake phase's draws."""
    p, q = model.generator(batch), model.posterior(batch)
    z, log_q = (value.detach() for value in q.draw(draw.noise, draw.samples))
    log_likelihood, log_prior = p.likelihood(z).log_prob(model.target(batch)), p.prior.log_prob(z)
    dreamt = p.prior.sample(draw.noise, len(batch)).detach()
    x = p.likelihood(dreamt).sample(draw.noise)[0].detach()
    sleep = model.posterior(replace(batch, x=x)).log_prob(dreamt)
    reported: dict[str, Tensor] = {"reconstruction": log_likelihood.mean(0), "kl": (log_q - log_prior).mean(0)}
    return Terms(reported, wake=(log_likelihood + log_prior).mean(0), sleep=sleep)


def mcem(model: Any, batch: Batch, draw: Draw) -> Terms:
    """The terms `joint` and `encoder`, at the draws `draw.z`; records show the terms of the bound."""
    p, q, target = model.generator(batch), model.posterior(batch), model.target(batch)
    if (z := draw.z) is None:
        raise ValueError(f"found terms of learner={MCEM} without draws of p(z|x); they come with the training, whose "
                         "phase has chains=True")
    own, log_q = (value.detach() for value in q.draw(draw.noise))
    reported = {"reconstruction": p.likelihood(own).log_prob(target)[0],
                "kl": (log_q - p.prior.log_prob(own))[0]}
    joint = p.likelihood(z).log_prob(target) + p.prior.log_prob(z)
    return Terms(reported, joint=joint[0], encoder=q.log_prob(z)[0])


def full_vb(model: Any, batch: Batch, draw: Draw) -> Terms:
    """The terms of the bound for a draw of the weights, and `weights`, the KL of all weights over N data."""
    if batch.mask is not None:
        raise ValueError(f"found learner={FULL_VB} with {an(model.kind)}, whose likelihood leaves missing pixels out: "
                         f"take learner={AEVB}, or the model vae on data without holes")
    joint = Joint(model.prior, model.weights_of_decoder.draw(draw.noise))
    terms = terms_of(joint, lambda x: model.posterior(batch), model.target(batch), draw)
    return terms | Terms(weights=model.weights_of_decoder.kl() / batch.available)


class Averaged(Distribution):
    """p(x|z) = 1/S sum_s p(x|z, w_s), for S draws of the weights; given z its pixels are not independent."""

    def __init__(self, laws: Sequence[Any]) -> None:
        self.laws = laws

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self._over_laws(law.mean for law in self.laws)

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        mean = self.mean
        return self._over_laws(law.variance + (law.mean - mean) * (law.mean - mean) for law in self.laws)

    def _over_laws(self, values: Iterable[Tensor]) -> Tensor:
        first, *others = values
        return sum(others, first) / len(self.laws)

    def log_prob(self, x: Tensor) -> Tensor:
        """(..., rows), in nats."""
        first, *others = (law.log_prob(x)[None] for law in self.laws)
        return first.concatenate(*others).logsumexp(0) - math.log(len(self.laws))

    def log_density(self, w: Tensor) -> Tensor:
        raise TypeError(f"found learner={FULL_VB}, whose p(x|z) is a mean over draws of the weights, so that pixels "
                        f"are not independent given z, where some pixels are missing: take a run of learner={AEVB}")

    def sample(self, noise: Noise, samples: int = 1) -> Tensor:
        """Draws, each with the weights of one of the draws w_s, in turn."""
        drawn = [self.laws[number % len(self.laws)].sample(noise) for number in range(samples)]
        return drawn[0].concatenate(*drawn[1:])


LEARNERS: dict[str, Callable[[Any, Batch, Draw], Terms]] = {AEVB: Model.terms, WAKE_SLEEP: wake_sleep, MCEM: mcem,
                                                           FULL_VB: full_vb}
