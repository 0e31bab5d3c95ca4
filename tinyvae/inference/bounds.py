"""Lower bounds on the evidence log p(x), in nats per datum: higher is better.

log p(x) = ELBO + KL(q(z|x) || p(z|x)), and that KL is not negative, hence the name of the evidence lower bound:
ELBO = E_q[log p(x, z) - log q(z|x)] = E_q[log p(x|z)] - KL(q(z|x) || p(z)).

With w_k = p(x, z_k) / q(z_k|x) for K independent draws z_k ~ q(z|x), the importance-weighted bound (Burda, Grosse &
Salakhutdinov 2016, eq. 8) is

    L_K = E[log 1/K sum_k w_k],    ELBO = L_1 <= L_2 <= ... <= log p(x).

The gradient of a bound with respect to the parameters phi of q has three estimators, which leave its value as it is.
With z_k = T(eps_k, phi) and the normalised weights w~_k = w_k / sum_j w_j, the derivative of L_K by phi is

    path    sum_k w~_k (dlog w_k/dz_k dz_k/dphi - dlog q(z_k|x)/dphi)      the plain derivative of the bound
    stl     sum_k w~_k  dlog w_k/dz_k dz_k/dphi                            "sticking the landing", Roeder et al. 2017
    dreg    sum_k w~_k^2 dlog w_k/dz_k dz_k/dphi                           doubly reparameterised, Tucker et al. 2019

The derivative dlog w/dz is taken at fixed phi. It is 0 if q is the exact posterior, because w is then p(x) for every z.
At K = 1 the term that `stl` leaves out has the mean 0, so `stl` is unbiased; at K > 1 the term has another mean, and
`stl` is biased. `dreg` rewrites the term as a path derivative and is unbiased for every K. As K grows, the
signal-to-noise ratio of `path` falls like 1/sqrt(K) (Rainforth et al. 2018); that of `dreg` does not fall. The gradient
with respect to the parameters theta of p is sum_k w~_k dlog w_k/dtheta in all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tinyvae import distributions
from tinyvae.choices import known, whole
from tinyvae.distributions import Distribution, has_closed_kl, kl_per_dimension
from tinyvae.engine.rules import rule
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.inference.estimators import BASELINES, MAPS, Latent, Term, check_choice, pathwise, surrogate

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

# The gradient estimators of each bound. `elbo-b` has no sampled log q(z|x) that `stl` could leave out.
GRADIENTS = {"elbo-a": ("path", "stl"), "elbo-b": ("path",), "iwae": ("path", "stl", "dreg")}
BOUNDS = tuple(GRADIENTS)
ELBOS = ("elbo-a", "elbo-b")

# The identity, y = a, whose gradient is multiplied by a factor: dL/da = factor * dL/dy. The factor is the only tensor
# in the list `by`. It is computed from later operations, so it enters the list after this row has run and before the
# backward pass.
rule("scale_gradient", lambda xp, a, by: a[...], (lambda g, y, a, by: g * by[0],), view=True)


class Generator(Protocol):
    """A generative model: a prior p(z) and, given z, a likelihood p(x|z)."""

    @property
    def prior(self) -> Distribution: ...

    def likelihood(self, z: Tensor) -> Any: ...


class Joint(NamedTuple):
    """A generative model p(x, z) = p(z) p(x|z), made of its prior and of the function that maps z to p(x|z)."""

    prior: Distribution
    likelihood: Callable[[Tensor], Any]


class ElboTerms(NamedTuple):
    """The two terms of the ELBO, reconstruction - kl, each (batch,) in nats."""

    reconstruction: Tensor  # E_q[log p(x|z)], by sampling
    kl: Tensor  # KL(q(z|x) || p(z)); a sampled (elbo-a, iwae) it can be negative


def terms(p: Generator, q: Callable[[Tensor], Any], x: Tensor, noise: Noise, samples: int = 1,
          bound: str = "elbo-b", gradient: str = "path", estimator: str = "", baseline: str = "none") -> ElboTerms:
    """The terms of AEVB's estimator A or B for a batch x (batch, pixels), with `samples` draws of z for each datum.

    `estimator` names the estimator of the gradient with respect to q's parameters (estimators.py). "", `reparam` and
    `implicit` differentiate the draw itself; `grep` and `score` use the score function, with a `baseline`.
    """
    known("bound", bound, ELBOS)
    _check_gradient(gradient, bound)
    _check_parts(p, q, noise)
    posterior = q(x)  # q(z|x), (batch, latent)
    if estimator:
        check_choice(type(posterior), estimator)
    if MAPS.get(estimator, pathwise) is not pathwise:
        return _score_terms(p, posterior, x, noise, samples, bound, estimator, baseline)
    if bound == "elbo-b":  # AEVB eq. (7): the KL has a closed form, and only the reconstruction is sampled
        # for a normal q: z = mu + sigma eps, (samples, batch, latent), and
        # KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2), (batch,); see distributions/normal.py
        z, kl = posterior.sample_with_kl(p.prior, noise, samples)
        return ElboTerms(_over_samples(p.likelihood(z).log_prob(x)), kl)
    # elbo-a, AEVB eq. (6): the KL is sampled as well
    reconstruction, kl = _sampled(p, *_drawn(posterior, noise, samples, gradient), x)
    return ElboTerms(_over_samples(reconstruction), _over_samples(kl))


def _check_parts(p: Any, q: Any, noise: Any) -> None:
    """Raise TypeError for a p, a q or noise that are none."""
    for what, found, right, need in (
            ("p", p, hasattr(p, "prior") and callable(getattr(p, "likelihood", None)), "tv.Joint(prior, likelihood)"),
            ("q", q, callable(q), "a function of x that gives q(z|x)"),
            ("noise", noise, hasattr(noise, "normal"), "tv.Noise(seed)")):
        if not right:
            raise TypeError(f"found {found!r:.60} in place of {what}; expected {need}")


def _score_terms(p: Generator, posterior: Distribution, x: Tensor, noise: Noise, samples: int, bound: str,
                 estimator: str, baseline: str) -> ElboTerms:
    """The same terms, whose gradient is that of the surrogate (estimators.py).

    The score of a datum's z is multiplied by the terms of that datum alone, since no other term contains z.
    """
    latent = Latent("z", posterior, posterior.sample(noise, samples), estimator, "bj")

    def with_score(f: Tensor) -> Tensor:
        return _over_samples(surrogate([Term(f, "b", ("z",))], [latent], BASELINES[baseline](), keep="b"))

    reconstruction = with_score(p.likelihood(latent.z).log_prob(x))
    if bound == "elbo-b" and has_closed_kl(posterior, p.prior):
        return ElboTerms(reconstruction, distributions.kl(posterior, p.prior))
    # In log q(z; phi) only z is differentiated and phi is detached, because E_q[dlog q(z; phi)/dphi] = 0.
    return ElboTerms(reconstruction,
                     with_score(posterior.map(Tensor.detach).log_prob(latent.z) - p.prior.log_prob(latent.z)))


def elbo(p: Generator, q: Callable[[Tensor], Any], x: Tensor, noise: Noise, samples: int = 1,
         bound: str = "elbo-b", gradient: str = "path") -> Tensor:
    """The evidence lower bound of each datum, (batch,), in nats."""
    reconstruction, kl = terms(p, q, x, noise, samples, bound, gradient)
    return reconstruction - kl


def iwae(p: Generator, q: Callable[[Tensor], Any], x: Tensor, noise: Noise, importance_samples: int = 1,
         samples: int = 1, gradient: str = "path") -> tuple[Tensor, ElboTerms]:
    """The importance-weighted bound of each datum, (batch,), in nats, and the terms of the ELBO from the same draws.

    Parameters
    ----------
    p, q, x, noise
        As for `terms`: x is (batch, pixels).
    importance_samples
        K, the draws inside the logarithm; the bound rises with K.
    samples
        L, the number of independent estimates by K draws that are averaged; the expectation does not depend on L.
    gradient
        The estimator of the gradient with respect to q's parameters: `path`, `stl` or `dreg` (see above).
    """
    _check_gradient(gradient, "iwae")
    posterior = q(x)
    weights: list[Tensor] = []  # holds w~ as soon as log w is computed
    z, log_q = _drawn(posterior, noise, samples * importance_samples, gradient, weights)  # (L K, batch, latent)
    reconstruction, kl = _sampled(p, z, log_q, x)
    log_w = (reconstruction - kl).reshape(samples, importance_samples, z.shape[1])
    if gradient == "dreg":
        weights.append(log_w.detach().log_softmax(1).exp().reshape(*z.shape[:2], 1))
    bound = log_w.logsumexp(1) - math.log(importance_samples)  # log 1/K sum_k w_k
    return _over_samples(bound), ElboTerms(_over_samples(reconstruction), _over_samples(kl))


def _drawn(posterior: Distribution, noise: Noise, draws: int, gradient: str,
           weights: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Draws z, (draws, batch, latent), and log q(z|x), (draws, batch), of which `gradient` says what is differentiated.

    With dreg, w~ enters the list `weights` later.
    """
    if gradient == "path":
        return posterior.draw(noise, draws)
    z = posterior.sample(noise, draws)
    if gradient == "dreg":
        # dL_K/dlog w_k = w~_k. On its way through z_k to q the gradient is multiplied by w~_k once more, which gives
        # w~_k^2 (DReG, Tucker et al. 2019); the gradient with respect to p keeps the factor w~_k.
        z = posterior.from_stable(apply("scale_gradient", posterior.to_stable(z), by=weights))
    return z, posterior.map(Tensor.detach).log_prob(z)


def _sampled(p: Generator, z: Tensor, log_q: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x|z) and log q(z|x) - log p(z) of each draw, (samples, batch); log w is their difference."""
    kl = log_q - p.prior.log_prob(z)
    return p.likelihood(z).log_prob(x), kl


def _check_gradient(gradient: str, bound: str) -> None:
    known(f"the gradient of {bound}", gradient, GRADIENTS[bound])


def _over_samples(values: Tensor) -> Tensor:
    """The mean of (samples, batch) over the samples; one sample needs no arithmetic."""
    return values.reshape(values.shape[1:]) if len(values) == 1 else values.mean(0)


def free_bits_kl(posterior: Distribution, prior: Distribution, floor: float) -> Tensor:
    """sum_j max(floor, mean over the batch of KL_j), one number in nats.

    The objective does not charge a latent dimension for its first `floor` nats, so that training does not switch the
    dimension off early (Kingma & Welling 2019, section 2.8). The reported bound contains the plain KL.

    Raises
    ------
    ValueError
        If KL(posterior || prior) has no closed form, because a sampled KL is not split into dimensions.
    """
    if not has_closed_kl(posterior, prior):
        raise ValueError(f"found free_bits={floor:g} with KL({type(posterior).__name__} || {type(prior).__name__}); "
                         "expected a KL divergence in closed form, which has a part for each dimension: leave "
                         "free_bits out, or take another posterior")
    return kl_per_dimension(posterior, prior).mean(0).maximum(floor).sum()


# ---- the terms of an objective ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """How expectations under q are estimated, and how the gradient of the estimate is.

    Attributes
    ----------
    noise : the source of the draws
    bound : `elbo-a`, `elbo-b` or `iwae`; see the head of this file
    samples : L, draws of z for each datum; with `iwae` the number of independent estimates by K draws
    importance_samples : K, draws inside the logarithm of `iwae`
    gradient : the estimator of the bound's gradient with respect to q's parameters, `path`, `stl` or `dreg`
    estimator, baseline : the estimator of the gradient through the draw, and its baseline; see estimators.py
    free_bits : nats of each latent dimension's KL that the objective does not charge for
    z : draws of p(z|x) that Markov chains made, (1, rows, latent), for a learner that takes them
    """

    noise: Noise
    bound: str = "elbo-b"
    samples: int = 1
    importance_samples: int = 1
    gradient: str = "path"
    estimator: str = ""
    baseline: str = "none"
    free_bits: float = 0.0
    z: Tensor | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.noise, "normal"):
            raise TypeError(f"found {self.noise!r:.60} in place of the noise of a draw; expected tv.Noise(seed)")
        known("bound", self.bound, BOUNDS)
        whole("samples", self.samples, 1)
        whole("importance_samples", self.importance_samples, 1)

    def of(self, batch: Any) -> AbstractContextManager[None]:
        """A `with` block in which the draws are for the rows of another batch of the step, as `batch.labelled`."""
        return self.noise.of(batch.rows) if batch.rows else nullcontext()


def check_draw(bound: str, samples: int, importance_samples: int, gradient: str, estimator: str, baseline: str,
               free_bits: float) -> Iterator[str]:
    """A sentence for each choice that does not exist or contradicts another; `Draw` explains them."""
    if bound not in BOUNDS:
        yield f"found bound={bound}; expected one of {', '.join(BOUNDS)}"
        return
    elbo, scores = bound in ELBOS, estimator in ("grep", "score")
    if samples < 1:
        yield f"found samples={samples}; expected at least 1"
    if importance_samples < 1:
        yield f"found importance_samples={importance_samples}; expected at least 1"
    elif elbo and importance_samples > 1:
        yield (f"found importance_samples={importance_samples} with bound={bound}, which has no importance samples: "
               "take bound=iwae")
    if gradient not in GRADIENTS[bound]:
        others = [name for name, known in GRADIENTS.items() if gradient in known]
        where = f"; {gradient} goes with bound={' or '.join(others)}" if others else ""
        yield f"found gradient={gradient} with bound={bound}; expected {' or '.join(GRADIENTS[bound])}{where}"
    if not 0 <= free_bits < math.inf:
        yield f"found free_bits={free_bits}; expected a finite number, at least 0"
    elif free_bits and not (elbo and gradient == "path"):
        yield (f"found free_bits={free_bits} with bound={bound} and gradient={gradient}; they change the weight of "
               "the KL, so they go with bound=elbo-a or elbo-b and gradient=path")
    if estimator not in ("", *MAPS):
        yield f"found estimator={estimator}; expected one of {', '.join(MAPS)}"
    elif scores and not (elbo and gradient == "path" and not free_bits):
        yield (f"found estimator={estimator} with bound={bound}, gradient={gradient} and free_bits={free_bits:g}; it "
               "goes with bound=elbo-a or elbo-b, gradient=path and free_bits=0")
    if baseline not in BASELINES or baseline == "moving-average":
        yield f"found baseline={baseline}; expected none, leave-one-out or fitted"
    elif baseline != "none" and not (scores and samples > 1):
        yield (f"found baseline={baseline} with samples={samples} and {estimator or 'no'} estimator; it goes with "
               "estimator=grep or score and at least 2 samples")


class Terms(dict[str, Tensor]):
    """The named terms, in nats, whose weighted sum is a model's objective. A bound that is not a sum is one term.

    A term of shape (rows,) has one number for each row of its part of the batch and enters the objective by its mean;
    terms may have different numbers of rows. A term of shape () belongs to the whole model. `reported`, if given, is
    what records show in place of these terms. Terms can be put together by `|`.
    """

    def __init__(self, reported: dict[str, Tensor] | None = None, **terms: Tensor) -> None:
        super().__init__(terms)
        if reported is not None and not isinstance(reported, dict):
            raise TypeError(f"found tv.Terms({reported!r:.60}); expected terms by name: tv.Terms(kl=tensor)")
        self._shown, self._replaced = reported or {}, set(terms) if reported else set()

    @property
    def reported(self) -> dict[str, Tensor]:
        """The terms that records show, by name."""
        return self._shown | {name: term for name, term in self.items() if name not in self._replaced}

    def __or__(self, other: Any) -> Terms:  # type: ignore[override]
        made = Terms()
        made |= self
        made |= other
        return made

    def __ior__(self, other: Any) -> Terms:  # type: ignore[override]
        self.update(other)
        if isinstance(other, Terms):
            self._shown, self._replaced = self._shown | other._shown, self._replaced | other._replaced
        return self


def terms_of(p: Generator, q: Callable[[Tensor], Any], x: Tensor, draw: Draw) -> Terms:
    """The terms of a bound for a model with one latent variable: `reconstruction` and `kl`, or `bound` for iwae.

    The shapes are those of `terms`. With free bits the objective's KL is one number (), and the plain KL is reported.
    """
    if not isinstance(draw, Draw):
        raise TypeError(f"found {draw!r:.60} in place of a draw; expected tv.Draw(tv.Noise(seed))")
    if draw.bound == "iwae":
        bound, of_elbo = iwae(p, q, x, draw.noise, draw.importance_samples, draw.samples, draw.gradient)
        return Terms(of_elbo._asdict(), bound=bound)
    if draw.free_bits:
        posterior = q(x)
        plain = terms(p, lambda _: posterior, x, draw.noise, draw.samples, draw.bound)
        charged = free_bits_kl(posterior, p.prior, draw.free_bits)
        return Terms(plain._asdict(), reconstruction=plain.reconstruction, kl=charged)
    return Terms(**terms(p, q, x, draw.noise, draw.samples, draw.bound, draw.gradient, draw.estimator,
                         draw.baseline)._asdict())
