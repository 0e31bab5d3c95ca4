"""The evidence by quadrature: exact where the evidence is known, in one to four dimensions, at n^d evaluations."""

import math

import numpy as np
import pytest
from oracles import LinearGaussian
from scipy import integrate
from scipy.special import log_expit
from support import likely_zero

import tinyvae as tv
from tinyvae.bayes.quadrature import by_quadrature, refined
from tinyvae.distributions import Gamma, Normal
from tinyvae.evidence.diagnostics import variance_of
from tinyvae.evidence.importance import log_evidence


@pytest.mark.parametrize("latent", [1, 2, 3, 4])
def test_of_a_linear_gaussian_model_it_is_exact(latent):
    """And importance sampling agrees with it within its own error."""
    rng = np.random.default_rng(latent)
    weight = np.linalg.qr(rng.standard_normal((5, latent)))[0]
    model = LinearGaussian(0.7 * weight, rng.standard_normal(5), np.ones(5))
    x = model.simulate(2, seed=latent)[1]
    found = by_quadrature(model, tv.Tensor(x), 16)
    assert found.evaluations == 16**latent
    exact = model.log_evidence(x)
    print(f"{latent}: {found.evaluations:,} evaluations, error {np.abs(found.log_evidence - exact).max():.1g} nats")
    np.testing.assert_allclose(found.log_evidence, exact, rtol=0, atol=1e-6)
    coarse = refined(model, tv.Tensor(x), 1e-2)
    np.testing.assert_allclose(coarse.log_evidence, exact, rtol=0, atol=1e-2)
    assert coarse.evaluations == coarse.points**latent < found.evaluations
    draws = 4000
    estimate, effective = log_evidence(model, tv.Batch(tv.Tensor(x)), tv.Noise(0), draws)
    for row in range(2):
        likely_zero(f"importance sampling of row {row}", estimate[row] - found.log_evidence[row],
                    math.sqrt(variance_of(effective, draws)[row]))


def test_polynomials_are_integrated_exactly():
    """log p(x|z) = log(polynomial of degree 8): five points suffice, four do not."""
    class Polynomial:
        def __init__(self, z):
            self.z = z

        def log_prob(self, x):
            z = self.z.sum(-1)
            return (z**8 + 3 * z**2 + z + 2).log() + 0.0 * x.sum(-1)

    p = tv.Joint(Normal(tv.Tensor([0.3]), tv.Tensor([math.log(0.49)])), Polynomial)
    x = tv.Tensor(np.zeros((1, 1)))
    exact = integrate.quad(lambda t: (t**8 + 3 * t**2 + t + 2) * math.exp(-0.5 * ((t - 0.3) / 0.7) ** 2)
                           / (0.7 * math.sqrt(2 * math.pi)), -9, 9, epsabs=0, epsrel=1e-13)[0]
    assert by_quadrature(p, x, 5).log_evidence[0] == pytest.approx(math.log(exact), rel=1e-14)
    assert by_quadrature(p, x, 4).log_evidence[0] != pytest.approx(math.log(exact), rel=1e-9)
    assert refined(p, x, 1e-12, first=5).points == 12  # 5, 8 and 12 agree: one agreement may be luck


def test_of_a_vae_it_is_what_scipy_integrates():
    """A Bernoulli decoder, in float32: SciPy's integral over z of its own formula."""
    model = tv.VAE(6, hidden=4, latent=1, seed=3, activation="tanh")
    (first, last) = ((layer.weight.data, layer.bias.data) for layer in model.decoder.layers)
    last[0][...] *= 3
    x = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]], np.float32)

    def density(z, row):
        logits = np.tanh(z * first[0][0] + first[1]) @ last[0] + last[1]
        return math.exp(log_expit(np.where(row == 1, logits, -logits)).sum() - z * z / 2) / math.sqrt(2 * math.pi)

    found = refined(model.generator(None), tv.Tensor(x), 1e-3)
    for i, row in enumerate(x):
        exact = integrate.quad(density, -9, 9, (row,), epsabs=1e-9)[0]
        assert found.log_evidence[i] == pytest.approx(math.log(exact), abs=2e-3)


@pytest.mark.parametrize(("use", "message"), [
    (lambda p, x: by_quadrature(p, x, 0), "found points 0; expected a whole number, at least 1"),
    (lambda p, x: by_quadrature(p, x, 101), "found 101 points on each of 3 axes, which are 1,030,301 evaluations; "
     "expected at most 1,000,000: take at most 100 points"),
    (lambda p, x: by_quadrature(p, x, 251), "found 251 points of each axis; expected at most 250, beyond which"),
    (lambda p, x: refined(p, x, 0.0), "found tolerance=0.0; expected nats, above 0"),
    (lambda p, x: by_quadrature(tv.Joint(Normal.standard(30, "float64"), p.likelihood), x, 2),
     "found 2 points on each of 30 axes.*: take importance sampling"),
    (lambda p, x: by_quadrature(tv.Joint(Gamma(tv.Tensor([1.0]), tv.Tensor([1.0])), p.likelihood), x, 2),
     r"found a Gamma prior with parameters \(1,\); expected one normal prior")])  # fmt: skip
def test_wrong_use_gets_a_sentence(use, message):
    model = LinearGaussian.random(3, 3, seed=0)
    with pytest.raises(ValueError, match=message):
        use(model, tv.Tensor(np.zeros((1, 3))))
