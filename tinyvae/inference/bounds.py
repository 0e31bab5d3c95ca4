"""Lower bounds on the evidence log p(x), in nats per datum: higher is better.

log p(x) = ELBO + KL(q(z|x) || p(z|x)), and that KL is not negative, hence the name of the evidence lower bound:
ELBO = E_q[log p(x, z) - log q(z|x)] = E_q[log p(x|z)] - KL(q(z|x) || p(z)).

With w_k = p(x, z_k) / q(z_k|x) for K independent draws z_k ~ q(z|x), the importance-weighted bound (Burda, Grosse &
Salakhutdinov 2016, eq. 8) is

    L_K = E[log 1/K sum_k w_k],    ELBO = L_1 <= L_2 <= ... <= log p(x).

How the gradient of a bound by the parameters phi of q is estimated is a choice of its own; the value is always the
bound. z_k = T(eps_k, phi), so with the normalised weights w~_k = w_k / sum_j w_j, the derivative of L_K by phi is

    path    sum_k w~_k (dlog w_k/dz_k dz_k/dphi - dlog q(z_k|x)/dphi)      what differentiating the bound gives
    stl     sum_k w~_k  dlog w_k/dz_k dz_k/dphi                            "sticking the landing", Roeder et al. 2017
    dreg    sum_k w~_k^2 dlog w_k/dz_k dz_k/dphi                           doubly reparameterised, Tucker et al. 2019

where dlog w/dz is taken at fixed phi and is 0 if q is the posterior: nothing is left to vary then. At K = 1 the term
that stl leaves out has the mean 0. At K > 1 it has not, so stl is biased; dreg turns that term into a path derivative
as well, and is not. As K grows, path's signal falls like 1/sqrt(K) of its noise (Rainforth et al. 2018), dreg's does
not. For the parameters theta of p all three have sum_k w~_k dlog w_k/dtheta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tinyvae import distributions
from tinyvae.distributions import Distribution, has_closed_kl, kl_per_dimension
from tinyvae.engine.rules import rule
from tinyvae.engine.tensor import Tensor, apply
from tinyvae.inference.estimators import BASELINES, MAPS, Latent, Term, check_choice, pathwise, surrogate

if TYPE_CHECKING:
    from tinyvae.engine.noise import Noise

# Each bound with the gradients of q's parameters that it has; elbo-b has no sampled log q(z|x) to leave out.
GRADIENTS = {"elbo-a": ("path", "stl"), "elbo-b": ("path",), "iwae": ("path", "stl", "dreg")}
BOUNDS = tuple(GRADIENTS)
ELBOS = ("elbo-a", "elbo-b")

# The identity, through which a gradient comes back multiplied by the tensor in the list `by`: only the value of what
# is computed after this row may decide that factor, so it is put there later, before the way back.
rule("scale_gradient", lambda xp, a, by: a[...], (lambda g, y, a, by: g * by[0],), view=True)


class Generator(Protocol):
    """A generative model: a prior p(z) and, given z, a likelihood p(x|z)."""

    @property
    def prior(self) -> Distribution: ...

    def likelihood(self, z: Tensor) -> Any: ...


class Joint(NamedTuple):
    """A generative model put together: a prior, and the function that gives p(x|z)."""

    prior: Distribution
    likelihood: Callable[[Tensor], Any]


class ElboTerms(NamedTuple):
    """The two terms of the ELBO, each (batch,), in nats: it is reconstruction - kl."""

    reconstruction: Tensor  # E_q[log p(x|z)], by sampling
    kl: Tensor  # KL(q(z|x) || p(z)); sampled (elbo-a, iwae) it may be negative, in closed form it is not


def terms(p: Generator, q: Callable[[Tensor], Any], x: Tensor, noise: Noise, samples: int = 1,
          bound: str = "elbo-b", gradient: str = "path", estimator: str = "", baseline: str = "none") -> ElboTerms:
    """The terms of estimator A or B for a batch x (batch, pixels), with `samples` draws of z a datum.

    By `estimator` the gradient by q's parameters is estimated: along the family's own path if it is "", `reparam` or
    `implicit`; else by `grep` or `score`, with a `baseline` (estimators.py).
    """
    if bound not in ELBOS:
        raise ValueError(f"found bound {bound!r}; expected one of {', '.join(ELBOS)}")
    _check_gradient(gradient, bound)
    posterior = q(x)  # q(z|x), (batch, latent)
    if estimator:
        check_choice(type(posterior), estimator)
    if MAPS.get(estimator, pathwise) is not pathwise:
        return _weighed(p, posterior, x, noise, samples, bound, estimator, baseline)
    if bound == "elbo-b":  # AEVB eq. (7): the KL in closed form, only the reconstruction sampled
        # z = mu + sigma eps, (samples, batch, latent), and KL = 1/2 sum mu^2 + sigma^2 - 1 - log sigma^2, (batch,):
        # written out in distributions/normal.py, and as one kernel's twin in fusion.py
        z, kl = posterior.sample_with_kl(p.prior, noise, samples)
        return ElboTerms(_over_samples(p.likelihood(z).log_prob(x)), kl)
    # elbo-a, AEVB eq. (6): everything sampled
    reconstruction, kl = _sampled(p, posterior, posterior.sample(noise, samples), x, gradient)
    return ElboTerms(_over_samples(reconstruction), _over_samples(kl))


def _weighed(p: Generator, posterior: Distribution, x: Tensor, noise: Noise, samples: int, bound: str, estimator: str,
             baseline: str) -> ElboTerms:
    """The same terms with the surrogate's gradient, where the score of a datum's z is weighed by that datum's alone."""
    latent = Latent("z", posterior, posterior.sample(noise, samples), estimator, "bj")

    def weigh(f: Tensor) -> Tensor:
        return _over_samples(surrogate([Term(f, "b", ("z",))], [latent], BASELINES[baseline](), keep="b"))

    reconstruction = weigh(p.likelihood(latent.z).log_prob(x))
    if bound == "elbo-b" and has_closed_kl(posterior, p.prior):
        return ElboTerms(reconstruction, distributions.kl(posterior, p.prior))
    # of -log q(z|x) only z is differentiated: what is left has the mean 0
    return ElboTerms(reconstruction,
                     weigh(posterior.map(Tensor.detach).log_prob(latent.z) - p.prior.log_prob(latent.z)))


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
        K, the draws inside the logarithm; the bound rises with it.
    samples
        L, independent repetitions of those K, over which the bound is averaged; its expectation stays the same.
    gradient
        `path`, `stl` or `dreg`, by q's parameters; see the head of this file. The bound is the same.
    """
    _check_gradient(gradient, "iwae")
    posterior = q(x)
    weights: list[Tensor] = []  # w~, once they are known
    z = posterior.sample(noise, samples * importance_samples)  # (L K, batch, latent)
    if gradient == "dreg":  # the weight that log w_k passes back meets itself here, on its way to q only: w~_k^2
        z = posterior.from_stable(apply("scale_gradient", posterior.to_stable(z), by=weights))
    reconstruction, kl = _sampled(p, posterior, z, x, gradient)
    log_w = (reconstruction - kl).reshape(samples, importance_samples, z.shape[1])
    if gradient == "dreg":
        weights.append(log_w.detach().log_softmax(1).exp().reshape(*z.shape[:2], 1))
    bound = log_w.logsumexp(1) - math.log(importance_samples)  # the largest weight is factored out
    return _over_samples(bound), ElboTerms(_over_samples(reconstruction), _over_samples(kl))


def _sampled(p: Generator, posterior: Distribution, z: Tensor, x: Tensor, gradient: str) -> tuple[Tensor, Tensor]:
    """log p(x|z) and log q(z|x) - log p(z) of each draw, (samples, batch): log w is the first less the second."""
    if gradient != "path":
        posterior = posterior.map(Tensor.detach)
    kl = posterior.log_prob(z) - p.prior.log_prob(z)
    return p.likelihood(z).log_prob(x), kl


def _check_gradient(gradient: str, bound: str) -> None:
    if gradient not in GRADIENTS[bound]:
        raise ValueError(f"found gradient {gradient!r} with {bound}; expected one of {', '.join(GRADIENTS[bound])}")


def _over_samples(values: Tensor) -> Tensor:
    """The mean of (samples, batch) over the samples; of one, without computing."""
    return values.reshape(values.shape[1:]) if len(values) == 1 else values.mean(0)


def free_bits_kl(posterior: Distribution, prior: Distribution, floor: float) -> Tensor:
    """sum_j max(floor, mean over the batch of KL_j), one number in nats.

    A dimension pays nothing for its first `floor` nats, so it is not given up early in training (Kingma & Welling
    2019, section 2.8). The bound that is reported keeps the plain KL.

    Raises
    ------
    ValueError
        Where no closed form of KL(posterior || prior) is known: draws do not tell what each dimension pays.
    """
    if not has_closed_kl(posterior, prior):
        raise ValueError(f"found free_bits={floor:g} with KL({type(posterior).__name__} || {type(prior).__name__}); "
                         "expected a KL divergence in closed form, which says what each dimension pays: leave "
                         "free_bits out, or take another posterior")
    return kl_per_dimension(posterior, prior).mean(0).maximum(floor).sum()


# ---- what a model adds up --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """How expectations under q are estimated, and how the gradient of the estimate is.

    Attributes
    ----------
    noise : where draws come from
    bound : `elbo-a`, `elbo-b` or `iwae`; see the head of this file
    samples : L, draws of z a datum; with `iwae` repetitions of its K draws
    importance_samples : K, draws inside the logarithm of `iwae`
    gradient : by q's parameters, `path`, `stl` or `dreg`
    estimator, baseline : of the encoder's gradient; see estimators.py
    free_bits : nats a latent dimension that the objective does not charge for
    """

    noise: Noise
    bound: str = "elbo-b"
    samples: int = 1
    importance_samples: int = 1
    gradient: str = "path"
    estimator: str = ""
    baseline: str = "none"
    free_bits: float = 0.0


def check_draw(bound: str, samples: int, importance_samples: int, gradient: str, estimator: str, baseline: str,
               free_bits: float) -> Iterator[str]:
    """A sentence for each choice that does not exist or does not go with the others; see `Draw` for what they are."""
    if bound not in BOUNDS:
        yield f"found bound={bound}; expected one of {', '.join(BOUNDS)}"
        return
    elbo, weighs = bound in ELBOS, estimator in ("grep", "score")
    if samples < 1:
        yield f"found samples={samples}; expected at least 1"
    if importance_samples < 1:
        yield f"found importance_samples={importance_samples}; expected at least 1"
    elif elbo and importance_samples > 1:
        yield f"found importance_samples={importance_samples} with bound={bound}, which has none: take bound=iwae"
    if gradient not in GRADIENTS[bound]:
        others = [name for name, known in GRADIENTS.items() if gradient in known]
        where = f", for {gradient} goes with bound={' or '.join(others)}" if others else ""
        yield f"found gradient={gradient} with bound={bound}; expected {' or '.join(GRADIENTS[bound])}{where}"
    if not 0 <= free_bits < math.inf:
        yield f"found free_bits={free_bits}; expected a finite number, at least 0"
    elif free_bits and not (elbo and gradient == "path"):
        yield (f"found free_bits={free_bits} with bound={bound} and gradient={gradient}; they charge for the KL, so "
               "they go with bound=elbo-a or elbo-b and gradient=path")
    if estimator not in ("", *MAPS):
        yield f"found estimator={estimator}; expected one of {', '.join(MAPS)}"
    elif weighs and not (elbo and gradient == "path" and not free_bits):
        yield f"found estimator={estimator}; it goes with bound=elbo-a or elbo-b, gradient=path and free_bits=0"
    if baseline not in BASELINES or baseline == "moving-average":
        yield f"found baseline={baseline}; expected none, leave-one-out or fitted"
    elif baseline != "none" and not (weighs and samples > 1):
        yield f"found baseline={baseline}; it goes with estimator=grep or score and at least 2 samples"


class Terms(dict[str, Tensor]):
    """Named numbers in nats, of which a model's objective is the weighted sum; a bound that is no sum is one term.

    A term is (rows,), one number a row, each term with its own number of rows, and counts by its mean; or it is one
    number (), which belongs to the whole model. `reported` is what is shown, where that is not what is optimised.
    """

    def __init__(self, reported: dict[str, Tensor] | None = None, **terms: Tensor) -> None:
        super().__init__(terms)
        self.reported: dict[str, Tensor] = reported or self


def terms_of(p: Generator, q: Callable[[Tensor], Any], x: Tensor, draw: Draw) -> Terms:
    """The terms of a bound for a model with one latent variable: `reconstruction` and `kl`, or `bound` for iwae.

    Shapes as for `terms`. With free bits the KL of the objective is one number, and the plain one is reported.
    """
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
