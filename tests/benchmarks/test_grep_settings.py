"""The settings of G-REP on the faces: each changes what its name says, and the example's own is the example."""

from dataclasses import replace

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.engine.noise import Noise
from tinyvae.nn.optimizers import OPTIMIZERS

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import grep_settings
from benchmarks.grep_settings import AsTheirs, Clamped, Setting, Truncated
from examples import sparse_gamma_def as deep

WIDTHS = (6, 4, 3)


def fitted(steps=6, **changes):
    return grep_settings.fit(deep.faces(True), Setting(widths=WIDTHS, steps=steps, **changes))


def test_the_examples_own_setting_is_the_example():
    expected = deep.fit(deep.faces(True), "G-REP", 6, WIDTHS)
    found = fitted()
    assert found.elbo.tolist() == expected.elbo.tolist()
    assert "advi-truncated" not in OPTIMIZERS  # the rule is known only while it is used


def test_the_first_step_is_taken_by_the_authors_rule():
    """After one step, eta first^-1/2 g / (1 + sqrt(0.1 g^2)) apart from the start, for two eta with the same g."""
    def moved(**changes):
        end = fitted(steps=1, **changes).parameters["w0"].astype(float)
        return end - fitted(steps=0).parameters["w0"]

    one = moved()
    assert np.abs(one).max() <= 0.75 / np.sqrt(0.1)  # the longest step, of an infinite gradient
    assert np.abs(one).max() > 0.9 * 0.75 / np.sqrt(0.1)
    np.testing.assert_allclose(moved(eta=1.5), 2 * one, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved(first=4), one / 2, rtol=1e-4, atol=1e-6)


def test_truncated_parameters_end_at_their_least_values():
    q = Truncated.from_raw(tv.Tensor(np.full((1, 2), grep_settings.FLOOR)))
    np.testing.assert_allclose(q.shape.data, 1e-3, rtol=1e-12)
    np.testing.assert_allclose(q.mean.data, 1e-4, rtol=1e-12)
    raw = np.concatenate([v.ravel() for v in fitted(steps=20, eta=3.0, family=Truncated).parameters.values()])
    assert raw.min() == np.float32(grep_settings.FLOOR)  # some are held there, none is below
    free = np.concatenate([v.ravel() for v in fitted(steps=20, eta=3.0).parameters.values()])
    assert free.min() < grep_settings.FLOOR


def test_truncation_leaves_the_start_as_it_is():
    a, b = fitted(steps=1), fitted(steps=1, family=Truncated)
    assert abs(b.elbo[0] / a.elbo[0] - 1) < 0.02  # the example adds the least values, 0.001 of a shape of 1


@pytest.mark.parametrize("family", [Clamped, AsTheirs])
@pytest.mark.parametrize(("shape", "mean"), [(-6.0, 3.0), (-1.0, -5.0)])
def test_clamped_draws_have_a_least_value(family, shape, mean):
    """At a large mean the draw of Gamma(shape, 1) is held at 1e-5, at a small one the draw itself."""
    q = family.from_raw(tv.Tensor(np.repeat([[shape, mean]], 50, 0)))
    log_z = q.sample(Noise(0, "noise", np.zeros(3, np.int64)), 4).log().data
    held = log_z + q.log_rate.data if mean > 0 else log_z
    assert np.isclose(held, np.log(1e-5), rtol=0, atol=1e-9).any()
    assert min(log_z.min(), (log_z + q.log_rate.data).min()) >= np.log(1e-5) - 1e-9


def test_a_row_compares_the_course_with_the_authors_at_three_steps():
    """Within 3 % at each of 100, 500 and 1000; a course that ends before is not judged."""
    course = np.interp(np.arange(1, 1001), [1, 89, 100, 489, 500, 989, 1000],
                       [-1.6e9, -93.5e6, -93.5e6, -13.59e6, -13.59e6, -7.772e6, -7.772e6])  # fmt: skip
    found = replace(fitted(steps=1), elbo=course, seconds=np.arange(1000.0))
    assert grep_settings._row("", Setting(), found, 1, "")["reached"]
    for place in slice(89, 100), slice(489, 500), slice(989, 1000):
        off = course.copy()
        off[place] *= 1.04
        assert grep_settings._row("", Setting(), replace(found, elbo=off), 1, "")["reached"] is False
    assert grep_settings._row("", Setting(), replace(found, elbo=course[:999]), 1, "")["reached"] is None
