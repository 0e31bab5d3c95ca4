"""What the settings say of themselves: sentences for the command line's help and for the docstring of `fit`."""

from dataclasses import fields

import pytest

import tinyvae as tv
from tinyvae.inference.bounds import GRADIENTS
from tinyvae.inference.estimators import BASELINES, MAPS
from tinyvae.nn.optimizers import OPTIMIZERS
from tinyvae.training.settings import SCHEDULES, Settings, either, words


@pytest.mark.parametrize("field", fields(Settings), ids=lambda f: f.name)
def test_each_setting_has_a_sentence(field):
    """It begins with a capital letter, ends with a full stop, and stands in the docstring of `fit`."""
    text = words(field)
    assert text[0].isupper()
    assert text.endswith(".")
    assert f"{field.name} = {field.default!r}: {text}" in tv.fit.__doc__


@pytest.mark.parametrize(("name", "registry"), [
    ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("bound", GRADIENTS), ("estimator", MAPS)])  # fmt: skip
def test_choices_are_those_of_the_registry(name, registry, monkeypatch):
    """One more row of a registry is one more word."""
    field = next(f for f in fields(Settings) if f.name == name)
    assert either(registry) in words(field)
    monkeypatch.setitem(registry, "novel", next(iter(registry.values())))
    assert " or novel" in words(field)


def test_baselines_are_those_that_training_takes():
    field = next(f for f in fields(Settings) if f.name == "baseline")
    for name in BASELINES:
        taken = name != "moving-average"  # its state would have to be in the checkpoint
        assert (name in words(field)) == taken


def test_either():
    assert [either(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a or b", "a, b or c"]


def test_the_least_values_are_taken():
    """What is said to be allowed is allowed: "at least 1" takes 1."""
    least = Settings(epochs=0, batch=1, lr=5e-324, beta=0, warmup=0, clip=0, free_bits=0, samples=1,
                     importance_samples=1, validation=0, patience=0, labels=0, labelled_batch=0, seed=0)
    assert (least.epochs, least.batch, least.seed) == (0, 1, 0)
    assert Settings(seed=2**32 - 1).seed == 2**32 - 1
