"""The likelihood of the observed pixels, of every likelihood."""

import numpy as np
import pytest
from support import assert_close

import tinyvae as tv
from tinyvae.distributions import LIKELIHOODS, Gamma
from tinyvae.distributions.observed import Observed, Placed, each_pixel


def case(name, dtype=np.float64):
    (family, kind), rng = LIKELIHOODS[name], np.random.default_rng(0)
    raw = tv.Tensor(rng.normal(size=(2, 3, family.width(4))).astype(dtype))
    x = rng.uniform(size=(3, 4))
    return family.from_raw(raw), tv.Tensor((x if kind == "grey" else np.round(x)).astype(dtype))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_p_of_the_pixels_sums_to_that_of_the_datum(name):
    law, x = case(name)
    each = each_pixel(law, x)
    assert each.shape == (2, 3, 4)
    assert_close(each.numpy().sum(-1), law.log_prob(x).numpy(), 64)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_mask_leaves_pixels_out(name):
    law, x = case(name)
    mask = np.array([[1.0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    found = Observed(law, tv.Tensor(mask)).log_prob(x).numpy()
    assert_close(found, (mask * each_pixel(law, x).numpy()).sum(-1), 8)
    assert (found[:, 2] == 0).all()
    twice = Observed(Observed(law, tv.Tensor(mask)), tv.Tensor(np.tile([1.0, 1, 0, 0], (3, 1))))
    assert_close(twice.log_prob(x).numpy(), (mask * [1, 1, 0, 0] * each_pixel(law, x).numpy()).sum(-1), 8)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_and_pixels_keep_the_type(name, dtype):
    law, x = case(name, dtype)
    for found in (law.mean, law.variance, each_pixel(law, x), law.sample(tv.Noise(0))):
        assert found.dtype == dtype
        assert np.isfinite(found.numpy()).all()


def test_moments_and_draws_are_those_of_all_pixels():
    law, _ = case("bernoulli")
    found = Observed(law, tv.Tensor(np.zeros((3, 4))))
    assert (found.mean.numpy() == law.mean.numpy()).all()
    assert (found.variance.numpy() == law.variance.numpy()).all()
    assert (found.sample(tv.Noise(0), 2).numpy() == law.sample(tv.Noise(0), 2).numpy()).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_some_pixels_as_all(name):
    """In their places, where they are what they are by themselves; the others are certain."""
    law, x = case(name)
    law = type(law)(**law.map(lambda v: tv.Tensor(v.numpy()[0])).parameters) if name != "gaussian" else type(law)(
        tv.Tensor(law.raw.numpy()[0]))
    places, seen = np.array([6, 0, 3, 2]), np.isin(np.arange(7), [6, 0, 3, 2])
    placed, wide = Placed(law, places, 7), np.full((3, 7), 0.5)
    wide[:, places] = x.numpy()
    assert_close(placed.log_prob(tv.Tensor(wide)).numpy(), law.log_prob(x).numpy(), 64)
    for found, right in ((placed.mean, law.mean), (placed.variance, law.variance),
                         (placed.log_density(tv.Tensor(wide)), each_pixel(law, x))):
        assert_close(found.numpy()[:, places], right.numpy(), 8)
        assert (found.numpy()[:, ~seen] == 0).all()
    drawn = placed.sample(tv.Noise(0), 2).numpy()
    assert (drawn[..., places] == law.sample(tv.Noise(0), 2).numpy()).all()
    assert (drawn[..., ~seen] == 0).all()


@pytest.mark.parametrize("law", [Gamma(tv.Tensor(np.ones((3, 4))), tv.Tensor(np.ones((3, 4)))),
                                 tv.distributions.Categorical(tv.Tensor(np.ones((3, 4))))])
def test_a_family_without_pixels_of_its_own_gets_a_sentence(law):
    with pytest.raises(TypeError, match=f"found the likelihood {type(law).__name__} where some pixels are missing"):
        each_pixel(law, tv.Tensor(np.eye(3, 4)))
