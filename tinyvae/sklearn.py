"""The models as scikit-learn estimators, which pass its own checks and work in its pipelines and searches.

    VAETransformer                 fit, transform (the posterior mean), inverse_transform, score (the ELBO), sample
    SemiSupervisedVAEClassifier    M2; the label -1 stands for an unknown one, as elsewhere in scikit-learn
    VAEImputer                     MIWAE; NaN in, numbers out

Each column is standardised inside, and every result is in the data's own units. All numbers are float64. A pickled
estimator holds its model as the bytes of a safetensors file, so that opening the model runs no code.
"""

from __future__ import annotations

import json
from typing import Any, Self

import numpy as np
from safetensors import numpy as safetensors
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tinyvae.data import DataSet
from tinyvae.engine.noise import Noise
from tinyvae.evidence.evaluation import evaluate
from tinyvae.models import Model, build_model, model_for
from tinyvae.models.batch import Batch
from tinyvae.runs import fit
from tinyvae.tasks.completion import complete

UNKNOWN = -1  # the label of a datum whose class is not known


class VAEEstimator(BaseEstimator):
    """What the estimators share: their parameters, the training of a model, and its way into a pickle."""

    def __init__(self, n_components: int = 2, hidden: int | tuple[int, ...] = 100, activation: str = "relu",
                 epochs: int = 100, batch_size: int = 100, learning_rate: float = 1e-3, random_state: Any = 0) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.activation = activation
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _train(self, kind: str, X: np.ndarray, labels: np.ndarray | None = None, **options: Any) -> None:
        """Fit the scaler and a model of a kind to X (count, columns), with NaN where a value is missing."""
        self.scaler_ = StandardScaler().fit(X)
        self._seed = int(check_random_state(self.random_state).randint(2**31))
        data = self._data(X, labels)
        self.model_ = model_for(kind, data, latent=self.n_components, hidden=self.hidden, activation=self.activation,
                                dtype="float64", seed=self._seed, likelihood="normal", **options)
        batch = min(self.batch_size, len(X))
        fit(self.model_, data, quiet=True, epochs=self.epochs, batch=batch, lr=self.learning_rate, seed=self._seed)

    def _data(self, X: np.ndarray, labels: np.ndarray | None = None) -> DataSet:
        """X as a data set whose test part is the training part."""
        scaled = self.scaler_.transform(X)
        stored = np.ascontiguousarray(np.nan_to_num(scaled, nan=0.0), np.float32)
        mask = None if np.isfinite(X).all() else np.isfinite(X).astype(np.uint8)
        return DataSet("X", stored, stored, (1, X.shape[1]), 1.0, "real", "normal", labels, labels, train_mask=mask,
                       test_mask=mask, center=self.scaler_.mean_, spread=self.scaler_.scale_)

    def _batch(self, X: np.ndarray) -> Batch:
        return Batch(self.model_.tensor(self.scaler_.transform(X), X.shape[1], "X"))

    def _checked(self, X: Any, **more: Any) -> np.ndarray:
        """X as it was fitted to: as many columns of the same names, finite numbers in float64."""
        check_is_fitted(self, "model_")
        return validate_data(self, X, reset=False, dtype=np.float64, **more)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if isinstance(state.get("model_"), Model):
            model = state["model_"]
            state["model_"] = safetensors.save(model.parameters.arrays(), {"model": json.dumps(model.config)})
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(found := state.get("model_"), bytes):
            size = int.from_bytes(found[:8], "little")
            model = build_model(json.loads(json.loads(found[8 : 8 + size])["__metadata__"]["model"]))
            model.parameters.load(safetensors.load(found))
            state = state | {"model_": model}
        super().__setstate__(state)


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, VAEEstimator):
    """A VAE with a normal likelihood: its features of X are the means of q(z|x).

    Parameters
    ----------
    n_components
        The number of dimensions of z.
    hidden
        The width of the encoder's hidden layer, or the widths of several; the decoder reverses them.
    activation
        `relu`, `tanh` or `softplus`.
    epochs, batch_size, learning_rate
        The passes over the data, the number of rows in a step, and Adam's rate.
    random_state
        The seed of everything that is random.

    Attributes
    ----------
    model_ : the trained `tinyvae.Model`
    scaler_ : the `StandardScaler` of the columns
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on X (count, columns)."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._train("vae", X)
        self._n_features_out = self.n_components
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The mean of q(z|x), (count, n_components)."""
        X = self._checked(X)
        return self.model_.posterior(self._batch(X)).mean.numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """The mean of p(x|z) in the data's own units, (count, columns), for X = z (count, n_components)."""
        check_is_fitted(self, "model_")
        z = self.model_.tensor(np.asarray(X, np.float64), self.n_components, "X")
        return self.scaler_.inverse_transform(self.model_.generator(None).likelihood(z).mean.numpy())

    def score(self, X: Any, y: Any = None) -> float:
        """The mean ELBO in nats per row, in the data's own units: higher is better."""
        X = self._checked(X)
        found: Any = evaluate(self.model_, self._data(X)).elbo_own_units  # which standardised data always have
        return found

    def sample(self, n_samples: int = 1) -> np.ndarray:
        """Draws of x ~ p(x|z), z ~ p(z), in the data's own units, (n_samples, columns). Each call gives the same."""
        check_is_fitted(self, "model_")
        noise, p = Noise(self._seed, "sklearn-sample", np.zeros(1, np.int64)), self.model_.generator(None)
        z = p.prior.sample(noise, n_samples)
        found = p.likelihood(z).sample(noise).numpy()
        return self.scaler_.inverse_transform(found.reshape(n_samples, -1))


class SemiSupervisedVAEClassifier(ClassifierMixin, VAEEstimator):
    """M2 (Kingma et al. 2014): a classifier that learns from rows with labels and from rows without.

    Parameters
    ----------
    alpha
        The weight of the mean log q(y|x) of labelled rows in the objective.
    n_components, hidden, activation, epochs, batch_size, learning_rate, random_state
        As of `VAETransformer`; `hidden` is that of each network.

    Attributes
    ----------
    classes_ : the classes that occur in y
    model_ : the trained `tinyvae.Model`
    """

    def __init__(self, n_components: int = 2, hidden: int | tuple[int, ...] = 100, activation: str = "relu",
                 epochs: int = 100, batch_size: int = 100, learning_rate: float = 1e-3, random_state: Any = 0,
                 alpha: float = 10.0) -> None:
        super().__init__(n_components, hidden, activation, epochs, batch_size, learning_rate, random_state)
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> Self:
        """Train on X (count, columns) and the labels y (count,), of which -1 stands for an unknown one."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        known = y != UNKNOWN if np.issubdtype(y.dtype, np.number) else np.ones(len(y), bool)
        self.classes_, numbers = np.unique(y[known], return_inverse=True)
        if len(self.classes_) < 2:
            only = f"only one class, {self.classes_[0]!r}" if len(self.classes_) else "no label besides -1"
            raise ValueError(f"found {only} in y; this classifier needs at least 2 classes")
        labels = np.full(len(y), UNKNOWN, np.int64)
        labels[known] = numbers
        self._train("m2", X, labels, alpha=self.alpha)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """q(y|x) of each class in `classes_`, (count, classes)."""
        X = self._checked(X)
        return self.model_.classify(self._batch(X)).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest q(y|x), (count,)."""
        found = self.predict_proba(X).argmax(1)
        return self.classes_[found]


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, VAEEstimator):
    """MIWAE (Mattei & Frellsen 2019): learns from rows with missing values (NaN) and fills these in.

    Parameters
    ----------
    sample_posterior
        False fills in E[x_mis|x_obs]; True a draw of p(x_mis|x_obs), another one in each call, for multiple imputation.
    draws
        The number of importance samples, of the bound and of each imputation.
    n_components, hidden, activation, epochs, batch_size, learning_rate, random_state
        As of `VAETransformer`.

    Attributes
    ----------
    model_ : the trained `tinyvae.Model`
    """

    def __init__(self, n_components: int = 2, hidden: int | tuple[int, ...] = 100, activation: str = "relu",
                 epochs: int = 100, batch_size: int = 100, learning_rate: float = 1e-3, random_state: Any = 0,
                 sample_posterior: bool = False, draws: int = 20) -> None:
        super().__init__(n_components, hidden, activation, epochs, batch_size, learning_rate, random_state)
        self.sample_posterior = sample_posterior
        self.draws = draws

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on X (count, columns), with NaN where a value is missing; ValueError for a column without a value."""
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        empty = np.isnan(X).all(0)
        if empty.any():
            raise ValueError(f"found no value in column {int(empty.argmax())} of X; expected one at least: leave the "
                             "column out")
        self._train("miwae", X)
        self._calls = 0
        return self

    def transform(self, X: Any) -> np.ndarray:
        """X with its missing values filled in, (count, columns), in the data's own units."""
        X = self._checked(X, ensure_all_finite="allow-nan")
        missing = np.isnan(X)
        if not missing.any():
            return X
        seed = self._seed
        if self.sample_posterior:
            self._calls += 1
            seed = (seed + self._calls) % 2**32
        found = complete(self.model_, self._data(X), draws=self.draws, count=None, seed=seed,
                         keep=int(self.sample_posterior))
        filled = found.draws[0] if self.sample_posterior else found.mean
        return np.where(missing, self.scaler_.inverse_transform(filled), X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
