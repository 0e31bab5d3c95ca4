"""A file of the user's own: what it registers is a choice everywhere, and a run asks for it again."""

import json

import pytest
from support import forks

import tinyvae as tv
from tinyvae.models import extensions

OWN = '''
"""A posterior, a likelihood and a model of my own."""
import math

import tinyvae as tv
from tinyvae.distributions import Bernoulli, Normal, family, likelihood
from tinyvae.distributions.base import Distribution

@family("tests-student", prior=("normal", 0.0, 0.0))
class Student(Distribution):
    """Student's t with 5 degrees of freedom: mu + sigma eps / sqrt(g / 5), g ~ chi^2(5)."""
    path = "reparam"
    def __init__(self, mu, logvar):
        self.mu, self.logvar, self.mean = mu, logvar, mu
    parameters = property(lambda self: {"mu": self.mu, "logvar": self.logvar})
    variance = property(lambda self: self.logvar.exp() * (5 / 3))
    @classmethod
    def from_raw(cls, raw):
        return cls(*raw.split(2))
    def log_density(self, w):
        d = (w - self.mu) * (-0.5 * self.logvar).exp()
        constant = math.lgamma(3) - math.lgamma(2.5) - 0.5 * math.log(5 * math.pi)
        return constant - 0.5 * self.logvar - 3 * (d * d / 5).log1p()
    def log_prob(self, x):
        return self.log_density(x).sum(-1)
    def sample(self, noise, samples=1):
        shape = (samples, *self.mu.shape)
        squares = [noise.normal(shape, self.mu.dtype) for _ in range(5)]
        g = sum(s * s for s in squares)
        return self.mu + (0.5 * self.logvar).exp() * noise.normal(shape, self.mu.dtype) / (g / 5).sqrt()

@likelihood("soft-bernoulli", pixels="binary")
@family("soft-bernoulli")
class SoftBernoulli(Bernoulli):
    """A Bernoulli whose logits are halved."""
    @classmethod
    def from_raw(cls, raw):
        return cls(0.5 * raw)

class Plain(tv.Model, kind="plain"):
    """A VAE without options but the width."""
    def build(self, pixels, hidden=30, scale=1.0):
        self.q, self.p = self.network("q", pixels, hidden, Normal, 4), self.network("p", 4, hidden, Bernoulli, pixels)
        self.prior = Normal.standard(4, self.dtype, self.xp)
    def likelihood(self, z):
        return self.p(z)
    def generator(self, batch):
        return self
    def posterior(self, batch):
        return self.q(batch.x)
'''


@pytest.fixture(scope="module")
def python():
    with forks(COLUMNS="200") as run:
        yield run


@pytest.fixture(scope="module")
def program(python):
    """The program in a process of its own: exit code, standard output, standard error."""
    def run(folder, *arguments):
        done = python(folder, "-m", "tinyvae", *arguments)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def folder(program, tmp_path_factory):
    """The file, and a run of two epochs with its posterior and its likelihood."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    code, _, err = program(folder, "train", "digits", "--use", "own.py", "--posterior", "tests-student", "--likelihood",
                           "soft-bernoulli", "--hidden", 30, "--latent", 3, "--epochs", 2, "--out", "run",
                           "--no-pictures")  # fmt: skip
    assert code == 0, err
    return folder


def test_what_a_file_registers_is_a_choice_and_in_the_help(folder, program, run):
    code, out, _ = program(folder, "train", "--use", "own.py", "--help")
    assert code == 0
    for name in ("tests-student", "soft-bernoulli", "plain"):
        assert name in out
    assert "tests-student" not in run("train", "--help")[1]  # in this process, which knows nothing of the file


def test_a_run_records_the_file_and_asks_for_it_again(folder, run):
    (entry,) = json.loads((folder / "run" / "config.json").read_text())["uses"]
    assert entry["file"] == "own.py"
    assert len(entry["sha256"]) == 64
    made = folder / "run"
    for command in (("train", "--resume", made, "--epochs", 3), ("evaluate", made), ("sample", made)):
        code, _, err = run(*command)
        assert code == 2
        assert err.count("\n") == 1
        assert "was made with own.py" in err
        assert "--use own.py" in err


def test_a_run_goes_on_with_the_file_and_refuses_another(folder, program):
    """The bits are those of a run that was not stopped; a changed file, even by a comment, is not the same."""
    code, out, err = program(folder, "train", "--resume", "run", "--use", "own.py", "--epochs", 3, "--json",
                             "--no-pictures")  # fmt: skip
    assert code == 0, err
    code, whole, err = program(folder, "train", "digits", "--use=own.py", "--posterior", "tests-student",
                               "--likelihood", "soft-bernoulli", "--hidden", 30, "--latent", 3, "--epochs", 3,
                               "--out", "whole", "--no-pictures", "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["fingerprint"] == json.loads(whole.splitlines()[-1])["fingerprint"]
    changed = folder / "changed"
    changed.mkdir()
    (changed / "own.py").write_text(OWN + "# a comment\n")
    code, _, err = program(folder, "evaluate", "run", "--use", "changed/own.py")
    assert code == 2
    assert "another version of own.py" in err


def test_a_model_of_ones_own_from_the_command_line(folder, program):
    code, out, err = program(folder, "train", "digits", "--use", "own.py", "--model", "plain", "--hidden", 20,
                             "--option", "scale=2.5", "--epochs", 1, "--out", "plain", "--json",
                             "--no-pictures")  # fmt: skip
    assert code == 0, err
    config = json.loads((folder / "plain" / "config.json").read_text())["model"]
    assert (config["kind"], config["hidden"], config["scale"]) == ("plain", [20], 2.5)
    code, out, err = program(folder, "evaluate", "plain", "--use", "own.py", "-k", 5, "--json")
    assert code == 0, err
    assert json.loads(out)["importance_samples"] == 5
    for wrong, sentence in ((("--latent", 3), "--latent with --model plain"), (("--option", "wide=1"), "wide"),
                            (("--option", "nothing"), "expected NAME=VALUE")):  # fmt: skip
        code, _, err = program(folder, "train", "digits", "--use", "own.py", "--model", "plain", *wrong)
        assert code == 2, err
        assert sentence in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(("content", "sentence"), [
    (None, "is no file"), ("x = (", "SyntaxError"), ("\n\n1 / 0\n", "in line 3 with ZeroDivisionError"),
    ("import no_such_module_at_all", "ModuleNotFoundError")])  # fmt: skip
def test_a_file_that_cannot_be_used_gets_a_sentence(content, sentence, tmp_path):
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        tv.use(path)
    assert not extensions.USED


def test_a_run_of_a_class_of_ones_own_is_refused_elsewhere(python, tmp_path):
    """A model defined in a script is recorded with the script's file; another process without it gets a sentence."""
    script = tmp_path / "script.py"
    script.write_text(OWN + 'tv.fit(Plain(64), "digits", out="run", epochs=1, quiet=True)\n')
    python(tmp_path, "script.py").check_returncode()
    with pytest.raises(tv.CheckpointError, match=r"was made with script\.py"):
        tv.load(tmp_path / "run")


@pytest.mark.parametrize("settings", [{}, {"bound": "elbo-a"}, {"estimator": "score", "samples": 3},
                                      {"bound": "iwae", "importance_samples": 4}])  # fmt: skip
def test_a_posterior_without_a_closed_kl_trains_by_every_bound(settings):
    """The KL to the prior is sampled then, in training and where the model is judged."""
    import types

    module = types.ModuleType("own_posterior")
    name = "student-in-process"
    if name not in tv.distributions.FAMILIES:
        exec(OWN.partition("@likelihood")[0].replace('"tests-student"', f'"{name}"'), vars(module))
    model = tv.VAE(64, 20, 3, posterior=name)
    records = tv.fit(model, "digits", epochs=3, quiet=True, **settings)
    assert records[-1]["train_elbo"] > records[0]["train_elbo"] + 1
    judged = tv.evaluate(model, tv.data.load("digits"), importance_samples=20)
    assert judged.log_evidence > judged.elbo - 0.05
    assert len(judged.kl_per_dimension) == 1  # of all latents together, by one draw
    with pytest.raises(ValueError, match="free"):
        tv.fit(tv.VAE(64, 20, 3, posterior=name), "digits", epochs=1, free_bits=0.1)
