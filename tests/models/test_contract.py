"""A model that breaks the contract gets one sentence with what was found and what was expected, at once."""

import re

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.distributions import Bernoulli, Categorical, Normal
from tinyvae.models import MODELS, Model

LABELS = np.arange(40) % 3
ROWS = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(np.uint8)
DATA = tv.DataSet("made", ROWS[:30], ROWS[30:], (2, 3), 1.0, "static", train_labels=LABELS[:30],
                  test_labels=LABELS[30:])


class Right(Model, kind="tests-right"):
    """A model that keeps the contract; each case breaks it in one place."""

    def build(self, pixels, latent=2, hidden=3):
        self.q = self.network("q", pixels, hidden, Normal, latent)
        self.p = self.network("p", latent, hidden, Bernoulli, pixels)
        self.prior = Normal.standard(latent, self.dtype, self.xp)

    def generator(self, batch):
        return tv.Joint(self.prior, self.p)

    def posterior(self, batch):
        return self.q(batch.x)


def broken(**changes):
    """Fit a model with these methods and attributes in place of the right ones."""
    try:
        tv.fit(type("Broken", (Right,), changes)(6), DATA, epochs=1, quiet=True)
    finally:
        MODELS.pop("broken", None)


def own_terms(**terms):
    return lambda self, batch, draw: tv.Terms(**terms)


def built_with(*arguments, **options):
    return lambda self, pixels: self.network(*arguments, **options)


def phases(*made):
    return lambda self: [tv.Phase(name, self.terms, (), epochs) for name, epochs in made]


CASES = [
    ({"needs": "y"}, "found needs='y' of a broken; expected a tuple of names: needs = (\"y\",)"),
    ({"needs": ("Y",)}, "found needs of a broken with 'Y'; expected one of y, labelled"),
    ({"needs": ("z",)}, "found needs of a broken with 'z'; expected one of y, labelled"),
    ({"needs": ("y",)}, "a broken needs labels, whose number of classes is its option `classes`; expected build to"),
    ({"needs": ("given",)}, "a broken needs what is given, and build set no condition"),
    ({"needs": ("labelled",)}, "a broken needs labels, whose number of classes is its option `classes`"),
    ({"build": lambda self, pixels: None}, "build of a broken declared no network; expected self.network(name"),
    ({"build": lambda self, size: None}, "found build(size) of a broken; expected its first argument to be named"),
    ({"build": lambda self, pixels, rate: None}, "build of a broken has missing a required argument: 'rate'; it is "
                                                 "build(pixels, rate)"),
    ({"build": lambda self: None}, "build of a broken has too many positional arguments; it is build()"),
    ({"build": built_with("q", 6, 3, "normal", 2)}, "found the family 'normal' of the network q; expected a class"),
    ({"build": built_with("q", 6, 3, tv.Tensor(1.0), 2)}, "of the network q; expected a class"),
    ({"build": built_with("q", 6, [2.5], Normal, 2)}, "found a hidden width of the network q, 2.5; expected a whole"),
    ({"build": built_with("q", 6, 3, Normal, 0)}, "found the size of the network q, 0; expected a whole number"),
    ({"build": built_with("q", "6", 3, Normal, 2)}, "found the inputs of the network q, '6'; expected a whole number"),
    ({"build": built_with("a.b", 6, 3, Normal, 2)}, "found a network named 'a.b'; expected another name for each"),
    ({"build": lambda self, pixels: [self.network("q", pixels, 3, Normal, 2) for _ in range(2)]},
     "found a network named 'q'; expected another name for each, without a dot; this broken has q"),
    ({"posterior": lambda self, batch: batch.x}, "found Tensor from the posterior of a "
                                                 "broken; expected a distribution"),
    ({"generator": lambda self, batch: self.p}, "found Network from the generator of a broken; expected a prior and a"),
    ({"generator": lambda self, batch: None}, "found NoneType from the generator of a broken; expected a prior and a"),
    ({"generator": lambda self, batch: tv.Joint(self.prior, 3)}, "found Joint from the generator of a broken"),
    ({"generator": lambda self, batch: tv.Joint(self.prior, self.p.raw)}, "found Tensor from the likelihood of a"),
    ({"terms": lambda self, batch, draw: {"a": batch.x.sum(-1)}}, "found dict from the terms of a broken; expected tv"),
    ({"terms": own_terms()}, "found no term from the terms of a broken; expected tv.Terms(name=tensor, ...)"),
    ({"terms": own_terms(a=3.0)}, "found a term 'a' of type float from a broken; expected a tensor"),
    ({"weights": {"klx": 2.0}}, "found a weight for 'klx' of a broken; its terms are reconstruction, kl"),
    ({"weights": {"reconstruction": 2.0}}, "found weights of a broken without 'kl', one of its terms, which would be "
                                           "raised; name it, too: {'kl': -1.0, ...}"),
    ({"weights": {"kl": float("nan")}}, "found the weight nan for 'kl' of a broken; expected a finite number"),
    ({"weights": {"kl": "1"}}, "found the weight '1' for 'kl' of a broken; expected a finite number"),
    ({"weights": -1.0}, "found weights=-1.0 of a broken; expected them by the names of its terms"),
    ({"phases": lambda self: ()}, "found () from the phases of a broken; expected at least one: (tv.Phase("),
    ({"phases": lambda self: tv.Phase("", self.terms)}, "from the phases of a broken; expected at least one"),
    ({"phases": lambda self: [self.terms]}, "from the phases of a broken; expected at least one"),
    ({"phases": phases(("a", -1))}, "found epochs of the phase 'a' -1; expected a whole number, at least 0"),
    ({"phases": phases(("a", 1.5))}, "found epochs of the phase 'a' 1.5; expected a whole number, at least 0"),
    ({"phases": phases(("a", None), ("b", 2))}, "found the phase 'a' of a broken without epochs before other phases"),
    ({"phases": phases((None, None))}, "found a phase named None; expected text"),
    ({"phases": lambda self: [tv.Phase("a", 3)]}, "found terms=3 of the phase 'a'; expected a function"),
    ({"phases": lambda self: [tv.Phase("a", self.terms, "q")]}, "found networks='q' of the phase 'a'; expected a"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), CASES, ids=[sentence[:60] for _, sentence in CASES])
def test_a_broken_contract(changes, sentence):
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)) as raised:
        broken(**changes)
    assert "\n" not in str(raised.value)


def test_the_right_model_and_weights_of_its_own_are_taken():
    broken()
    broken(weights={"kl": -0.5, "reconstruction": 2})
    # by the bound of iwae the KL is only reported, and a model without a KL names none
    tv.fit(Right(6), DATA, epochs=1, quiet=True, bound="iwae", importance_samples=2)
    broken(weights={"a": 2.0}, terms=lambda self, batch, draw: tv.Terms(a=self.q.raw(batch.x).sum(-1)))


def test_the_number_of_classes_is_an_option_of_build():
    """With `classes` the same model is taken: the cure of the sentence works."""
    def build(self, pixels, classes=3):
        Right.build(self, pixels)
        self.y = self.network("y", 2, 3, Categorical, classes)

    broken(build=build, needs=("y",), terms=lambda self, batch, draw: tv.terms_of(
        self.generator(batch), lambda x: self.posterior(batch), batch.x, draw) | tv.Terms(
            y=self.y(self.posterior(batch).mean).log_prob(batch.y)), weights={"kl": -1.0, "y": 2.0})
