"""Imputation of tables, half of whose cells were removed at random: MIWAE beside scikit-learn's imputers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import tinyvae as tv
from benchmarks.parts import Content, Part
from tinyvae.engine.noise import uniform
from tinyvae.evidence.diagnostics import mean_and_error

MASKS, REMOVED = 5, 0.5  # the number of masks, and the share of the cells that each removes
SETTINGS: dict[str, Any] = {"batch": 64, "epochs": 400, "lr": 1e-3, "importance_samples": 20}
MODEL: dict[str, Any] = {"hidden": [128, 128], "latent": 10, "activation": "tanh"}
QUANTITY = "RMSE of removed cells in standardised units, lower is better"


def tables() -> dict[str, Callable[[], Any]]:
    """The tables, which come with scikit-learn."""
    from sklearn import datasets

    return {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}


def removed(x: np.ndarray, number: int) -> np.ndarray:
    """The cells (count, columns) that mask `number` removes: truth values; no row and no column loses all."""
    gone = uniform(number, "imputation", 0, 0, x.shape, np.float64) < REMOVED
    gone[gone.all(1), 0] = False
    return gone


def by_miwae(x: np.ndarray, gone: np.ndarray, seed: int, quick: bool) -> np.ndarray:
    """The table x, (count, columns) and standardised, with the conditional mean in each cell that is gone."""
    own = np.where(gone, 0, x).astype(np.float32)
    mask = (~gone).astype(np.uint8)
    data = tv.DataSet("removed", own, own[:1], (1, x.shape[1]), 1.0, "real", "student-t", train_mask=mask,
                      test_mask=mask[:1])
    model = tv.models.model_for("miwae", data, seed=seed, **MODEL)
    settings = SETTINGS | ({"epochs": 2} if quick else {})
    tv.fit(model, data, seed=seed, quiet=True, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of uneven weights, which the error below tells
        return tv.complete(model, data, part="train", count=None, draws=10 if quick else 50, sweeps=2 if quick else 40,
                           seed=seed).mean


def by_sklearn(name: str, x: np.ndarray, gone: np.ndarray, seed: int, quick: bool) -> np.ndarray:
    """The same by an imputer of scikit-learn."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    made = {"mean": SimpleImputer(), "KNN": KNNImputer(),
            "IterativeImputer": IterativeImputer(random_state=seed, max_iter=2 if quick else 100)}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return made.fit_transform(np.where(gone, np.nan, x))


RIVALS = ("mean", "KNN", "IterativeImputer")


def imputation(quick: bool, say: Callable[[str], Any]) -> dict[str, Part]:
    """Each imputer on the same masks; columns are standardised by all their cells, as the published tables are."""
    def part(content: Content, table: str, load: Callable[[], Any]) -> Content:
        start, x = time.perf_counter(), load().data[: 60 if quick else None]
        x = (x - x.mean(0)) / x.std(0)
        errors: dict[str, list[float]] = {name: [] for name in ("MIWAE", *RIVALS)}
        for number in range(1 if quick else MASKS):
            gone = removed(x, number)
            for name, found in errors.items():
                full = by_miwae(x, gone, number, quick) if name == "MIWAE" else by_sklearn(name, x, gone, number, quick)
                found.append(float(np.sqrt(((full - x)[gone] ** 2).mean())))
            say(f"  {table}, mask {number + 1}: " + ", ".join(f"{n} {found[-1]:.3f}" for n, found in errors.items()))
        rival = float(np.mean(errors["IterativeImputer"]))
        rows = []
        for name, found in errors.items():
            value, error = mean_and_error(np.array(found)) if len(found) > 1 else (found[0], 0.0)
            ours = name == "MIWAE"
            rows.append({"setting": f"{table}, {name}", "data": table, "quantity": QUANTITY, "value": value,
                         "stderr": error, "count": len(found), "digits": 3, "seed": 0, "reached": value <= rival if
                         ours else None, "target": f"at most IterativeImputer's {rival:.3f}" if ours else "printed",
                         "passes": SETTINGS["epochs"] if ours else None, "seconds": time.perf_counter() - start})
        return {"rows": rows}

    return {table: lambda content, table=table, load=load: part(content, table, load)
            for table, load in tables().items()}
