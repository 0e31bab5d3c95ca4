"""The estimators: scikit-learn's own checks, its tools, and what the numbers mean."""

import json
import pickle
import unittest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine, make_blobs
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from tinyvae.sklearn import SemiSupervisedVAEClassifier, VAEImputer, VAETransformer

SMALL = {"hidden": 8, "epochs": 2}
LEARNS = {"hidden": 8, "epochs": 6, "learning_rate": 0.05}  # enough for the checks that look at the accuracy


def expected_failures(estimator):
    if isinstance(estimator, SemiSupervisedVAEClassifier):
        return {"check_classifiers_classes": "its label -1 stands for an unknown class, so it cannot be a class"}
    return {}


@parametrize_with_checks([VAETransformer(**SMALL), VAEImputer(**SMALL), SemiSupervisedVAEClassifier(**LEARNS)],
                         expected_failed_checks=expected_failures)
def test_scikit_learns_checks(estimator, check):
    try:
        check(estimator)
    except unittest.SkipTest as why:
        pytest.skip(f"optional: {why}")


@pytest.fixture(scope="module")
def wine():
    """13 columns in very different units; three classes."""
    return load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def transformer(wine):
    return VAETransformer(3, hidden=20, epochs=60, learning_rate=0.005).fit(wine[0])


def test_results_are_in_the_datas_own_units(transformer, wine):
    X = wine[0]
    for found in (transformer.inverse_transform(transformer.transform(X)), transformer.sample(2000)):
        assert found.dtype == np.float64
        assert (np.abs(found.mean(0) - X.mean(0)) < 0.3 * X.std(0)).all()
    assert 0.6 < np.median(transformer.sample(2000).std(0) / X.std(0)) < 1.3
    assert (transformer.sample(5) == transformer.sample(5)).all()


def test_the_score_is_a_bound_on_the_density_in_own_units(wine):
    """In units 1000 times as small a density is 1000 times as high in each column, so the score falls by log 1000."""
    X = wine[0]
    scores = [VAETransformer(2, **SMALL).fit(scale * X).score(scale * X) for scale in (1.0, 1000.0)]
    assert scores[0] - scores[1] == pytest.approx(X.shape[1] * np.log(1000), abs=1e-3)


def test_a_pickle_holds_safetensors(transformer, wine):
    state = transformer.__getstate__()["model_"]
    assert isinstance(state, bytes)
    assert json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])["__metadata__"]
    again = pickle.loads(pickle.dumps(transformer))
    assert (again.transform(wine[0]) == transformer.transform(wine[0])).all()
    assert (again.sample(3) == transformer.sample(3)).all()
    assert not hasattr(clone(transformer), "model_")


def test_pipelines_and_searches(wine):
    X, y = wine
    pipe = make_pipeline(VAETransformer(**SMALL), LogisticRegression())
    search = GridSearchCV(pipe, {"vaetransformer__n_components": [1, 4]}, cv=3).fit(X, y)
    assert search.best_params_["vaetransformer__n_components"] == 4
    assert list(pipe.fit(X, y)[:-1].get_feature_names_out()) == ["vaetransformer0", "vaetransformer1"]


def test_names_of_columns_are_kept(wine):
    import pandas as pd

    frame = pd.DataFrame(wine[0][:, :3], columns=["a", "b", "c"])
    found = VAETransformer(**SMALL).fit(frame)
    assert list(found.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        found.transform(frame[["b", "a", "c"]])


def test_rows_without_labels_help():
    """Two of 300 labels a class: the rows without labels show where the classes are."""
    X, y = make_blobs(300, centers=3, n_features=4, cluster_std=2.2, random_state=4)
    few = np.full(len(y), -1)
    for number in range(3):
        few[np.flatnonzero(y == number)[:2]] = number
    model = SemiSupervisedVAEClassifier(hidden=20, epochs=60, learning_rate=0.01)
    alone = clone(model).fit(X[few >= 0], few[few >= 0]).score(X, y)
    helped = clone(model).fit(X, few)
    assert helped.score(X, y) > alone
    assert list(helped.classes_) == [0, 1, 2]


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="only one class"):
        SemiSupervisedVAEClassifier(**SMALL).fit(np.random.default_rng(0).normal(size=(10, 2)), [1] * 5 + [-1] * 5)


@pytest.fixture(scope="module")
def holes(wine):
    """A quarter of the cells removed."""
    X = wine[0].copy()
    gone = np.random.default_rng(0).random(X.shape) < 0.25
    X[gone] = np.nan
    return X, gone


def test_missing_values_are_filled_in_better_than_by_the_mean(wine, holes):
    X, gone = holes
    imputer = VAEImputer(3, hidden=30, epochs=60, learning_rate=0.005).fit(X)
    filled = imputer.transform(X)
    assert (filled[~gone] == X[~gone]).all()
    spread = wine[0].std(0)
    wrong = {name: np.sqrt((((found - wine[0]) / spread)[gone] ** 2).mean()) for name, found in
             (("ours", filled), ("mean", SimpleImputer().fit_transform(X)))}
    assert wrong["ours"] < 0.9 * wrong["mean"]
    assert list(imputer.get_feature_names_out(list("abcdefghijklm"))) == list("abcdefghijklm")


def test_draws_of_missing_values_vary_and_the_mean_does_not(holes):
    X, gone = holes
    imputer = VAEImputer(3, hidden=10, epochs=5).fit(X)
    assert (imputer.transform(X) == imputer.transform(X)).all()
    drawn = clone(imputer).set_params(sample_posterior=True).fit(X)
    first, second = drawn.transform(X), drawn.transform(X)
    assert (first[~gone] == second[~gone]).all()
    assert (first[gone] != second[gone]).all()
    with pytest.raises(ValueError, match="no value in column 0"):
        VAEImputer(**SMALL).fit(np.column_stack([np.full(5, np.nan), np.arange(5.0)]))
