"""Gradient estimators without sampling error: the nodes of a quadrature are the draws, so a mean is an expectation.

What G-REP promises, in the numbering of `estimators.py`: path + correction is the gradient, exactly; the correction is
small, and nothing for what depends on the standardised statistic's two first moments only. Discrete latents are summed
over all their values, which makes baselines exact as well. Variants made wrong on purpose must be refused.
"""

import itertools

import numpy as np
import pytest
from integrals import T
from scipy import special
from scipy_families import POSITIVE, ROWS, SINGLE, expectation, nodes, plane
from support import assert_close, assert_same_bits, likely_zero

import tinyvae as tv
from tinyvae.distributions import (
    Beta,
    Categorical,
    ContinuousBernoulli,
    Dirichlet,
    FullNormal,
    Gamma,
    Laplace,
    LogNormal,
    Normal,
    Poisson,
)
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.inference import estimators
from tinyvae.inference.estimators import (
    BASELINES,
    Latent,
    MappedDraw,
    MovingAverage,
    Term,
    check_choice,
    choices,
    fitted,
    leave_one_out,
    no_baseline,
    signal,
    surrogate,
)

# ---- draw by draw ----------------------------------------------------------------------------------------------------


def repeated(q, count):
    """q with its parameters repeated for each draw, so that a gradient by them is draw by draw."""
    leaves = {name: T(np.broadcast_to(v.numpy(), (count, *v.shape)), requires_grad=True)
              for name, v in q.parameters.items()}
    return type(q)(**leaves)


def with_path(q, w, estimator):
    """The draw with coordinate w, depending on q's parameters as q.sample makes it."""
    if estimator == "reparam":
        return q.from_stable(q.unstandardise(q.standardise(w).detach()))
    if estimator == "implicit":
        u = (w + q.rate.log()).detach()
        slope = u.apply("gamma_log_sample_grad", q.shape.detach())
        return q.from_stable(u + slope * (q.shape - q.shape.detach()) - q.rate.log())
    return q.from_stable(w)


def draw_by_draw(q, w, estimator, f, axes="bn"):
    """MappedDraw and correction, for each parameter (draws, *parameter), of the surrogate of f at given draws."""
    q = repeated(q, len(w))
    latent = Latent("z", q, with_path(q, w, estimator), estimator, axes)
    value = f(latent.z)
    terms = [Term(value, axes[: value.ndim - 1], ("z",))]
    leaves = list(q.parameters.values())
    whole = surrogate(terms, [latent])
    assert_same_bits(whole.numpy(), value.numpy().reshape(len(w), -1).sum(-1), "the surrogate's value is f")
    path = [g.numpy() for g in grad(value.sum(), leaves)]
    both = [g.numpy() for g in grad(whole.sum(), leaves)]
    return path, [b - p for b, p in zip(both, path, strict=True)], both


def means(q, estimator, f, count=6001):
    """E_q of path and correction for all parameters' elements, and of the absolute values of their sum's terms."""
    w, log_weight = nodes(q, count)
    weight = np.exp(q.log_density(w).numpy().reshape(len(w), -1).sum(-1) + log_weight)
    kept = weight > 1e-60
    w, weight = Tensor(w.numpy()[kept]), weight[kept]
    path, correction, _ = draw_by_draw(q, w, estimator, f)

    def mean(parts):
        return np.concatenate([np.tensordot(weight, part, 1).reshape(-1) for part in parts])

    return mean(path), mean(correction), mean([abs(p) + abs(c) for p, c in zip(path, correction, strict=True)])


def exact_gradient(q, mean):
    """The derivatives of a known expectation by all parameters' elements."""
    leaves = [T(v.numpy(), requires_grad=True) for v in q.parameters.values()]
    return np.concatenate([g.numpy().reshape(-1) for g in grad(mean(*leaves).sum(), leaves)])


# ---- functions whose expectation is known ----------------------------------------------------------------------------

OF_GAMMA = {
    "log z": (lambda z: z.log(), lambda a, b: a.digamma() - b.log()),
    "(log z)^2": (lambda z: z.log() ** 2, lambda a, b: a.polygamma(1) + (a.digamma() - b.log()) ** 2),
    "z": (lambda z: z, lambda a, b: a / b),
    "z^2": (lambda z: z**2, lambda a, b: a * (a + 1) / b**2),
    "z log z": (lambda z: z * z.log(), lambda a, b: a / b * ((a + 1).digamma() - b.log())),
    "sqrt z": (lambda z: z.sqrt(), lambda a, b: ((a + 0.5).lgamma() - a.lgamma()).exp() / b.sqrt()),
    "exp(-z)": (lambda z: (-z).exp(), lambda a, b: (a * (b / (b + 1)).log()).exp()),
}
OF_BETA = {
    "logit z": (lambda z: z.log() - (1 - z).log(), lambda a, b: a.digamma() - b.digamma()),
    "(logit z)^2": (lambda z: (z.log() - (1 - z).log()) ** 2,
                    lambda a, b: a.polygamma(1) + b.polygamma(1) + (a.digamma() - b.digamma()) ** 2),
    "z": (lambda z: z, lambda a, b: a / (a + b)),
    "z^2": (lambda z: z**2, lambda a, b: a * (a + 1) / ((a + b) * (a + b + 1))),
    "log z": (lambda z: z.log(), lambda a, b: a.digamma() - (a + b).digamma()),
    "log(1 - z)": (lambda z: (1 - z).log(), lambda a, b: b.digamma() - (a + b).digamma()),
}
OF_NORMAL = {
    "z^2": (lambda z: z**2, lambda mu, logvar: mu**2 + logvar.exp()),
    "exp(z)": (lambda z: z.exp(), lambda mu, logvar: (mu + 0.5 * logvar.exp()).exp()),
}
OF_LOG_NORMAL = {
    "log z": (lambda z: z.log(), lambda mu, logvar: mu + 0 * logvar),
    "z": (lambda z: z, lambda mu, logvar: (mu + 0.5 * logvar.exp()).exp()),
}
EXPECTATIONS = {"gamma": OF_GAMMA, "beta": OF_BETA, "normal": OF_NORMAL, "log-normal": OF_LOG_NORMAL}
CASES = [(name, estimator, text) for name, table in EXPECTATIONS.items() for estimator in choices(ROWS[name].family)
         for text in table if (name, estimator) != ("beta", "implicit")]  # which takes two Gammas; see below


def members(name):
    return [ROWS[name].family(*(T([[v]]) for v in values)) for values in SINGLE[name]]


def check_mean(name, estimator, text):
    f, mean = EXPECTATIONS[name][text]
    for q in members(name):
        path, correction, size = means(q, estimator, f)
        error = np.abs(path + correction - exact_gradient(q, mean)) / np.maximum(size, 1e-3)
        assert error.max() <= 1e-10, f"{estimator} of {text}: E[g] is off by {error.max():.1e} of its terms"


@pytest.mark.parametrize(("name", "estimator", "text"), CASES)
def test_the_mean_is_the_gradient(name, estimator, text):
    check_mean(name, estimator, text)


def test_the_mean_of_the_implicit_path_of_a_beta():
    """Through two Gammas, of which only the difference of the logarithms is seen."""
    def law(shape):
        q = Gamma(T([[shape]]), T([[1.0]]))
        w, log_weight = nodes(q, 601)
        return w.numpy(), np.exp(q.log_density(w).numpy().reshape(-1) + log_weight)

    for a, b in ((0.5, 4.0), (30.0, 2.0), (1.0, 1.0)):
        (u, p), (v, r) = law(a), law(b)
        weight = np.outer(p, r).reshape(-1)
        kept = weight > 1e-40
        u, v = (np.broadcast_to(t, (601, 601, 1)).reshape(-1, 1, 1)[kept] for t in (u, v.reshape(1, -1, 1)))
        leaves = [T(np.full(u.shape, shape), requires_grad=True) for shape in (a, b)]
        logs = [Tensor(t) + Tensor(t).apply("gamma_log_sample_grad", s.detach()) * (s - s.detach())
                for t, s in zip((u, v), leaves, strict=True)]
        q = Beta(*leaves)
        latent = Latent("z", q, q.from_stable(logs[0] - logs[1]), "implicit", "bn")
        for text, (f, mean) in OF_BETA.items():
            found = grad(surrogate([Term(f(latent.z), "bn", ("z",))], [latent]).sum(), leaves)
            parts = [g.numpy().reshape(-1) for g in found]
            expected = exact_gradient(Beta(T([[a]]), T([[b]])), mean)
            for part, exact in zip(parts, expected, strict=True):
                size = weight[kept] @ np.abs(part)
                assert abs(weight[kept] @ part - exact) <= 1e-10 * max(size, 1e-3), f"{text} at {a}, {b}"


@pytest.mark.parametrize("name", ["gamma", "beta", "dirichlet"])
def test_the_path_that_a_draw_comes_with(name):
    """The same for what `sample` gives: E[z^2], statistically."""
    row, count = ROWS[name], 20_000
    if name == "dirichlet":
        mean = lambda a: a * (a + 1) / (a.sum(-1, keepdims=True) * (a.sum(-1, keepdims=True) + 1))
    else:
        mean = EXPECTATIONS[name]["z^2"][1]
    q = repeated(row.make(), count)
    z = q.sample(Noise(3))[0]
    latent = Latent("z", q, z, "implicit", "bn")
    found = grad(surrogate([Term(latent.z**2, "bn", ("z",))], [latent]).sum(), list(q.parameters.values()))
    exact = exact_gradient(row.make(), mean).reshape(len(found), -1)
    for g, expected in zip(found, exact, strict=True):
        parts = g.numpy().reshape(count, -1)
        likely_zero(f"path of {name}", (parts - expected).sum(-1).mean(), parts.sum(-1).std() / np.sqrt(count))


# ---- what G-REP leaves to the correction -----------------------------------------------------------------------------

QUADRATICS = {
    "gamma": (lambda z: z * 0 + 1, lambda z: z.log(), lambda z: z.log() ** 2 - 3 * z.log()),
    "beta": (lambda z: z * 0 + 1, lambda z: z.logit(), lambda z: z.logit() ** 2 - 3 * z.logit()),
}


def check_quadratics(name):
    for q in members(name):
        for f in QUADRATICS[name]:
            _, correction, size = means(q, "grep", f)
            assert (np.abs(correction) <= 1e-10 * size).all(), f"the correction is {correction}"


@pytest.mark.parametrize("name", QUADRATICS)
def test_no_correction_for_quadratics_of_the_statistic(name):
    """Two moments of eps are fixed, so the expectation of a quadratic in w is all in the path."""
    check_quadratics(name)


@pytest.mark.parametrize("text", OF_GAMMA)
def test_no_correction_by_the_rate_of_a_gamma(text):
    """The law of eps does not depend on a scale: draw by draw, whatever f."""
    for q in members("gamma"):
        w = q.to_stable(q.sample(Noise(1), 1000))
        f = OF_GAMMA[text][0]
        path, correction, _ = draw_by_draw(q, w, "grep", f)
        # of b, log q_eps has the terms a / b and z, which cancel
        size = np.abs(f(q.from_stable(w)).numpy()) * (q.mean.numpy() + np.exp(w.numpy())) + np.abs(path[1])
        assert_close(correction[1], 0 * size, 64, scale=size)
        assert (path[1] != 0).any()


def test_the_parts_for_the_identity_and_the_square():
    for q in members("gamma"):
        a, b = q.shape.item(), q.rate.item()
        one, two = special.polygamma(1, a), special.polygamma(2, a)
        path, correction, _ = means(q, "grep", lambda z: z)
        expected = a * one + two / (2 * one)
        assert abs(path[0] * b - expected) <= 1e-10 * max(1, expected)
        assert abs(correction[0] * b - (1 - expected)) <= 1e-10
        path, correction, size = means(q, "grep", lambda z: z**2)
        assert abs((path + correction)[0] * b**2 - (2 * a + 1)) <= 1e-10 * (size[0] * b**2)


def test_the_variances_of_grep_and_score():
    """f = z log z: G-REP is not always the better choice; the score is, below shape 1."""
    # as sampled in the project's notes; where tails are heavy, for 0.3, a sample says 61 and the integral 55.2
    table = {0.3: (55.2, 7.5), 1.0: (8.6, 9.3), 2.0: (3.5, 14.4), 5.0: (1.4, 36), 20.0: (0.5, 226)}
    for a, expected in table.items():
        q = Gamma(T([[a]]), T([[1.0]]))
        for estimator, variance in zip(("grep", "score"), expected, strict=True):
            def g(w, q=q, estimator=estimator):
                both = draw_by_draw(q, w, estimator, OF_GAMMA["z log z"][0])[2][0].reshape(-1)
                return np.stack([both, both**2], axis=-1)

            mean, square = expectation(q, g)
            assert abs(square - mean**2 - variance) <= 0.05 * variance, f"{estimator} at {a}: {square - mean**2}"


def ratio(z, i, j=2):
    return z[..., i : i + 1].log() - z[..., j : j + 1].log()


def psi_ratio(a, i, j=2):
    return a[..., i : i + 1].digamma() - a[..., j : j + 1].digamma()


OF_VECTORS = {
    "z_1^2": (Dirichlet, lambda z: (z[..., :1] ** 2).sum(-1),
              lambda a: a[..., :1] / a.sum(-1, keepdims=True) * (a[..., :1] + 1) / (a.sum(-1, keepdims=True) + 1)),
    "y_1 y_2": (Dirichlet, lambda z: (ratio(z, 0) * ratio(z, 1)).sum(-1),
                lambda a: psi_ratio(a, 0) * psi_ratio(a, 1) + a[..., 2:].polygamma(1)),
    "z_1 z_2": (FullNormal, lambda z: (z[..., :1] * z[..., 1:]).sum(-1),
                lambda mu, logvar, lower: mu[..., :1] * mu[..., 1:] + (0.5 * logvar[..., :1]).exp() * lower),
}


@pytest.mark.parametrize("estimator", ["grep", "score"])
@pytest.mark.parametrize("text", OF_VECTORS)
def test_a_vector_latent(text, estimator):
    """One density a vector, (samples, batch), for a draw of (samples, batch, n)."""
    family, f, mean = OF_VECTORS[text]
    q = plane(family)[0]
    path, correction, size = means(q, estimator, f, 421)
    error = np.abs(path + correction - exact_gradient(q, mean))
    assert (error <= 1e-10 * np.maximum(size, 1e-3)).all(), f"{estimator} of {text}: off by {error}"
    if (text, estimator) == ("y_1 y_2", "grep"):  # E[eps eps^T] is fixed
        assert (np.abs(correction) <= 1e-10 * size).all()


# ---- the limits ------------------------------------------------------------------------------------------------------


def test_the_identity_gives_the_score_draw_by_draw():
    for q in members("gamma"):
        w = q.to_stable(q.sample(Noise(2), 500))
        a, b, z = q.shape.item(), q.rate.item(), np.exp(w.numpy())
        for f, _ in OF_GAMMA.values():
            path, correction, _ = draw_by_draw(q, w, "score", f)
            value = f(q.from_stable(w)).numpy()
            scores = (w.numpy() - special.digamma(a) + np.log(b), a / b - z)
            for p, c, h in zip(path, correction, scores, strict=True):
                assert (p == 0).all()
                scale = np.abs(value) * (np.abs(w.numpy()) + z + abs(special.digamma(a)) + a / b + 2)
                assert_close(c, value * h, 64, scale=scale + 1e-300)


@pytest.mark.parametrize("name", ["normal", "log-normal", "laplace", "full-normal"])
def test_noise_without_parameters_gives_the_reparameterization_trick(name):
    """For a location and a scale, standardised draws have a law of their own: the correction is 0 to rounding."""
    q = ROWS[name].make()
    w = q.to_stable(q.sample(Noise(4), 100)).detach()
    f = lambda z: (z * 0.3).tanh() + 0.1 * z
    _, correction, both = draw_by_draw(q, w, "grep", f)
    path, nothing, _ = draw_by_draw(q, w, "reparam", f)
    for a, b, c, d in zip(path, both, correction, nothing, strict=True):
        scale = 1 + np.abs(a).max()
        assert_close(b, a, 256, scale=scale)
        assert_close(c, 0 * c, 256, scale=scale)
        assert (d == 0).all()


def by_hand_gamma(w, a, b, f, slope):
    """G-REP's pieces for a Gamma in plain z (the paper's supplement): h = dT/dv, u = d log|det dT/deps| / dv."""
    z, (psi, one, two) = np.exp(w), (special.polygamma(n, a) for n in range(3))
    eps = (w - psi + np.log(b)) / np.sqrt(one)
    half = eps * two / (2 * np.sqrt(one))
    h = z * (half + one), -z / b
    u = two / (2 * one) + half + one, -1 / b
    by_z = (a - 1) / z - b
    by_v = np.log(b) - psi + np.log(z), a / b - z
    return [h[i] * slope(z) + f(z) * (h[i] * by_z + by_v[i] + u[i]) for i in range(2)]


def by_hand_beta(w, a, b, f, slope):
    z, rest = special.expit(w), special.expit(-w)
    first, second = ([special.polygamma(n, v) for n in range(3)] for v in (a, b))
    s = np.sqrt(first[1] + second[1])
    eps = (w - first[0] + second[0]) / s
    c = first[1] + eps * first[2] / (2 * s), -second[1] + eps * second[2] / (2 * s)
    by_z = (a - 1) / z - (b - 1) / rest
    total = special.digamma(a + b)
    by_v = np.log(z) - first[0] + total, np.log(rest) - second[0] + total
    u = [(1 - 2 * z) * c[i] + (first[2], second[2])[i] / (2 * s**2) for i in range(2)]
    return [z * rest * c[i] * slope(z) + f(z) * (z * rest * c[i] * by_z + by_v[i] + u[i]) for i in range(2)]


@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_the_paper_s_formulas_draw_by_draw(name):
    by_hand = {"gamma": by_hand_gamma, "beta": by_hand_beta}[name]
    for values in SINGLE[name]:
        q = ROWS[name].family(*(T([[v]]) for v in values))
        w = Tensor(np.clip(q.to_stable(q.sample(Noise(5), 300)).numpy(), -30, 30))  # where z and 1 - z have digits
        for f, slope in ((lambda z: z * z, lambda z: 2 * z), (lambda z: z**0.5, lambda z: 0.5 * z**-0.5)):
            _, _, both = draw_by_draw(q, w, "grep", f)
            with_path = by_hand(w.numpy(), *values, f, slope)
            for found, expected in zip(both, with_path, strict=True):
                size = np.abs(expected).max()
                assert np.abs(found - expected).max() <= 1e-12 * max(size, 1), f"{name}{values}"


# ---- wrong variants --------------------------------------------------------------------------------------------------


def without_log_scale(q, z):
    path = ORIGINAL(q, z)
    return MappedDraw(path.z, path.log_q - q.log_scale())


def with_wrong_sign(q, z):
    path = ORIGINAL(q, z)
    return MappedDraw(path.z, -path.log_q)


def path_only(q, z):
    path = ORIGINAL(q, z)
    return MappedDraw(path.z, path.log_q.detach())


def noise_not_held(q, z):
    """eps still depends on the parameters, so z stays where it is."""
    w = q.unstandardise(q.standardise(q.to_stable(z).detach()))
    return MappedDraw(q.from_stable(w), q.log_density(w) + q.log_scale())


ORIGINAL = estimators.MAPS["grep"]


@pytest.mark.parametrize("wrong", [without_log_scale, with_wrong_sign, path_only, noise_not_held])
def test_a_wrong_map_is_found(monkeypatch, wrong):
    monkeypatch.setitem(estimators.MAPS, "grep", wrong)
    with pytest.raises(AssertionError):
        check_mean("gamma", "grep", "z")
    with pytest.raises(AssertionError):
        check_mean("beta", "grep", "z^2")
    if wrong is without_log_scale:
        with pytest.raises(AssertionError):
            check_quadratics("gamma")


def test_a_weight_that_is_not_stopped_is_found(monkeypatch):
    """f log q - stop(f log q) in place of stop(f) (log q - stop(log q)): the value is right, the gradient is not."""
    right = surrogate

    def wrong(terms, latents):
        weighted = terms[0].value * latents[0].log_q
        return right(terms, []) + (weighted - weighted.detach()).sum((1, 2))

    monkeypatch.setitem(globals(), "surrogate", wrong)
    with pytest.raises(AssertionError, match="off by"):
        check_mean("gamma", "grep", "z")


# ---- in the kept logarithm -------------------------------------------------------------------------------------------

IN_LOGARITHMS = {
    "log z": lambda z: z.log(), "(log z)^2": lambda z: z.log() ** 2, "z": lambda z: z, "z log z": lambda z: z * z.log(),
    "sqrt z": lambda z: z.sqrt(), "z^0.01": lambda z: z**0.01, "1 / (1 + z)": lambda z: 1 / (1 + z),
    "a Gamma's log density": lambda z: (0.1 - 1) * z.log() - 0.3 * z,
    "a Poisson's": lambda z: 3 * (0.7 * z + 2).log() - 0.7 * z,
}  # fmt: skip


def check_finite(estimator, f, strip=lambda z: z):
    shape = T(np.full(463_800, 1e-3), np.float32, requires_grad=True)
    rate = T(np.full(463_800, 2.0), np.float32, requires_grad=True)
    q = Gamma(shape, rate)
    latent = Latent("z", q, strip(q.sample(Noise(8))), estimator, "n")
    total = surrogate([Term(f(latent.z), "n", ("z",))], [latent])
    found = [latent.log_q] if latent.log_q is not None else []
    for what in (*found, total, *grad(total.sum(), [shape, rate])):
        assert np.isfinite(what.numpy()).all()


@pytest.mark.parametrize("estimator", ["grep", "implicit", "score"])
def test_tiny_shapes_in_float32(estimator):
    """As many latents as the deep exponential family on Olivetti has, at the smallest shape its authors allow."""
    for f in IN_LOGARITHMS.values():
        check_finite(estimator, f)


def test_a_draw_without_its_logarithm_is_found():
    for estimator in ("grep", "score"):
        with pytest.raises(AssertionError), np.errstate(all="ignore"):
            check_finite(estimator, IN_LOGARITHMS["log z"], lambda z: Tensor(z.data))


# ---- terms and axes --------------------------------------------------------------------------------------------------

SIZES = {"n": 3, "k": 2, "d": 4}


def by_loop(terms, name, axes, samples):
    """For each place of a latent, the sum of all numbers of its terms that lie at that place."""
    total = np.zeros((samples, *(SIZES[axis] for axis in axes)))
    for place in np.ndindex(total.shape[1:]):
        at = dict(zip(axes, place, strict=True))
        for value, own, of in terms:
            if name not in of:
                continue
            for where in np.ndindex(value.shape[1:]):
                index = dict(zip(own, where, strict=True))
                if all(index[axis] == at[axis] for axis in axes if axis in index):
                    total[(slice(None), *place)] += value[(slice(None), *where)]
    return total


def latent_with_axes(name, axes, samples=2):
    shape = tuple(SIZES[axis] for axis in axes)
    q = Normal(T(np.zeros(shape), requires_grad=True), T(np.zeros(shape)))
    return Latent(name, q, q.sample(Noise(0), samples), "score", axes)


@pytest.mark.parametrize("axes", ["", "n", "nk", "kn", "dkn", "d"])
def test_signal_of_named_axes(axes):
    rng = np.random.default_rng(0)
    terms = [(rng.normal(size=(2, *(SIZES[axis] for axis in own))), own, of) for own, of in
             [("", ("z",)), ("nd", ("z", "y")), ("dn", ("z",)), ("kd", ("y",)), ("nkd", ("z",)), ("k", ("z", "x")),
              ("kdn", ("z",)), ("n", ())]]
    latent = latent_with_axes("z", axes)
    found = signal([Term(T(value), own, of) for value, own, of in terms], latent)
    assert found.ndim == 1 + len(axes)
    expected = by_loop(terms, "z", axes, 2)
    assert_close(np.broadcast_to(found.numpy(), expected.shape), expected, 64)
    if axes:
        with pytest.raises(AssertionError):  # a term of another latent is none of this one's
            assert_close(np.broadcast_to(found.numpy(), expected.shape), by_loop(terms, "y", axes, 2), 64)


def test_signal_of_a_vector_latent():
    """Its places are its vectors: the last axis' name is summed over."""
    q = Dirichlet(T(POSITIVE))
    latent = Latent("z", q, q.sample(Noise(0), 5), "grep", "bn")
    found = signal([Term(latent.z, "bn", ("z",)), Term(latent.z.sum((1, 2)), "", ("z",))], latent)
    assert_close(found.numpy(), np.full((5, 2), 3.0), 8)
    q = Dirichlet(T(POSITIVE, requires_grad=True))
    for baseline in (no_baseline, leave_one_out, fitted):
        latent = Latent("z", q, q.sample(Noise(0), 5), "grep", "bn")
        assert surrogate([Term(latent.z, "bn", ("z",))], [latent], baseline).shape == (5,)


# ---- all values of discrete latents ----------------------------------------------------------------------------------


def enumerated(samples, states):
    """All outcomes of `samples` draws of a tuple of variables with 3 values each: (outcomes, samples, states)."""
    return np.array(list(itertools.product(range(3), repeat=samples * states))).reshape(-1, samples, states)


F_ONE, F_TWO, F_BOTH = np.array([1.0, -2.0, 5.0]), np.array([0.3, 7.0, -1.0]), np.arange(9.0).reshape(3, 3) ** 1.5 / 4
LOGITS = np.array([[0.3, -0.5, 1.0]]), np.array([[-1.0, 0.2, 0.4]])


def table(values, *one_hot):
    """A table's entry at one-hot draws (samples, 1, 3), as a product: (samples, 1)."""
    if len(one_hot) == 1:
        return (one_hot[0] * Tensor(values)).sum(-1)
    first, second = one_hot
    return ((first @ Tensor(values)) * second).sum(-1)


def check_enumerated(baseline, samples, rao_blackwell=True, more=0.0):
    """Over all outcomes, the surrogate's gradient has the gradient of E[f] for its mean: f = f1(y) + f2(z) + f12(y, z).

    `more` is added to f. Returns the variance of the estimates, summed over the parameters."""
    leaves = [T(values, requires_grad=True) for values in LOGITS]
    p, r = (special.softmax(values[0]) for values in LOGITS)
    mean, second = [np.zeros((1, 3))] * 2, 0.0
    for outcome in enumerated(samples, 2):
        q = [Categorical(leaf) for leaf in leaves]
        draws = [T(np.eye(3)[outcome[:, i]][:, None, :]) for i in range(2)]
        latents = [Latent(name, *pair, "score", "bn") for name, *pair in zip("yz", q, draws, strict=True)]
        y, z = (latent.z for latent in latents)
        of = (("y",), ("z",)) if rao_blackwell else (("y", "z"), ("y", "z"))
        terms = [Term(table(F_ONE, y) + more, "b", of[0]), Term(table(F_TWO, z) + more, "b", of[1]),
                 Term(table(F_BOTH, y, z), "b", ("y", "z"))]
        found = [g.numpy() for g in grad(surrogate(terms, latents, baseline).mean(), leaves)]
        weight = np.prod(p[outcome[:, 0]] * r[outcome[:, 1]])
        mean = [m + weight * g for m, g in zip(mean, found, strict=True)]
        second += weight * sum((g**2).sum() for g in found)
    f_y, f_z = F_ONE + F_BOTH @ r, F_TWO + p @ F_BOTH
    exact = [p * (f_y - p @ f_y), r * (f_z - r @ f_z)]
    for found, expected in zip(mean, exact, strict=True):
        assert np.abs(found[0] - expected).max() <= 1e-12, f"E[g] is {found}, the gradient {expected}"
    return second - sum((e**2).sum() for e in exact)


def with_state(value):
    average = MovingAverage()
    for name in "yz":
        average._states[name] = Tensor(np.array(value))

    def each_time(f, latent):
        average._states[latent.name].data[...] = value  # as of the steps before
        return average(f, latent)

    return each_time


def with_own(f, latent):
    """Wrong: the mean over all draws, the latent's own among them."""
    return estimators.score_term(f - f.mean(0, keepdims=True), latent)


@pytest.mark.parametrize(("baseline", "samples"), [
    (no_baseline, 1), (no_baseline, 2), (leave_one_out, 2), (fitted, 2), (with_state(2.0), 1), (with_state(2.0), 2),
])  # fmt: skip
def test_baselines_leave_the_mean(baseline, samples):
    check_enumerated(baseline, samples)


def test_a_baseline_that_contains_its_own_draw_is_found():
    with pytest.raises(AssertionError, match="the gradient"):
        check_enumerated(with_own, 2)


def test_leave_one_out_of_three_draws():
    """One variable, all 27 outcomes."""
    leaf = T(LOGITS[0], requires_grad=True)
    p = special.softmax(LOGITS[0][0])
    exact = p * (F_ONE - p @ F_ONE)
    for baseline, right in ((leave_one_out, True), (fitted, True), (with_own, False)):
        mean = np.zeros(3)
        for outcome in enumerated(3, 1)[:, :, 0]:
            latent = Latent("z", Categorical(leaf), T(np.eye(3)[outcome][:, None, :]), "score", "bn")
            total = surrogate([Term(table(F_ONE, latent.z), "b", ("z",))], [latent], baseline).mean()
            mean += np.prod(p[outcome]) * grad(total, leaf).numpy()[0]
        assert (np.abs(mean - exact).max() <= 1e-12) == right


def test_fewer_terms_and_baselines_lower_the_variance():
    rest = check_enumerated(no_baseline, 1)
    assert rest < check_enumerated(no_baseline, 1, rao_blackwell=False)
    for baseline in (leave_one_out, fitted):  # of few draws they are rough, and better where f is far from 0
        assert check_enumerated(baseline, 2, more=20.0) < 0.2 * check_enumerated(no_baseline, 2, more=20.0)
    assert check_enumerated(with_state(2.0), 1) < rest


def test_fitted_is_the_best_constant_of_the_other_draws():
    """b = sum f h^2 / sum h^2, by a loop."""
    q = Gamma(T([[2.0, 0.5]], requires_grad=True), T([[1.0, 3.0]], requires_grad=True))
    draw = q.sample(Noise(6), 6).detach()
    latent = Latent("z", q, draw, "score", "bn")
    f = latent.z.log() ** 2
    found = grad(surrogate([Term(f, "bn", ("z",))], [latent], fitted).sum(), [q.shape, q.rate])
    w, z, a, b = draw.log().numpy(), draw.numpy(), q.shape.numpy(), q.rate.numpy()
    for g, h in zip(found, (w - special.digamma(a) + np.log(b), a / b - z), strict=True):
        expected = np.zeros_like(a)
        for s in range(6):
            others = [i for i in range(6) if i != s]
            best = (f.numpy()[others] * h[others] ** 2).sum(0) / (h[others] ** 2).sum(0)
            expected += (f.numpy()[s] - best) * h[s]
        assert_close(g.numpy(), expected, 1024)


def test_moving_average():
    """b follows f with the decay, is used before it is moved, one a latent, and is moved by a replay as well."""
    average = MovingAverage(0.75)
    values, expected = [3.0, -1.0, 4.0, 4.0], {"y": 0.0, "z": 0.0}
    for step, value in enumerate(values):
        for name, factor in (("y", 1.0), ("z", 10.0)):
            latent = latent_with_axes(name, "")
            f = T(np.full(2, factor * value + step + 0.5))
            weight = grad(average(f, latent).sum(), latent.q.mu).numpy() / grad(
                no_baseline(f, latent).sum(), latent.q.mu).numpy()
            assert_close(weight * f.numpy()[0], f.numpy()[0] - expected[name], 32)
            expected[name] = 0.75 * expected[name] + 0.25 * f.numpy()[0]
    f, average = T(np.zeros(2)), MovingAverage(0.75)
    average._states["z"] = Tensor(np.zeros(()))
    with tv.Tape() as tape:
        latent = latent_with_axes("z", "")
        g = grad(average(f, latent).sum(), latent.q.mu)
    b, unit = 0.0, None
    average._states["z"].data[...] = 0
    for value in values:
        f.data[...] = value
        tape.replay()
        if unit is None:
            unit = g.data / value
        assert_close(g.data, unit * (value - b), 32)
        b = 0.75 * b + 0.25 * value
        assert_close(average._states["z"].data, b, 4)


# ---- choosing --------------------------------------------------------------------------------------------------------


def test_choices():
    assert {f: choices(f) for f in (Normal, LogNormal, Laplace, FullNormal)} == {
        f: ["reparam", "grep", "score"] for f in (Normal, LogNormal, Laplace, FullNormal)}
    assert {f: choices(f) for f in (Gamma, Beta, Dirichlet)} == {
        f: ["implicit", "grep", "score"] for f in (Gamma, Beta, Dirichlet)}
    assert choices(Categorical) == choices(Poisson) == ["score"]
    with pytest.raises(ValueError, match="found estimator 'reparam'; Gamma has implicit, grep, score"):
        check_choice(Gamma, "reparam")
    with pytest.raises(ValueError, match="Categorical has score"):
        Latent("z", Categorical(T([[0.0]])), T([[[1.0]]]), "grep", "bn")
    assert set(BASELINES) == {"none", "leave-one-out", "moving-average", "fitted"}


@pytest.mark.parametrize("name", ["leave-one-out", "fitted"])
def test_one_draw_is_too_few_for_some_baselines(name):
    latent = latent_with_axes("z", "n", samples=1)
    with pytest.raises(ValueError, match=f"found 1 sample; the {name} baseline needs at least 2"):
        surrogate([Term(latent.z, "n", ("z",))], [latent], BASELINES[name]())


def test_a_family_that_is_not_standardised_says_so():
    for call in (lambda d: d.standardise(T([0.0])), lambda d: d.log_scale()):
        with pytest.raises(TypeError, match="ContinuousBernoulli has no"):
            call(ContinuousBernoulli(T([0.0])))
