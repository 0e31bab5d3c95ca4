"""Variational inference without a VAE: on conjugate models, whose posterior and evidence are known, q finds them."""

import math

import numpy as np
import pytest
from oracles import Mixture, NormalGamma
from scipy.special import betaln, gammaln
from support import likely_zero

import tinyvae as tv
from tinyvae.distributions import Beta, Categorical, Gamma, LogNormal, Normal, kl
from tinyvae.engine.noise import Noise
from tinyvae.inference.estimators import Latent, leave_one_out, surrogate


def constant(*numbers):
    return tv.Tensor(np.array(numbers))


# ---- conjugate models ----------------------------------------------------------------
# Each: the log joint, the factor, the exact posterior, log p(x).

COUNTS = np.array([1.0, 0.0, 2.0, 1.0])


def gamma_poisson():
    """rate ~ Gamma(2, 1), x ~ Poisson(rate): the posterior is Gamma(2 + sum x, 1 + n)."""
    a, b, total, n = 2.0, 1.0, COUNTS.sum(), len(COUNTS)

    def log_joint(z):
        log_rate = z["rate"].log()
        likelihood = total * log_rate - n * z["rate"] - gammaln(COUNTS + 1).sum()
        return Gamma(constant(a), constant(b)).log_prob(z["rate"]) + likelihood.sum(-1)

    evidence = a * math.log(b) - gammaln(a) + gammaln(a + total) - (a + total) * math.log(b + n) - gammaln(
        COUNTS + 1).sum()  # fmt: skip
    return log_joint, {"rate": tv.Factor(Gamma, (1,))}, Gamma(constant(a + total), constant(b + n)), evidence


def beta_bernoulli():
    """p ~ Beta(2, 2), 7 ones and 3 zeros: the posterior is Beta(9, 5)."""
    def log_joint(z):
        p = z["p"]
        return (8 * p.log() + 4 * (1 - p).log()).sum(-1) - betaln(2, 2)

    return log_joint, {"p": tv.Factor(Beta, (1,))}, Beta(constant(9.0), constant(5.0)), betaln(9, 5) - betaln(2, 2)


def normal_normal():
    """mu ~ N(0, 1), x ~ N(mu, 1/4), one x = 1.3: the posterior is N(1.04, 0.2)."""
    def log_joint(z):
        prior = Normal(constant(0.0), constant(0.0)).log_prob(z["mu"])
        return prior + Normal(z["mu"], constant(math.log(0.25))).log_prob(constant(1.3))

    exact = Normal(constant(1.04), constant(math.log(0.2)))
    return log_joint, {"mu": tv.Factor(Normal, (1,))}, exact, -0.5 * (math.log(2 * math.pi * 1.25) + 1.3**2 / 1.25)


MODELS = {"gamma-poisson": gamma_poisson, "beta-bernoulli": beta_bernoulli, "normal-normal": normal_normal}
WAYS = [("gamma-poisson", "implicit", 1, "none"), ("gamma-poisson", "grep", 1, "none"),
        ("gamma-poisson", "grep", 4, "leave-one-out"), ("gamma-poisson", "score", 8, "leave-one-out"),
        ("gamma-poisson", "score", 8, "fitted"), ("gamma-poisson", "score", 8, "moving-average"),
        ("beta-bernoulli", "implicit", 1, "none"), ("beta-bernoulli", "grep", 1, "none"),
        ("beta-bernoulli", "score", 8, "leave-one-out"), ("normal-normal", "reparam", 1, "none"),
        ("normal-normal", "score", 8, "fitted")]  # fmt: skip


def fitted(model, estimator, samples, baseline, **more):
    log_joint, q, exact, evidence = MODELS[model]()
    found = tv.infer(log_joint, q, estimator, samples, baseline=baseline, **({"steps": 2500, "lr": 0.06} | more))
    (factor,) = found.q.values()
    return float(kl(factor, exact).data.sum()), found, evidence


@pytest.mark.parametrize(("model", "estimator", "samples", "baseline"), WAYS)
def test_q_finds_the_posterior(model, estimator, samples, baseline):
    """In nats from the exact posterior; and the ELBO's estimates are log p(x) less that, within their error."""
    apart, found, evidence = fitted(model, estimator, samples, baseline)
    print(f"KL(q || posterior) = {apart:.2g} nats after {len(found.elbo)} steps")
    assert 0 <= apart < 0.03
    assert found.skipped == 0
    assert (np.diff(found.seconds) > 0).all()
    last = found.elbo[-300:]
    assert abs(last.mean() - evidence) <= 0.05 + 5 * last.std() / math.sqrt(300)
    start, _, _ = fitted(model, estimator, samples, baseline, steps=1)
    assert start > 3 * apart


def test_mean_field_finds_its_own_optimum():
    """Normal-gamma: the raw posterior is no product, so the best product stays below log p(x), by as much as the
    fixed point of coordinate ascent does; its numbers are found."""
    model = NormalGamma([0.3, 1.1, -0.4, 2.0, 0.8, 1.5])
    q = {"mu": tv.Factor(Normal, (1,)), "tau": tv.Factor(Gamma, (1,))}
    found = tv.infer(model.log_joint, q, samples=8, steps=4000,
                     lr=0.02)
    mean, variance, shape, rate = model.best_mean_field()
    mu, tau = found.q["mu"], found.q["tau"]
    print(f"mu {float(mu.mu.data[0]):.3f} ({mean:.3f}), tau's mean {float(tau.mean.data[0]):.3f} ({shape / rate:.3f})")
    assert abs(float(mu.mu.data[0]) - mean) < 0.05
    assert abs(float(mu.variance.data[0]) / variance - 1) < 0.15
    assert abs(float(tau.mean.data[0]) / (shape / rate) - 1) < 0.1
    last = found.elbo[-1000:]
    assert last.mean() < model.log_evidence() + 5 * last.std() / math.sqrt(1000)
    assert last.mean() > model.log_evidence() - 0.2


def test_a_discrete_latent_by_its_score():
    """A mixture's component, by enumeration: q finds p(z|x), and the bound log p(x)."""
    model = Mixture()
    found = tv.infer(model.log_joint, {"z": tv.Factor(Categorical, (3,))}, samples=8, steps=3000, lr=0.02,
                     baseline="leave-one-out")
    q = found.q["z"].mean.data
    print(f"q {q.round(3)}, posterior {model.posterior().round(3)}")
    assert np.abs(q - model.posterior()).max() < 0.03
    gap = (q * np.log(q / model.posterior())).sum()  # log p(x) is the bound plus KL(q || p(z|x))
    assert 0 <= gap < 0.02
    bound = found.elbo[-500:]  # each by a few draws: their mean has a standard error of 0.014
    likely_zero("the bound's mean", bound.mean() + gap - model.log_evidence(), bound.std() / np.sqrt(bound.size))


def test_the_bound_is_below_the_evidence():
    """Its estimates at a fixed q (steps of size 0): mean log p(x) - KL(q || posterior)."""
    apart, found, evidence = fitted("gamma-poisson", "grep", 1, "none", lr=1e-12, steps=2000)
    difference = found.elbo - (evidence - apart)
    likely_zero("the estimate of the ELBO", difference.mean(), difference.std(ddof=1) / math.sqrt(2000))


def test_a_wrong_gradient_does_not_find_it(monkeypatch):
    """The law p = Gamma(0.3, 0.3) itself, where the correction of G-REP is two fifths of the gradient of z."""
    from tinyvae.inference import estimators

    def shape_found():
        p = Gamma(constant(0.3), constant(0.3))
        q = {"z": tv.Factor(Gamma, (1,), start=np.array([-1.0, 0.5]))}
        found = tv.infer(lambda z: p.log_prob(z["z"]), q, "grep", 200, 1200, lr=0.01)
        return float(found.q["z"].shape.data[0])

    right, grep = shape_found(), estimators.grep
    monkeypatch.setitem(estimators.MAPS, "grep", lambda q, z: estimators.MappedDraw(grep(q, z).z, None))
    wrong = shape_found()
    print(f"shape {right:.3f}, without the correction {wrong:.3f}, exactly 0.3")
    assert abs(right - 0.3) < 0.01
    assert abs(wrong - 0.3) > 0.02


# ---- terms ---------------------------------------------------------------------------


def two_groups(as_terms):
    """Five independent Gamma-Poisson models in one log joint, as terms with their axis or as one number."""
    counts = np.array([1.0, 5.0, 0.0, 2.0, 9.0])

    def log_joint(z):
        w = z["rate"].log()
        each = Gamma(constant(2.0), constant(1.0)).log_density(w) - w + counts * w - z["rate"]
        return [tv.Term(each, "n", ("rate",))] if as_terms else each.sum(-1)

    return log_joint, {"rate": tv.Factor(Gamma, (5,), "n")}


def gradients(as_terms, repeats=400):
    """Estimates of the ELBO's likelihood part's gradient by the five shapes, (repeats, 5)."""
    log_joint, _ = two_groups(as_terms)
    shape = tv.Tensor(np.array([3.0, 7.0, 2.0, 4.0, 11.0]), requires_grad=True)
    q, noise, found = Gamma(shape, constant(2.0)), Noise(0, "test"), []
    for step in range(repeats):
        latent = Latent("rate", q, q.sample(noise.restart(step), 8), "score", "n")
        terms = log_joint({"rate": latent.z})
        terms = terms if as_terms else [tv.Term(terms, "", ("rate",))]
        found.append(tv.grad(surrogate(terms, [latent], leave_one_out).mean(), shape).data)
    return np.array(found)


def test_terms_make_the_score_quieter():
    """Rao-Blackwell: the same mean, and for every latent less variance, for the others' terms are left out."""
    with_terms, without = gradients(True), gradients(False)
    for i in range(5):
        difference = with_terms[:, i] - without[:, i]
        likely_zero(f"shape {i}", difference.mean(), difference.std(ddof=1) / math.sqrt(len(difference)))
    ratio = with_terms.var(0) / without.var(0)
    print(f"variance with terms over that without: {ratio}")
    assert (ratio < 1).all()
    assert ratio.mean() < 0.7


def test_same_bits_from_the_same_seed():
    log_joint, q = two_groups(True)
    one, two, other = (tv.infer(log_joint, q, "grep", steps=20, seed=seed).parameters["rate"] for seed in (3, 3, 4))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_families_may_be_mixed_and_estimators_named():
    def log_joint(z):
        return Normal(constant(1.0), constant(0.0)).log_prob(z["a"]) + Gamma(constant(3.0), constant(2.0)).log_prob(
            z["b"])  # fmt: skip

    q = {"a": tv.Factor(Normal, (1,)), "b": tv.Factor(LogNormal, (1,))}
    found = tv.infer(log_joint, q, {"a": "reparam", "b": "grep"}, steps=800, lr=0.03)
    assert abs(float(found.q["a"].mu.data[0]) - 1) < 0.1
    assert abs(float(found.q["b"].mean.data[0]) - 1.5) < 0.2


# ---- mistakes ------------------------------------------------------------------------


def test_a_factor_is_checked():
    wrong = (((), "", "at least one axis"), ((-4,), "", "at least 1"), ((4,), "nk", "a different letter"),
             ((4, 2), "nn", "a different letter"))
    for shape, axes, message in wrong:
        with pytest.raises(ValueError, match=message):
            tv.Factor(Normal, shape, axes)
    with pytest.raises(TypeError, match=r"expected a factor: tv\.Factor"):
        tv.infer(lambda z: z["a"], {"a": Normal}, steps=1)


@pytest.mark.parametrize(("log_joint", "message"), [
    (lambda z: z["mu"] * constant(1.0, 2.0), r"log joint of shape \(1, 2\); expected one number for each sample"),
    (lambda z: [tv.Term(z["mu"], "", ("mu",))], r"term of shape \(1, 1\) with axes ''"),
    (lambda z: [tv.Term(z["mu"], "a", ("nu",))], "found a term that contains nu; the latents are mu"),
    (lambda z: (z["mu"] * math.nan).sum(-1), "none of the first 20 steps was finite")])  # fmt: skip
def test_a_wrong_log_joint_gets_a_sentence(log_joint, message):
    with pytest.raises(ValueError, match=message):
        tv.infer(log_joint, {"mu": tv.Factor(Normal, (1,))}, steps=30)


@pytest.mark.parametrize(("changes", "message"), [
    ({"lr": math.nan}, "found lr=nan"), ({"lr": 0.0}, "found lr=0.0"),
    ({"estimator": "implicit"}, "found estimator 'implicit'; Normal has reparam, grep, score"),
    ({"estimator": "magic"}, "found estimator 'magic'; Normal has reparam, grep, score"),
    ({"samples": 0}, "found samples 0; expected a whole number, at least 1"),
    ({"steps": -1}, "found steps -1; expected a whole number, at least 0"),
    ({"steps": 1.5}, "found steps 1.5; expected a whole number"), ({"dtype": "int32"}, "found dtype 'int32'; expected"),
    ({"seed": "a"}, "found seed 'a'; expected a whole number"), ({"lr": "a"}, "found lr='a'; expected a finite number"),
    ({"estimator": {"y": "score"}}, "found an estimator for 'y'; expected one of"),
    ({"baseline": "fitted", "samples": 2}, "found baseline 'fitted' without an estimator that needs one"),
    ({"baseline": "wise"}, "found baseline 'wise'"),
    ({"optimizer": "lion"}, "found optimizer 'lion'"),
    ({"estimator": "score", "baseline": "fitted"}, "needs at least 2")])  # fmt: skip
def test_wrong_use_gets_a_sentence(changes, message):
    log_joint, q, _, _ = normal_normal()
    with pytest.raises(ValueError, match=message):
        tv.infer(log_joint, q, **({"steps": 1} | changes))


def test_a_log_joint_of_another_kind_gets_a_sentence():
    _, q, _, _ = normal_normal()
    with pytest.raises(TypeError, match=r"found a log joint of type float; expected .* tv.Term"):
        tv.infer(lambda z: 3.0, q, steps=1)
