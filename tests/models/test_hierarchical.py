"""Several layers of latents: a linear-Gaussian hierarchy of which everything is known, for both orders of inference."""

import numpy as np
import pytest
from linear import Law, set_layer
from scipy import stats

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.distributions.layered import product
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import check_gradients
from tinyvae.evidence.columns import bound_fields
from tinyvae.models.hierarchical import BOTTOM_UP, TOP_DOWN, Hierarchical
from tinyvae.pictures import gallery

ORDERS = (BOTTOM_UP, TOP_DOWN)
UP, OFFSET, ABOVE = 0.8, 0.3, -0.4  # p(z_1|z_2) = N(0.8 z_2 + 0.3, exp(-0.4))
WEIGHT, BIAS, NOISE = np.array([[1.1], [-0.7], [0.4]]), np.array([0.2, -0.1, 0.5]), np.array([-0.5, -1.0, 0.2])
X = np.random.default_rng(3).normal(size=(4, 3))
FALSE_ALARM = 1e-6


def set_linear(network, weight, bias, logvar):
    """A network of one hidden layer without activation as the linear map weight x + bias."""
    first, last = network.layers
    first.weight.data[...], first.bias.data[...] = np.eye(*first.weight.shape), 0
    last.weight.data[...] = 0
    set_layer(type("Last", (), {"layers": [last]}), np.asarray(weight, float), np.asarray(bias, float), logvar)


def model_of(inference, shift=0.0):
    """A hierarchy z_2 -> z_1 -> x of one dimension each and three of x, with the exact posterior moved by `shift`."""
    model = Hierarchical(3, hidden=(8,), latent=(1, 1), activation="identity", likelihood="normal",
                         inference=inference, dtype="float64")
    set_linear(model.decoder, WEIGHT, BIAS, NOISE)
    set_linear(model.down[0], [[UP]], [OFFSET], [ABOVE])
    over = WEIGHT[:, 0] / np.exp(NOISE)  # x as a measurement of z_1: precision and slope
    precision = over @ WEIGHT[:, 0]
    above = law_of_all().of(np.arange(2))  # (z_1, z_2)
    slope = over / precision
    offset = -slope @ BIAS
    if inference == TOP_DOWN:
        set_linear(model.up[0], slope[None], [offset + shift], [-np.log(precision)])
        # q(z_2|x) reads the measurement m of z_1, whose law is N(z_1, 1 / precision)
        variance = above.covariance[0, 0] + 1 / precision
        gain = above.covariance[1, 0] / variance
        set_linear(model.up[1], [[gain, 0]], [-gain * above.mean[0]], [np.log(1 - gain * above.covariance[0, 1])])
    else:
        variance = 1 / (precision + 1 / above.covariance[0, 0])
        mean = variance * above.mean[0] / above.covariance[0, 0]
        set_linear(model.up[0], variance * precision * slope[None], [mean + variance * precision * offset + shift],
                   [np.log(variance)])
        gain = above.covariance[1, 0] / above.covariance[0, 0]
        set_linear(model.up[1], [[gain]], [-gain * above.mean[0]], [np.log(1 - gain * above.covariance[0, 1])])
    return model


def law_of_all():
    """The law of (z_1, z_2, x)."""
    map_of_z = np.array([[UP], [1.0]])
    covariance = map_of_z @ map_of_z.T + np.diag([np.exp(ABOVE), 0])
    slope = np.concatenate([np.eye(2), np.concatenate([WEIGHT, np.zeros((3, 1))], 1)])
    noise = np.concatenate([np.zeros(2), np.exp(NOISE)])
    return Law(np.concatenate([[OFFSET, 0], BIAS + WEIGHT[:, 0] * OFFSET]),
               slope @ covariance @ slope.T + np.diag(noise))


EVIDENCE = np.array([law_of_all().of(np.arange(2, 5)).log_density(x) for x in X])
BATCH = tv.Batch(Tensor(X))


def close(found, expected, rtol=1e-10, atol=1e-10):
    np.testing.assert_allclose(found, expected, rtol, atol, equal_nan=False)


def errors_of(count):
    """How many standard errors none of `count` means may be away."""
    return stats.norm.ppf(1 - FALSE_ALARM / (2 * count))


# ---- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ORDERS)
def test_with_the_exact_posterior_every_weight_is_the_evidence(inference):
    model = model_of(inference)
    close(model.log_weights(BATCH, tv.Draw(tv.Noise(0)), 5).numpy(), np.tile(EVIDENCE, (5, 1)))
    for draw in (tv.Draw(tv.Noise(0), "elbo-a"), tv.Draw(tv.Noise(0), "elbo-a", samples=3),
                 tv.Draw(tv.Noise(0), "iwae", importance_samples=4)):
        close(model.bound_of(model.terms(BATCH, draw)).numpy(), EVIDENCE)


@pytest.mark.parametrize("inference", ORDERS)
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_bound_is_at_most_the_evidence(inference, shift):
    """And is it on average, with the KL in closed form where it has one, with the exact posterior alone."""
    model = model_of(inference, shift)
    each = np.stack([model.bound_of(model.terms(BATCH, tv.Draw(tv.Noise(seed), "elbo-b", samples=100))).numpy()
                     for seed in range(30)])
    mean, error = each.mean(0), errors_of(4) * each.std(0, ddof=1) / np.sqrt(len(each))
    assert (mean <= EVIDENCE + error).all()
    assert (np.abs(mean - EVIDENCE) <= error).all() == (shift == 0)


@pytest.mark.parametrize("inference", ORDERS)
def test_the_parts_of_the_kl(inference):
    """Each layer's is the mean of log q - log p of that layer."""
    model = model_of(inference, 0.5)
    p, q = model.prior, model.q(Tensor(X))
    found = q.sample_with_kls(p, tv.Noise(0), 20_000)[1].numpy()
    z = q.parts(q.sample(tv.Noise(1), 20_000))
    for l in range(2):
        each = (q.law(l, z).log_prob(z[l]) - p.law(l, z).log_prob(z[l])).numpy()
        error = errors_of(8) * np.sqrt(2) * each.std(0) / np.sqrt(len(each))
        assert (np.abs(found[:, l] - each.mean(0)) <= error).all()


def test_a_product_of_normal_densities_is_normal():
    (m, a, c, b), z = np.random.default_rng(0).normal(size=(4, 5)), np.linspace(-2, 2, 9)[:, None]
    found = product(Normal(Tensor(m), Tensor(a)), Normal(Tensor(c), Tensor(b)))
    both = stats.norm.logpdf(z, m, np.exp(a / 2)) + stats.norm.logpdf(z, c, np.exp(b / 2))
    gap = both - stats.norm.logpdf(z, found.mu.numpy(), np.exp(found.logvar.numpy() / 2))
    close(gap, np.tile(gap[:1], (9, 1)))  # they differ by a constant


# ---- draws, densities, moments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ORDERS)
def test_moments_are_those_of_the_exact_posterior(inference):
    q = model_of(inference).q(Tensor(X))
    exact = [law_of_all().given(np.arange(5) > 1, x) for x in X]
    drawn = q.sample(tv.Noise(0), 40_000).numpy()
    variance = exact[0].covariance.diagonal()
    error = errors_of(8) * np.sqrt(variance / len(drawn))
    assert (np.abs(drawn.mean(0) - [each.mean for each in exact]) < error).all()
    close(drawn.var(0), np.tile(variance, (4, 1)), errors_of(8) * np.sqrt(2 / len(drawn)), 0)
    close(q.log_prob(Tensor(drawn[:3])).numpy(), [[law.log_density(z) for law, z in zip(exact, row, strict=True)]
                                                   for row in drawn[:3]])
    # a layer that is drawn later has the mean of 32 conditional means
    close(q.mean.numpy(), [each.mean for each in exact], 0, errors_of(8) * np.sqrt(variance.max() / 32))
    first = 0 if inference == BOTTOM_UP else 1
    close(q.mean.numpy()[:, first], [each.mean[first] for each in exact])
    close(q.variance.numpy()[:, first], np.tile(variance[first], 4))


def test_the_prior_is_that_of_the_hierarchy():
    p = model_of(BOTTOM_UP).prior
    law = law_of_all().of(np.arange(2))
    drawn = p.sample(tv.Noise(0), 100_000).numpy()
    close(p.log_prob(Tensor(drawn[:4])).numpy(), [law.log_density(z) for z in drawn[:4]])
    assert (np.abs(drawn.mean(0) - law.mean) < errors_of(4) * np.sqrt(law.covariance.diagonal() / len(drawn))).all()
    close(drawn.var(0), law.covariance.diagonal(), errors_of(4) * np.sqrt(2 / len(drawn)), 0)


# ---- gradients -------------------------------------------------------------------------------------------------------


def small(inference, **options):
    return Hierarchical(3, hidden=(2,), latent=(2, 1), activation="tanh", inference=inference, dtype="float64",
                        **options)


BITS = (np.random.default_rng(1).random((3, 3)) < 0.5).astype(float)


@pytest.mark.parametrize("inference", ORDERS)
@pytest.mark.parametrize("bound", ["elbo-a", "elbo-b", "iwae"])
def test_gradients_of_every_weight(inference, bound):
    model = small(inference, **({"prior": "vamp", "pseudo_inputs": 2} if inference == TOP_DOWN else {}))
    names = list(model.parameters.tensors)

    def bound_at(*values):
        """The bound of a model with these weights."""
        made = small(inference, **{name: model.config[name] for name in ("prior", "pseudo_inputs")})
        made.parameters.tensors.update(zip(names, values, strict=True))
        for network in made._networks:
            network.attach(made.parameters)
        draw = tv.Draw(tv.Noise(0), bound, importance_samples=1 + (bound == "iwae"))
        return made.bound_of(made.terms(tv.Batch(Tensor(BITS)), draw)).sum()

    check_gradients(bound_at, *(model.parameters[name].numpy().copy() for name in names))


@pytest.mark.parametrize("inference", ORDERS)
@pytest.mark.parametrize(("bound", "gradient"), [("elbo-a", "stl"), ("iwae", "stl"), ("iwae", "dreg")])
def test_without_the_score_the_gradient_of_an_exact_posterior_is_0(inference, bound, gradient):
    """Then w is p(x) for every z, so dlog w/dz is 0, and so is the gradient by the weights of q alone."""
    model = model_of(inference)
    draw = tv.Draw(tv.Noise(0), bound, importance_samples=1 + 2 * (bound == "iwae"), gradient=gradient)
    total = model.bound_of(model.terms(BATCH, draw)).sum()
    of_q = [layer.weight for network in model.up for layer in network.layers]
    for found in grad(total, of_q):
        close(found.numpy(), 0, 0, 1e-9)
    plain = model.bound_of(model.terms(BATCH, tv.Draw(tv.Noise(0), bound, importance_samples=draw.importance_samples)))
    assert max(np.abs(found.numpy()).max() for found in grad(plain.sum(), of_q)) > 1e-3


@pytest.mark.parametrize("inference", ORDERS)
def test_dreg_is_unbiased(inference):
    """Its mean is that of the plain gradient of the same bound."""
    def gradients(kind):
        made = []
        for seed in range(40):
            draw = tv.Draw(tv.Noise(seed), "iwae", samples=50, importance_samples=3, gradient=kind)
            total = model.bound_of(model.terms(BATCH, draw)).sum()
            made.append(np.concatenate([found.numpy().ravel() for found in grad(total, biases)]))
        return np.array(made)

    model = model_of(inference, 0.7)
    biases = [network.layers[-1].bias for network in model.up]
    path, dreg = gradients("path"), gradients("dreg")
    error = np.sqrt((path.var(0) + dreg.var(0)) / len(path))
    away = np.abs(path.mean(0) - dreg.mean(0))
    assert (away[error > 0] <= errors_of(4) * error[error > 0]).all()
    assert (dreg.std(0) < path.std(0)).any()


# ---- in use ----------------------------------------------------------------------------------------------------------


def test_free_bits_are_those_of_a_layer():
    model = small(BOTTOM_UP)
    batch, draw = tv.Batch(Tensor(BITS)), tv.Draw(tv.Noise(0), free_bits=50.0)
    terms = model.terms(batch, draw)
    assert terms["kl"].numpy() == 100.0  # two layers, each below 50 nats
    assert terms.reported["kl"].numpy().shape == (3,)
    draw = tv.Draw(tv.Noise(0), free_bits=1e-12)
    _, kl = model.q(batch.x).sample_with_kls(model.prior, tv.Noise(0))
    close(model.terms(batch, draw)["kl"].numpy(), np.maximum(kl.numpy().mean(0), 1e-12).sum())


def test_active_units_are_counted_by_layer():
    mu = np.zeros((100, 5))
    mu[:, [0, 2, 4]] = np.random.default_rng(0).normal(size=(100, 3))
    column = {"kl": np.ones((100, 2)), "mu": mu, "prior_variance": np.ones((100, 5)), "reconstruction": np.ones(100)}
    found = bound_fields(column, (3, 2))
    assert found["active_units"] == 3
    assert found["active_units_per_layer"] == [2, 1]
    assert found["latent_units"] == 5


@pytest.mark.parametrize("options", [{"inference": BOTTOM_UP}, {"inference": TOP_DOWN, "prior": "vamp",
                                                                "pseudo_inputs": 5}], ids=["bottom-up", "vamp"])
def test_a_training_that_was_stopped_goes_on_with_the_same_bits(options, tmp_path):
    data = tv.data.load("digits-static")
    settings = {"batch": 100, "lr": 3e-3, "bound": "iwae", "importance_samples": 3, "gradient": "dreg", "quiet": True}

    def model():
        return Hierarchical(64, hidden=(16,), latent=(4, 2), **options)

    whole = tv.fit(model(), data, epochs=2, **settings)
    tv.fit(model(), data, epochs=1, out=tmp_path / "run", **settings)
    resumed = tv.resume(tmp_path / "run", data=data, epochs=2)
    assert resumed[-1]["fingerprint"] == whole[-1]["fingerprint"]
    assert whole[-1]["train_bound"] > whole[0]["train_bound"]
    assert len(whole[-1]["kl_per_dimension"]) == len(whole[-1]["active_units_per_layer"]) == 2
    again = tv.load(tmp_path / "run")
    assert again.layers == (4, 2)
    assert again.latent == 6
    assert again.generate(3).shape == (3, 64)
    assert again.reconstruct(data.test[:2] / data.scale).shape == (2, 64)
    found = tv.evaluate(again, data, importance_samples=50)
    assert found.elbo < found.log_evidence


def test_pictures_vary_what_the_decoder_reads():
    data = tv.data.load("digits-static")
    model = Hierarchical(64, hidden=(8,), latent=(2, 5))
    assert sorted(gallery.by_activity(model, data)) == [0, 1]
    with pytest.raises(ValueError, match="the model has 1 latent dimension; a manifold needs two"):
        gallery.manifold(Hierarchical(64, hidden=(8,), latent=(1, 5)), data, None)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"inference": "sideways"}, "found inference 'sideways'; expected one of bottom-up, top-down"),
    ({"prior": "vamp"}, "found the prior vamp with inference=bottom-up, .* take inference=top-down"),
    ({"latent": (3, 0)}, "each must be at least 1"),
])
def test_wrong_hierarchies_get_a_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        Hierarchical(5, **wrong)
