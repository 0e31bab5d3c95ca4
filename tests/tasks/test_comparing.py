"""Comparing models: means and errors of paired differences, by hand; and what cannot be compared."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from tables import counts, table, zero

import tinyvae as tv
from tinyvae.tasks.comparing import bounds_of, compare, differing


def test_bounds_are_those_of_the_evaluation():
    data, model = tv.data.load("digits"), tv.VAE(64, 8, 2)
    assert bounds_of(model, data).mean() == pytest.approx(tv.evaluate(model, data).elbo, rel=1e-12)
    assert bounds_of(model, data, 5).mean() == pytest.approx(tv.evaluate(model, data, 5).log_evidence, rel=1e-12)


def test_bounds_of_a_table_are_densities_of_own_values():
    data = table()
    own = stats.norm(data.center, data.spread).logpdf(data.own_units(data.test)).sum(1)
    assert bounds_of(zero(data), data) == pytest.approx(own, abs=1e-9)
    assert bounds_of(zero(data), data, 3) == pytest.approx(own, abs=1e-9)


def test_differences_are_paired():
    """Of two models whose bounds differ by the same number everywhere the difference is exact."""
    data = table()
    one, other = zero(data), zero(data)
    other.decoder.layers[-1].bias.data[3:] = 1.0  # logvar = 1
    result = compare({"one": (one, data), "other": (other, data)})
    each = bounds_of(other, data) - bounds_of(one, data)
    gap, error = result.differences["other"]
    assert gap == pytest.approx(each.mean())
    assert error == pytest.approx(each.std(ddof=1) / np.sqrt(len(each)))
    assert error < 0.9 * np.hypot(result.bounds["one"][1], result.bounds["other"][1])
    assert list(result.differences) == ["other"]
    same = compare({"one": (one, data), "copy": (one, data)}).differences["copy"]
    assert same == (0, 0)


def test_it_prints_and_tells():
    data = table()
    result = compare({"one": (zero(data), data), "other": (zero(data), data)}, settings=[
        {"lr": 0.1, "hidden": [4], "seed": 0}, {"lr": 0.2, "hidden": [4], "alpha": 1}])
    assert result.settings == {"lr": [0.1, 0.2], "seed": [0, None], "alpha": [None, 1]}
    text = str(result)
    assert "the table, 40 data; ELBO in nats per datum (higher is better, in own units), differences paired by" in text
    assert text.splitlines()[-3].split() == ["lr", "0.1", "0.2"]
    told = result.to_dict()
    assert told["runs"][1]["difference"] == 0
    assert "difference" not in told["runs"][0]
    assert "no setting differs" in str(dataclasses.replace(result, settings={}))
    assert differing([]) == {}
    assert told["own_units"]
    assert not compare(dict.fromkeys("ab", (zero(counts()), counts()))).own_units


def given(data, condition):
    return tv.models.model_for("cvae", data, given=condition, hidden=4, latent=2)


def test_models_of_one_condition_are_compared():
    bits = tv.data.load("digits-threshold")
    net = tv.models.model_for("net", bits, given="quadrants:2", hidden=4)
    assert compare({"a": (given(bits, "quadrants:2"), bits), "b": (net, bits)}).differences["b"][1] > 0


def test_what_cannot_be_compared():
    data, other = table(), table(100)
    changed = dataclasses.replace(data, spread=data.spread * 2)
    bits = tv.data.load("digits-threshold")
    for models, more, said in (
        ({"a": (zero(data), data)}, {}, "found 1 run to compare; expected at least two"),
        ({"a": (zero(data), data), "b": (zero(other), other)}, {}, "a and b have different test data, the table and"),
        ({"a": (zero(data), data), "b": (zero(data), changed)}, {}, "have different test data"),
        ({"a": (zero(counts()), counts()), "b": (zero(counts(), "normal"), counts())}, {},
         "a has the likelihood negative-binomial and b normal: a density and a probability are not on one scale"),
        ({"a": (tv.VAE(64, 4, 2), bits), "b": (tv.VAE(64, 4, 2), tv.data.load("digits"))}, {}, "different test data"),
        ({"a": (zero(data), data), "b": (zero(data), data)}, {"part": "all"}, "found part 'all'; expected one of"),
        ({"a": (tv.VAE(64, 4, 2), bits), "b": (given(bits, "label"), bits)}, {},
         r"a has a bound on log p\(x\), and b one on log p\(x\|label\), which is another quantity"),
        ({"a": (given(bits, "quadrants:1"), bits), "b": (given(bits, "quadrants:2"), bits)}, {},
         "which is another quantity"),
    ):
        with pytest.raises(ValueError, match=said):
            compare(models, **more)
