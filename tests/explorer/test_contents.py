"""What a page holds: weights, test data and facts, against NumPy and against the model itself."""

import dataclasses

import numpy as np
import pytest
from run_folders import bits, vae

import tinyvae as tv
from tinyvae.explorer import contents as explorer
from tinyvae.explorer.contents import FEW, MOST, components, contents, some_test_data, treatment
from tinyvae.models import model_for


def grey(tests=30, pixels="dynamic", **more):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 17, (n, 12)).astype(np.uint8) for n in (40, tests))
    return tv.DataSet(f"made-{pixels}", train, test, (4, 3), 16.0, pixels, "bernoulli", np.arange(40) % 4,
                      np.arange(tests) % 4, **more)  # fmt: skip


def test_a_vae():
    data, model = grey(class_names=("a", "b", "c", "d")), vae(latent=3)
    facts, arrays = contents(model, data, "run")
    assert (facts["count"], facts["names"], facts["treatment"]) == (30, ["a", "b", "c", "d"], "dynamic")
    assert facts["config"]["kind"] == "vae"
    assert facts["prior"] == {"family": "normal", "numbers": [0.0, 0.0]}
    assert (arrays["grey"] == data.test).all()
    assert (arrays["labels"] == data.test_labels).all()
    x = arrays["seen"].astype(np.float32)
    assert not (x[data.test == 0]).any()
    assert (x[data.test == 16]).all()
    mu, logvar = model.encode(x)
    np.testing.assert_allclose(arrays["means"], mu, rtol=1e-6)
    kl = 0.5 * (mu.astype(float) ** 2 + np.exp(logvar.astype(float)) - 1 - logvar)
    np.testing.assert_allclose(facts["kl"], kl.mean(0), rtol=1e-4)
    np.testing.assert_allclose(facts["kl_error"], kl.std(0, ddof=1) / np.sqrt(30), rtol=1e-4)
    np.testing.assert_allclose(facts["low"], np.minimum(-3, mu.min(0)), rtol=1e-6)
    np.testing.assert_allclose(arrays["fill"], data.train.mean(0) / 16, rtol=1e-6)


def test_weights_are_halves_where_that_is_exact_enough():
    model, data = vae(), grey()
    facts, arrays = contents(model, data, "run")
    assert facts["weights"] == ["float16"]
    for name, array in model.parameters.arrays().items():
        assert arrays[name].dtype == (np.float16 if array.ndim == 2 else np.float32)
        np.testing.assert_allclose(arrays[name], array, rtol=2.0**-11, atol=2.0**-24)


@pytest.mark.parametrize(("large", "kept"), [("encoder.1.weight", {"decoder.0.weight", "encoder.1.weight"}),
                                             ("decoder.1.weight", {f"{n}.{i}.weight" for n in ("encoder", "decoder")
                                                                   for i in (0, 1)})])  # fmt: skip
def test_some_weights_are_not(large, kept):
    """Large weights make the error of a half count; then the smallest matrices are exact, until the result is."""
    model = vae(likelihood="normal")
    for name, array in model.parameters.arrays().items():
        array[...] = 400 * array if name == large else array.astype(np.float16)
    model.parameters[large].data[:, 2 if large.startswith("encoder") else 12 :] = 0  # the log-variances
    facts, arrays = contents(model, grey(), "run")
    exact = {name for name, array in model.parameters.arrays().items() if array.ndim == 2
             and arrays[name].dtype == np.float32}  # fmt: skip
    assert exact == kept
    assert all((arrays[name] == array).all() for name, array in model.parameters.arrays().items() if name in exact)
    assert facts["weights"] == sorted({"float32"} | ({"float16"} if len(kept) < 4 else set()))


def test_of_many_test_data_some_are_chosen(monkeypatch):
    data = grey(tests=MOST + 500)
    chosen = some_test_data(data)
    assert len(chosen.test) == MOST
    rows = [tuple(row) for row in data.test]
    assert {rows.index(tuple(row)) > MOST for row in chosen.test} == {False, True}  # from all over
    assert (some_test_data(data).test == chosen.test).all()
    monkeypatch.setattr(explorer, "ROOM", 100)
    assert len(some_test_data(data).test) == FEW
    assert len(some_test_data(bits()).test) == 5


def test_treatments():
    whole = dataclasses.replace(bits(), pixels="gray")
    assert [treatment(data) for data in (grey(), grey(pixels="gray"), bits(), whole)] == ["dynamic", "gray", "static",
                                                                                          "threshold"]  # fmt: skip
    facts, arrays = contents(vae(likelihood="gaussian"), grey(pixels="gray"), "run")
    assert facts["scales"]["seen"] == 16
    assert arrays["seen"].dtype == np.uint8
    assert "grey" not in arrays


def test_principal_components_are_those_of_numpy():
    means = np.random.default_rng(1).normal(size=(200, 5)) @ np.diag([1, 5, 2, 0.1, 3]) + 7
    found, shares = components(means.astype(np.float32))
    values, vectors = np.linalg.eigh(np.cov(means.T))
    for row, column in ((0, -1), (1, -2)):
        assert abs(found[row] @ vectors[:, column]) == pytest.approx(1, abs=1e-5)
        assert shares[row] == pytest.approx(values[column] / values.sum(), rel=1e-4)
    assert components(means[:, :1])[0].tolist() in ([[1.0]], [[-1.0]])


def test_the_ends_of_sliders_are_quantiles_of_the_prior():
    model = vae(posterior="gamma", latent=2)
    facts, _ = contents(model, grey(), "run")
    from scipy.stats import gamma

    law = gamma(0.3, scale=1 / 0.3)
    assert all(law.cdf(end) > 0.99 for end in facts["high"])
    assert all(0 <= end and law.cdf(end) < 0.2 for end in facts["low"])


@pytest.mark.parametrize(("kind", "options"), [("m2", {}), ("cvae", {"given": "label"}),
                                               ("cvae", {"given": "quadrants:1", "posterior": "gamma"})])  # fmt: skip
def test_models_with_labels_and_conditions(kind, options):
    data = grey()
    model = model_for(kind, data, hidden=8, latent=2, **options)
    facts, arrays = contents(model, data, "run")
    assert facts["given"] == options.get("given")
    assert arrays["means"].shape == (30, 2)
    assert np.isfinite(arrays["means"]).all()
    assert len(facts["low"]) == len(facts["kl"]) == 2
    assert set(facts["parameters"]) <= set(arrays)


def test_parameters_that_are_not_finite():
    model = vae()
    model.parameters.flat[3] = np.nan
    with pytest.raises(ValueError, match="not finite, with which a page would show nothing"):
        contents(model, grey(), "run")
