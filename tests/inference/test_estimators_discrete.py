"""The score estimator of discrete latents, exact in the mean: the sum over all values z of p(z) times the estimate."""

import itertools

import numpy as np
import pytest
from discrete_families import BITS, LOGITS, ONES, OTHERS, Flipped, Unnormalised, WithoutRate
from scipy import special
from support import assert_close

import tinyvae as tv
from tinyvae.distributions import Bernoulli, Categorical, Laplace, Poisson, UnitTensor, base
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference.estimators import Latent, Term, no_baseline, surrogate


@pytest.fixture(params=[True, False], ids=["kernel", "twin"], autouse=True)
def _fused(request):
    """Every test here holds for the kernels and for their readable twins."""
    with tv.fused(request.param):
        yield


SMALL = {
    "bernoulli": (Bernoulli, LOGITS[:1], BITS),
    "categorical": (Categorical, LOGITS[:1], ONES),
    "poisson": (Poisson, np.array([[0.2, 1.3]]),
                np.array(list(itertools.product(range(18), range(28))), float)[:, None]),
}  # fmt: skip


def terms_of(z, v):
    """f(z; v): a term of each element and one of all together, both with a derivative by v themselves."""
    each = (z - 0.4) ** 2 * (v + 1.5)
    together = (z * np.arange(1.0, z.shape[-1] + 1)).sum(-1).tanh() * (v * v).sum()
    return [Term(each, "nd", ("z",)), Term(together, "n", ("z",))]


def less_three(f, latent):
    """The baseline 3, as good as any constant."""
    return (f - 3.0) * (latent.log_q - latent.log_q.detach())


def check_score(family, parameter, values, base=None, terms=terms_of, stopped=False):
    """sum over z of p(z) * gradient of the surrogate at z = gradient of sum over z of p(z) f(z)."""
    v = Tensor(parameter.copy(), requires_grad=True)
    z = Tensor(values)
    p = (base or family)(v).log_prob(z).exp().reshape(-1)
    f = sum(term.value.sum(tuple(range(1, term.value.ndim))) for term in terms_of(z, v))
    exact = grad((p * f).sum(), v).numpy()
    for baseline in (no_baseline, less_three):
        latent = Latent("z", family(v), z, "score", "nd")
        latent.log_q = latent.log_q.detach() if stopped else latent.log_q
        estimates = surrogate(terms(latent.z, v), [latent], baseline)
        assert estimates.shape == (len(values),)
        assert_close(estimates.numpy(), f.numpy(), 4, "the value")
        mean = grad((p.detach() * estimates).sum(), v).numpy()
        assert_close(mean, exact, 64, "the mean", scale=np.abs(exact).max())


@pytest.mark.parametrize("name", SMALL)
def test_the_score_estimator_is_exact_in_the_mean(name):
    family, parameter, values = SMALL[name]
    check_score(family, parameter, values)
    with pytest.raises(AssertionError, match="the mean"):  # no score at all
        check_score(family, parameter, values, stopped=True)
    with pytest.raises(AssertionError, match="the mean"):  # a term that does not say that it contains z
        check_score(family, parameter, values,
                    terms=lambda z, v: [term._replace(of=()) if term.axes == "n" else term for term in terms_of(z, v)])


@pytest.mark.parametrize(("wrong", "name"), [(Flipped, "bernoulli"), (Unnormalised, "categorical"),
                                             (WithoutRate, "poisson")])  # fmt: skip
def test_the_score_of_a_wrong_density_is_found(wrong, name):
    family, parameter, values = SMALL[name]
    with pytest.raises(AssertionError, match="the mean"):
        check_score(wrong, parameter, values, base=family)


def test_an_impossible_category_has_no_part_in_the_mean():
    """By enumeration over what is possible, as a sampler meets it; its logit gets no gradient."""
    logits = Tensor(np.array([[0.3, -np.inf, 1.0]]), requires_grad=True)
    latent = Latent("z", Categorical(logits), Tensor(ONES[[0, 2]]), "score", "nd")
    f = (latent.z * np.array([3.0, 100.0, -1.0])).sum(-1)
    p = Categorical(logits).log_prob(latent.z).exp().reshape(-1)
    estimates = surrogate([Term(f, "n", ("z",))], [latent])
    a = special.expit(-0.7)
    assert_close(grad((p.detach() * estimates).sum(), logits).numpy(), [[4 * a * (1 - a), 0, -4 * a * (1 - a)]], 8)


def check_scores(q, draws, free):
    """`scores`, which the fitted baseline uses, lead from each parameter to what the network gave: d log q / d free."""
    latent = Latent("z", q, draws, "score", "nd")
    by_parameter = sum((h * (v - v.detach())).sum() for v, h in latent.scores())
    assert_close(grad(by_parameter, free).numpy(), grad(latent.log_q.sum(), free).numpy(), 16)


def test_the_scores_of_a_parameter_known_by_its_logarithm(monkeypatch):
    for family in (Poisson, Laplace, Bernoulli, Categorical):
        free = Tensor(np.concatenate([LOGITS, OTHERS], -1), requires_grad=True)
        q = family.from_raw(free)
        check_scores(q, q.sample(Noise(7), 4).detach(), free)
    monkeypatch.setattr(base, "LogTensor", UnitTensor)  # the logarithm forgotten
    for family in (Poisson, Laplace):
        q = family.from_raw(free)
        with pytest.raises(AssertionError):
            check_scores(q, q.sample(Noise(7), 4).detach(), free)
