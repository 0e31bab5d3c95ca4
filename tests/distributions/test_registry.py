"""The registry: a file that registers a family is all that it takes, as a user's Student-t shows."""

import shutil

import numpy as np
import pytest
from integrals import expectation, member, quadrature
from properties import CHECKS, DRAWS
from support import ROOT, likely_zero, run_python

import tinyvae as tv
from tinyvae.distributions import (
    FAMILIES,
    LIKELIHOODS,
    Gamma,
    Normal,
    divergence,
    family,
    has_closed_kl,
    kl_or_sampled,
    likelihood,
    misfit,
    posteriors,
    prior_of,
    registry,
)
from tinyvae.engine.devices import CPU
from tinyvae.engine.noise import Noise
from tinyvae.engine.tensor import Tensor
from tinyvae.inference import bounds
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

STUDENT = '''
"""Student's t distribution with 5 degrees of freedom, by location and scale."""
import math
from scipy.special import gammaln
from tinyvae.distributions import Distribution, LogTensor, family
from tinyvae.distributions.rejection import log_gamma

@family("tests-student", prior=("tests-student", 0.0, 1.0))
class OwnStudent(Distribution):
    path, nu = "reparam", 5.0

    def __init__(self, mu, scale):
        self.mu, self.scale, self.mean = mu, scale, mu

    parameters = property(lambda self: {"mu": self.mu, "scale": self.scale})
    variance = property(lambda self: self.scale**2 * (self.nu / (self.nu - 2)))

    @classmethod
    def from_raw(cls, raw):
        mu, log_scale = raw.split(2)
        return cls(mu, LogTensor(log_scale))

    def log_density(self, w):
        e, nu = (w - self.mu) / self.scale, self.nu
        constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * math.log(nu * math.pi)
        return float(constant) - self.scale.log() - (nu + 1) / 2 * (e * e / nu).log1p()

    def log_prob(self, x):
        return self.log_density(x).sum(-1)

    def sample(self, noise, samples=1):  # a normal number over the root of nu / 2 over a Gamma draw
        normal = noise.normal((samples, *self.mu.shape), self.mu.dtype)
        log_g = log_gamma(0 * self.mu.detach() + self.nu / 2, noise, samples)
        return self.mu + self.scale * normal * (0.5 * (math.log(self.nu / 2) - log_g)).exp()

    def _moments(self):
        return self.mu, self.scale * math.sqrt(self.nu / (self.nu - 2))
'''


@pytest.fixture(autouse=True)
def _tables():
    """What a test registers is gone after it."""
    tables = FAMILIES, registry.POSTERIORS, registry.PRIORS, LIKELIHOODS, divergence.CLOSED_FORMS
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


@pytest.fixture
def student():
    """The class of a user's own file."""
    names = {"__name__": "my_family"}
    exec(compile(STUDENT, "my_family.py", "exec"), names)
    return names["OwnStudent"]


# ---- a user's own ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_a_new_family_passes_the_checks_of_all(student, check):
    assert FAMILIES["tests-student"] is student
    check(student)


def test_a_new_family_is_a_posterior(student):
    assert posteriors()["tests-student"] is student
    prior = prior_of("tests-student", 3, np.float32, CPU)
    assert type(prior) is student
    assert prior.scale.numpy().tolist() == [1, 1, 1]
    q = member(student, 1)
    assert not has_closed_kl(q, prior)
    x = Tensor(np.random.default_rng(0).integers(0, 2, (20, 6)).astype(np.float32))
    model = tv.VAE(6, 4, 3, posterior="tests-student")
    z, kl = model.q(x).sample_with_kl(model.prior, Noise(0), 5)
    assert (z.shape, kl.shape) == ((5, 20, 3), (20,))
    for bound in ("elbo-a", "elbo-b"):
        terms = bounds.terms(model, model.q, x, Noise(0), 2, bound)
        loss = -(terms.reconstruction - terms.kl).mean()
        assert all(g.numpy().any() for g in tv.grad(loss, list(model.parameters)))


def test_free_bits_without_a_closed_form_are_refused_before_training(student):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 6)).astype(np.uint8)
    data = tv.DataSet("made-up", pixels, pixels[:5], (2, 3), 255.0, "dynamic", "bernoulli")
    model = tv.VAE(6, 4, 3, posterior="tests-student")
    with pytest.raises(ValueError, match=r"found free_bits=0.1 with KL\(OwnStudent \|\| OwnStudent\); expected a KL"):
        Training(model, data, Settings(free_bits=0.1))


def test_a_divergence_without_a_closed_form_is_sampled(student):
    """Its mean is the divergence, by quadrature; log q of the draw is taken where it is given."""
    q, p = member(student, 1), member(Normal, 1, seed=5)
    exact, _ = expectation(q, lambda x: (q.log_prob(x) - p.log_prob(x)).numpy(), quadrature("real", 1))
    z, log_q = q.draw(Noise(1), DRAWS)
    each = (log_q - p.log_prob(z)).numpy()
    found = kl_or_sampled(q, p, z).item()
    likely_zero("KL(t || normal)", found - exact[0], each.std() / np.sqrt(DRAWS))
    assert kl_or_sampled(q, p, z, log_q + 1).item() == pytest.approx(found + 1)
    closed = member(Gamma, 1), member(Gamma, 1, seed=5)
    assert kl_or_sampled(*closed, z).item() == tv.distributions.kl(*closed).item()  # z is not looked at


def test_a_file_in_the_folder_is_a_family(tmp_path):
    """Nothing else is edited: Python, the model and the sentence about a wrong choice know it."""
    shutil.copytree(ROOT / "tinyvae", tmp_path / "tinyvae", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tinyvae" / "distributions" / "tests_student.py").write_text(
        STUDENT.replace("from tinyvae.distributions import Distribution, LogTensor, family",
                        "from tinyvae.distributions.base import Distribution\n"
                        "from tinyvae.distributions.registry import family\n"
                        "from tinyvae.distributions.stable import LogTensor"))  # fmt: skip
    done = run_python(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import tinyvae as tv
from tinyvae.distributions import OwnStudent
assert type(tv.VAE(6, 4, 3, posterior="tests-student").prior) is OwnStudent
tv.VAE(6, 4, 3, posterior="cauchy")
""")
    assert "found posterior 'cauchy'; expected one of" in done.stderr
    assert "tests-student" in done.stderr


# ---- what is registered ----------------------------------------------------------------------------------------------


def test_priors():
    """Each posterior has a prior of as many dimensions as it, in the type that was asked for."""
    for name in posteriors():
        prior = prior_of(name, 4, np.float32, CPU)
        assert prior.sample(Noise(0), 2).shape == (2, 4)
        assert {v.dtype for v in prior.parameters.values()} == {np.dtype(np.float32)}
    assert {"beta", "dirichlet", "full-normal", "gamma", "log-normal", "normal"} <= set(posteriors())
    assert registry.PRIORS["gamma"] == ("gamma", 0.3, 0.3)


def test_what_a_wrong_registration_says():
    register = family("gamma")
    with pytest.raises(ValueError, match=r"found a second family of the name 'gamma': Normal in .* beside Gamma in"):
        register(Normal)
    assert register(Gamma) is Gamma  # a cell that runs again
    sentence = r"found a second likelihood of the name 'bernoulli': Normal in .* beside Bernoulli"
    with pytest.raises(ValueError, match=sentence):
        likelihood("bernoulli", pixels="real")(Normal)
    with pytest.raises(ValueError, match="found the pixels of the likelihood mine 'colour'; expected one of binary"):
        likelihood("mine", pixels="colour")
    with pytest.raises(ValueError, match="found the support of mine 'a circle'; expected one of real, positive, unit"):
        family("mine")(type("Mine", (Normal,), {"support": "a circle"}))


def test_what_data_a_likelihood_takes():
    """bits are grey values, and counts; what does not fit gets a sentence with what would."""
    ours = ("bernoulli", "gaussian", "continuous-bernoulli")
    accepted = {(name, kind) for name in ours for kind in registry.DATA if not misfit(name, kind)}
    assert accepted == {(name, kind) for name in ours for kind in ("binary", "grey")} - {("bernoulli", "grey")}
    assert misfit("bernoulli", "grey", "digits-gray") == (
        "the likelihood bernoulli takes 0 and 1, and digits-gray has numbers from 0 to 1; likelihoods that do: "
        + ", ".join(name for name, row in LIKELIHOODS.items() if row.data in ("grey", "real")))
    assert misfit("gaussian", "counts") == (
        "the likelihood gaussian takes numbers from 0 to 1, and the data set has whole numbers from 0 on; likelihoods "
        "that do: " + ", ".join(name for name, row in LIKELIHOODS.items() if row.data in ("counts", "real")))
    assert not misfit("poisson", "binary")
    assert "negative-binomial has" not in misfit("negative-binomial", "real")
    assert "likelihoods that do: normal, student-t" in misfit("negative-binomial", "real")
    assert not any(misfit("normal", kind) for kind in registry.DATA)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_starts_at_the_mean_of_the_data(name):
    """`parameter_of_mean` gives the raw number at which the mean is the data's."""
    cls, mean = LIKELIHOODS[name].family, np.array([[0.01, 0.3, 0.5, 0.9]])
    start = cls.parameter_of_mean(mean)
    rest = np.zeros((1, cls.width(4) - 4))
    found = cls.from_raw(Tensor(np.concatenate([start, rest], axis=-1))).mean.numpy()
    assert np.abs(found - mean).max() <= 1e-9


def test_a_likelihood_without_parameter_of_mean_says_so():
    likelihood("gamma", pixels="binary")(Gamma)
    with pytest.raises(ValueError, match="found Gamma as the likelihood of a model that starts at the data's mean; "
                                         "expected a family with parameter_of_mean: leave data_mean_bias out"):
        tv.VAE(6, 4, 3, likelihood="gamma", data_mean=np.full(6, 0.5))
