"""The plain auto-encoder: its objective by SciPy, PCA as its linear case, and what it refuses."""

import numpy as np
import pytest
from scipy.special import log_expit
from sklearn.decomposition import PCA

import tinyvae as tv
from tinyvae.models.autoencoder import Autoencoder


def test_its_objective_is_log_p_of_x_given_its_code():
    x = np.random.default_rng(0).integers(0, 2, (7, 6)).astype(float)
    model = Autoencoder(6, hidden=(5, 3), latent=2, dtype="float64")
    found = model.terms(tv.Batch(tv.Tensor(x)), tv.Draw(tv.Noise(0)))
    weights = [(layer.weight.data, layer.bias.data) for network in (model.encoder, model.decoder)
               for layer in network.layers]
    assert [len(bias) for _, bias in weights] == [5, 3, 2, 3, 5, 6]
    h = x
    for number, (weight, bias) in enumerate(weights):
        h = h @ weight + bias
        if number == 2:
            code = h
        elif number < 5:
            h = np.maximum(h, 0)
    logits = h
    np.testing.assert_allclose(model.features(x), code, rtol=1e-12)
    np.testing.assert_allclose(found["reconstruction"].data, log_expit(np.where(x == 1, logits, -logits)).sum(1),
                               rtol=1e-12)
    np.testing.assert_allclose(model.reconstruct(x), 1 / (1 + np.exp(-logits)), rtol=1e-12)


def linear(data, components):
    """A linear auto-encoder of data, whose likelihood is normal with the variance 1 for all pixels."""
    model = Autoencoder(data.shape[1], hidden=(), latent=components, likelihood="normal", dtype="float64")
    pca = PCA(components).fit(data)
    (encoder,), (decoder,) = model.encoder.layers, model.decoder.layers
    encoder.weight.data[...], encoder.bias.data[...] = pca.components_.T, -pca.components_ @ pca.mean_
    decoder.weight.data[...], decoder.bias.data[...] = 0, 0
    decoder.weight.data[:, : data.shape[1]], decoder.bias.data[: data.shape[1]] = pca.components_, pca.mean_
    return model, pca


def test_pca_is_the_best_linear_auto_encoder():
    """With PCA's weights it reconstructs as PCA does, no step improves it, and any other weights are worse."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 6)) + 0.3 * rng.standard_normal((200, 6))
    model, pca = linear(data, 2)
    np.testing.assert_allclose(model.features(data), pca.transform(data), rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.reconstruct(data), pca.inverse_transform(pca.transform(data)), atol=1e-12)

    def objective():
        return model.terms(tv.Batch(tv.Tensor(data)), tv.Draw(tv.Noise(0)))["reconstruction"].mean()

    error = ((data - model.reconstruct(data)) ** 2).sum(1).mean()
    assert error == pytest.approx(199 / 200 * np.linalg.svd(np.cov(data.T))[1][2:].sum())
    best = objective()
    assert float(best.data) == pytest.approx(-0.5 * (error + 6 * np.log(2 * np.pi)))
    means = [model.encoder.layers[0].weight, model.encoder.layers[0].bias]
    for slope in tv.grad(best, means):
        np.testing.assert_allclose(slope.data, 0, atol=1e-11)
    weight = model.decoder.layers[0].weight
    np.testing.assert_allclose(tv.grad(objective(), weight).data[:, :6], 0, atol=1e-11)
    for _ in range(20):
        kept = model.parameters.flat.copy()
        model.encoder.layers[0].weight.data[...] += 0.1 * rng.standard_normal((6, 2))
        weight.data[:, :6] += 0.1 * rng.standard_normal((2, 6))
        assert ((data - model.reconstruct(data)) ** 2).sum(1).mean() > error
        model.parameters.flat[...] = kept


def test_it_learns_and_resumes_with_the_same_bits(tmp_path):
    data, sizes = tv.data.load("digits"), {"hidden": 40, "latent": 5}
    whole = tv.fit(Autoencoder(64, **sizes), data, epochs=2, quiet=True)
    tv.fit(Autoencoder(64, **sizes), data, out=tmp_path / "run", epochs=1, quiet=True)
    assert tv.resume(tmp_path / "run", epochs=2, quiet=True)[-1]["fingerprint"] == whole[-1]["fingerprint"]
    assert whole[-1]["test_reconstruction"] == whole[-1]["test_elbo"] > whole[0]["test_elbo"]
    result = tv.evaluate(tv.load(tmp_path / "run"), data)
    assert result.goal == "log p(x|code)"
    text = str(result)
    assert "log p(x|code) is no bound on log p(x), which this model does not have" in text
    assert "ELBO" not in text
    assert tv.evaluate(tv.VAE(64, hidden=4, latent=2), data).goal is None


def test_what_it_does_not_have_gets_a_sentence():
    model, x = Autoencoder(6, hidden=4, latent=2), np.zeros((3, 6))
    uses = [
        (ValueError, r"found importance_samples=5 \(-k\) for an autoencoder, which has no",
         lambda: tv.evaluate(model, x, importance_samples=5)),
        (TypeError, r"an autoencoder has no q\(z\|x\) .*take features\(x\)", lambda: model.encode(x)),
        (TypeError, r"an autoencoder has no p\(z\) from which a code could be drawn; take a vae",
         lambda: model.generate(3)),
        (ValueError, "found NaN or infinite numbers in z", lambda: model.decode(np.full((1, 2), np.nan))),
        (ValueError, "the likelihood bernoulli takes 0 and 1", lambda: tv.evaluate(model, x + 0.5)),
        (ValueError, "found likelihood 'magic'", lambda: Autoencoder(6, likelihood="magic")),
        (ValueError, r"found x of shape \(3, 5\); this model takes \(batch, 6\)", lambda: model.features(x[:, :5])),
        (ValueError, "found beta=2", lambda: tv.fit(Autoencoder(64, hidden=4), "digits", beta=2.0, quiet=True)),
    ]  # fmt: skip
    for kind, message, use in uses:
        with pytest.raises(kind, match=message):
            use()


def test_it_is_compared_with_no_bound():
    from tinyvae.tasks.comparing import compare

    data = tv.data.load("digits")
    plain, vae = Autoencoder(64, hidden=4, latent=2), tv.VAE(64, hidden=4, latent=2)
    with pytest.raises(ValueError, match=r"a, an autoencoder, is judged by log p\(x\|code\), and v, a vae, by ELBO"):
        compare({"a": (plain, data), "v": (vae, data)})
    assert compare({"a": (plain, data), "b": (plain, data)}).differences["b"][0] == 0
