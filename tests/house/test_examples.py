"""The examples run at their quick size, and the comparison of two courses finds where one overtakes the other."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from support import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
pytestmark = pytest.mark.skipif(not EXAMPLES, reason="optional: examples/ is not here, only the tests")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, tmp_path):
    """As its first lines say, from anywhere; both estimators end with finite numbers."""
    places = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, str(path), "--quick"], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": places}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("G-REP") >= 1 <= done.stdout.count("BBVI")
    assert "nan" not in done.stdout
    assert f"{path.name} --quick" in path.read_text()


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_log_joint_of_the_deep_family_is_the_formula():
    """Its terms sum to log p(x, z, w) by SciPy, and each latent is in the terms that contain it."""
    from scipy import stats

    import tinyvae as tv

    example, draw = load("sparse_gamma_def"), np.random.default_rng(0)
    x = draw.poisson(3.0, (4, 5)).astype(float)
    shapes = {"z1": (4, 3), "z2": (4, 2), "z3": (4, 2), "w0": (3, 5), "w1": (2, 3), "w2": (2, 2)}
    z = {name: draw.gamma(1.0, 1.0, (1, *shape)) for name, shape in shapes.items()}
    terms = example.log_joint_of(x)({name: tv.Tensor(value) for name, value in z.items()})
    found = sum(float(term.value.data.sum()) for term in terms)
    one = {name: value[0] for name, value in z.items()}
    gamma = lambda value, rate: stats.gamma(0.1, scale=1 / rate).logpdf(value).sum()
    exact = (stats.poisson(one["z1"] @ one["w0"]).logpmf(x).sum() + gamma(one["z3"], 0.1)
             + gamma(one["z2"], 0.1 / (one["z3"] @ one["w2"])) + gamma(one["z1"], 0.1 / (one["z2"] @ one["w1"]))
             + sum(gamma(one[name], 0.3) for name in ("w0", "w1", "w2")))
    assert abs(found / exact - 1) < 1e-12
    by_axes = {axes: set(of) for _, axes, of in terms}
    assert by_axes == {"nd": {"z1", "w0"}, "na": {"z1", "z2", "w1"}, "nb": {"z2", "z3", "w2"}, "nc": {"z3"},
                       "ad": {"w0"}, "ba": {"w1"}, "cb": {"w2"}}  # fmt: skip


def test_the_log_joint_of_the_factorisation_is_the_formula():
    from scipy import stats
    from scipy.special import expit, logit

    import tinyvae as tv

    example, draw = load("beta_gamma_factorisation"), np.random.default_rng(0)
    x, seen = (draw.random((4, 5)) < 0.5).astype(float), draw.random((4, 5)) < 0.8
    z, w = draw.gamma(1.0, 1.0, (4, 3)), draw.uniform(0.1, 0.9, (3, 5))
    terms = example.log_joint_of(x, seen)({"z": tv.Tensor(z[None]), "w": tv.Tensor(w[None])})
    exact = (stats.bernoulli(expit(z @ logit(w))).logpmf(x)[seen].sum()
             + stats.gamma(0.1, scale=1 / 0.3).logpdf(z).sum() + stats.beta(0.1, 0.1).logpdf(w).sum())  # fmt: skip
    assert abs(sum(float(term.value.data.sum()) for term in terms) / exact - 1) < 1e-12


def test_where_one_course_overtakes_another():
    pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
    from benchmarks.reproduce_grep import by_seconds, overtakes, smooth

    slow, fast = np.array([5.0, 5, 5, 5, 5]), np.array([0.0, 4, 6, 7, 8])
    assert overtakes(fast, slow) == 2
    assert overtakes(slow, fast) is None
    assert overtakes(fast, np.array([0.0, 5, 5, 9, 5])) == 4
    assert overtakes(fast, np.full(5, np.nan)) is None
    at = by_seconds(fast, np.array([1.0, 2, 3, 4, 5]), np.array([0.5, 1.0, 4.9, 9]))
    assert at.tolist() == [-np.inf, 0, 7, 8]
    assert smooth(np.array([1.0, 100, 2, 3])).tolist() == [1.0, 50.5, 2.0, 2.5]
