"""What the page computes, in a real browser, against Python: every likelihood, activation, family, model and condition
that is served."""

import copy
import functools

import numpy as np
import pytest
from browser import Watched, coloured
from scipy.special import gammaln
from support import likely_zero

import tinyvae as tv
from tinyvae.distributions import FAMILIES, LIKELIHOODS
from tinyvae.engine.tensor import Tensor
from tinyvae.explorer import contents
from tinyvae.explorer.contents import FEW, laws, some_test_data
from tinyvae.explorer.served import served
from tinyvae.explorer.writing import page
from tinyvae.models import model_for

pytestmark = pytest.mark.browser

LATENT, PIXEL = 2e-3, 1 / 510  # the largest differences from Python
SIZES = {"hidden": [40, 30], "latent": 4}
DEFAULTS = {"likelihood": "bernoulli", "activation": "relu", "posterior": "normal"}  # which the case "model vae" has
CASES = {
    **{f"{option} {name}": {option: name}
       for option, what in (("likelihood", "likelihood"), ("activation", "activation"), ("posterior", "family"))
       for name in served()[what] if name != DEFAULTS[option]},
    **{f"model {name}": {"kind": name} for name in served()["model"]},
    "shot, apart": {"kind": "shot", "style": "apart"},
    "given quadrants:1": {"kind": "cvae", "given": "quadrants:1"},
    "given quadrants:2": {"kind": "cvae", "given": "quadrants:2"},
    "given quadrants:3": {"kind": "cvae", "given": "quadrants:3"},
    "given pooled:2": {"kind": "cvae", "given": "pooled:2"},
    **{f"colour, {name}": {"colour": True, "likelihood": "continuous-bernoulli", **options} for name, options in (
        ("vae", {}), ("quadrants:1", {"kind": "cvae", "given": "quadrants:1"}),
        ("pooled:2", {"kind": "cvae", "given": "pooled:2"}))},
    "given label, gamma": {"kind": "cvae", "given": "label", "posterior": "gamma"},
}


def test_every_condition_has_a_case():
    assert {str(case.get("given", "label")).partition(":")[0] for case in CASES.values()} == set(served()["condition"])


@functools.cache
def data_for(likelihood):
    return tv.data.load("digits-dynamic" if LIKELIHOODS[likelihood].data == "binary" else "digits-gray")


@functools.cache
def trained(case):
    options = {"kind": "vae", "likelihood": "bernoulli"} | CASES[case]
    data = data_for(options["likelihood"])
    if options.pop("colour", False):
        data = coloured(data)
    model = model_for(options.pop("kind"), data, **SIZES, **options)
    tv.fit(model, data, epochs=2, lr=3e-3)
    return model, data


def opened(browser, folder, facts, arrays):
    file = folder / "page.html"
    file.write_text(page(facts, arrays))
    return Watched(browser, file)


def few(model, data):
    """The first test data of the page as one batch, and the laws of it in Python."""
    batch = next(iter(contents.batches_of(model, some_test_data(data), 0, count=FEW)))
    return batch, laws(model, batch)


@pytest.mark.parametrize("case", CASES)
def test_it_agrees_with_python(browser, tmp_path, case):
    """Latents and pixels; and log p(x|z) + log p(z) - log q(z|x), of which Python computes with the page's weights."""
    model, data = trained(case)
    batch, (q, _, likelihood) = few(model, data)
    facts, arrays = contents.contents(model, data, "run")
    assert "float16" in facts["weights"]
    rounded = copy.deepcopy(model)
    rounded.parameters.load(arrays)
    close_q, p, close = laws(rounded, batch)
    at = Tensor(close_q.mean.numpy() + 0.1 * close_q.variance.sqrt().numpy())
    weights = (close(at).log_prob(model.target(batch)) + p.log_prob(at) - close_q.log_prob(at)).numpy()
    with opened(browser, tmp_path, facts, arrays) as window:
        found = window.value("""(at) => at.map((place, i) => {
            const d = tinyvae.withLabel(tinyvae.testDatum(i)), z = tinyvae.encode(d);
            return {x: d.x, z, image: tinyvae.decode(z, d), weight: tinyvae.logWeight(Float64Array.from(place), d)};
        })""", at.numpy().tolist())
    x, z, images, log_weights = (np.array([row[name] for row in found]) for name in ("x", "z", "image", "weight"))
    assert len(z) == FEW
    np.testing.assert_allclose(x, batch.x.numpy(), atol=1e-7)
    pixels = np.arange(model.pixels) if model.condition is None else model.condition.pixels
    worst = np.abs(z - q.mean.numpy()).max()
    off = np.abs(images[:, pixels] - likelihood(q.mean).mean.numpy()).max()
    print(f"{case}: latents differ by {worst:.2g}, allowed {LATENT}; pixels by {off:.2g}, allowed {PIXEL:.2g}; "
          f"log weights by {np.abs(log_weights - weights).max():.2g} nats")
    assert worst <= LATENT
    assert off <= PIXEL
    np.testing.assert_allclose(log_weights, weights, rtol=2e-5, atol=2e-4)
    others = np.setdiff1d(np.arange(model.pixels), pixels)
    assert (images[:, others] == x[:, others]).all()


def test_log_gamma(browser, tmp_path):
    """Against SciPy, to 13 digits of values that are not near its zeros at 1 and 2."""
    x = [1e-3, 0.1, 0.5, 1.5, 2.5, 7.0, 9.99, 10.0, 33.3, 1e4]
    with opened(browser, tmp_path, *contents.contents(*trained("model vae"), "run")) as window:
        found = window.value("(x) => x.map(tinyvae.logGamma)", x)
    np.testing.assert_allclose(found, gammaln(x), rtol=1e-13, atol=1e-13)


# Parameters of each family, as its class in Python takes them, of one element; of full-normal two.
PARAMETERS = {"normal": ([[0.3]], [[-0.7]]), "log-normal": ([[0.2]], [[-2.0]]), "gamma": ([[0.4]], [[2.0]]),
              "beta": ([[0.6]], [[2.5]]), "full-normal": ([[0.3, -1.0]], [[-0.7, 0.4]], [[0.8]])}  # fmt: skip
DRAWS = 20_000


def test_means_and_densities_of_families(browser, tmp_path):
    """Each by itself: in log p(z) - log q(z|x) a fault of both would cancel."""
    with opened(browser, tmp_path, *contents.contents(*trained("model vae"), "run")) as window:
        for name in served()["family"]:
            law = FAMILIES[name](*(Tensor(np.array(values)) for values in PARAMETERS[name]))
            places = [[0.1, -0.4], [0.7, 1.3]] if name == "full-normal" else [[0.02], [0.4], [0.9]]
            found = window.value("""([name, numbers, places]) => {
                const row = tinyvae.FAMILIES[name], p = numbers.map(([row]) => Float64Array.from(row));
                return [row.mean(p), places.map((z) => row.logProb(p, z))];
            }""", [name, PARAMETERS[name], places])
            np.testing.assert_allclose(found[0], law.mean.numpy()[0], rtol=1e-12, err_msg=name)
            expected = [law.log_prob(Tensor(np.array([z]))).item() for z in places]
            np.testing.assert_allclose(found[1], expected, rtol=1e-11, err_msg=name)


def test_means_and_densities_of_likelihoods(browser, tmp_path):
    with opened(browser, tmp_path, *contents.contents(*trained("model vae"), "run")) as window:
        for name in served()["likelihood"]:
            family = LIKELIHOODS[name].family
            raw = np.array([[first, -0.8] for first in (-30.0, -1.3, -0.09, -1e-4, 0.0, 0.05, 0.2, 40.0)])
            raw = raw[:, : family.width(1)]
            law = family.from_raw(Tensor(raw))
            found = window.value(f"""(raw) => raw.map((row) => [tinyvae.LIKELIHOODS[{name!r}].mean(...row),
                ...[0, 1].map((x) => tinyvae.LIKELIHOODS[{name!r}].logProb(x, ...row))])""", raw.tolist())
            densities = [law.log_prob(Tensor(np.full((len(raw), 1), x))).numpy() for x in (0.0, 1.0)]
            expected = np.stack([law.mean.numpy()[:, 0], *densities], axis=1)
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12, err_msg=name)


def check_moments(what, drawn, mean, variance):
    likely_zero(f"{what}, mean", drawn.mean() - mean, np.sqrt(variance / len(drawn)))
    squares = (drawn - mean) ** 2
    likely_zero(f"{what}, variance", squares.mean() - variance, squares.std() / np.sqrt(len(drawn)))


def test_draws_have_the_moments_of_the_families(browser, tmp_path):
    with opened(browser, tmp_path, *contents.contents(*trained("model vae"), "run")) as window:
        for name in served()["family"]:
            law = FAMILIES[name](*(Tensor(np.array(values)) for values in PARAMETERS[name]))
            drawn = np.array(window.value(f"""(numbers) => {{
                const p = numbers.map(([row]) => Float64Array.from(row));
                return Array.from({{length: {DRAWS}}}, () => tinyvae.FAMILIES[{name!r}].draw(p));
            }}""", PARAMETERS[name]))
            for j, (mean, variance) in enumerate(zip(law.mean.numpy()[0], law.variance.numpy()[0], strict=True)):
                check_moments(f"{name}, element {j}", drawn[:, j], mean, variance)
            if name == "full-normal":  # cov = L_10 sigma_0
                product = np.prod(drawn - law.mean.numpy(), axis=1) - 0.8 * np.exp(-0.35)
                likely_zero("covariance", product.mean(), product.std() / np.sqrt(DRAWS))


def test_draws_have_the_moments_of_the_likelihoods(browser, tmp_path):
    with opened(browser, tmp_path, *contents.contents(*trained("model vae"), "run")) as window:
        for name in served()["likelihood"]:
            for first in (-1.3, 0.05, 40.0):
                raw = [first, -0.8][: LIKELIHOODS[name].family.width(1)]
                law = LIKELIHOODS[name].family.from_raw(Tensor(np.array([raw])))
                drawn = np.array(window.value(f"""(raw) => Array.from({{length: {DRAWS}}},
                    () => tinyvae.LIKELIHOODS[{name!r}].draw(...raw))""", raw))
                if name == "bernoulli" and first == 40.0:
                    assert (drawn == 1).all()
                else:
                    check_moments(f"{name} at {first}", drawn, law.mean.item(), law.variance.item())


def test_completions_are_those_of_the_exact_conditional(browser, tmp_path):
    """With one latent the mean of the hidden pixels, given the others, is an integral."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 600)
    bits = (rng.random((600, 4)) < np.where(kind[:, None], [0.9, 0.8, 0.9, 0.7], [0.1, 0.3, 0.2, 0.2])).astype(np.uint8)
    data = tv.DataSet("made-static", bits[:500], bits[500:], (2, 2), 1.0, "static", "bernoulli")
    model = tv.VAE(4, hidden=16, latent=1)
    tv.fit(model, data, epochs=60, batch=50, lr=1e-2)
    z = np.linspace(-6, 6, 2001)[:, None]
    p = model.decode(z).astype(np.float64)
    with opened(browser, tmp_path, *contents.contents(model, data, "run")) as window:
        for x in ([1, 1, 0, 0], [0, 0, 1, 1]):
            weight = np.exp(-0.5 * z[:, 0] ** 2) * np.prod(np.where(x[:2], p[:, :2], 1 - p[:, :2]), axis=1)
            expected = weight @ p[:, 2:] / weight.sum()
            found = np.array(window.value("""(x) => Array.from({length: 700}, () => tinyvae.completed(
                {index: null, label: null, y: null, x, grey: x}, [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]))""", x))
            assert (found[:, :2] == x[:2]).all()
            for j in (0, 1):
                values = found[:, 2 + j]
                error = values.std() / np.sqrt(len(values))
                likely_zero(f"{x}, pixel {2 + j}", values.mean() - expected[j], error)
                assert abs(expected[j] - p[:, 2 + j] @ np.exp(-0.5 * z[:, 0] ** 2) / np.exp(-0.5 * z[:, 0] ** 2).sum()
                           ) > 10 * error  # the observed pixels matter


CLASSES = f"Array.from({{length: {FEW}}}, (_, i) => tinyvae.classes(tinyvae.testDatum(i)).p)"


def test_the_classifiers_of_models_agree_with_python(browser, tmp_path):
    for case in ("model m1", "model m2", "model shot"):
        model, data = trained(case)
        batch, _ = few(model, data)
        with opened(browser, tmp_path, *contents.contents(model, data, "run")) as window:
            found = window.value(CLASSES)
        np.testing.assert_allclose(found, model.classify(batch).numpy(), atol=2e-3)


def test_the_classes_of_a_conditional_model_are_bayes_rule(browser, tmp_path):
    """With one latent p(x|y) is an integral, whose estimates the page averages; p(y|x) is in proportion to it."""
    data = data_for("bernoulli")
    model = model_for("cvae", data, given="label", hidden=30, latent=1)
    tv.fit(model, data, epochs=20, lr=3e-3)
    batch, _ = few(model, data)
    z, exact = np.linspace(-8, 8, 1001, dtype=np.float32)[:, None], []
    for c in np.eye(10, dtype=np.float32):
        given = Tensor(np.repeat(c[None], len(z), 0))
        law, prior = model.decoder(Tensor(z), given), model.prior(given)
        log_prior = prior.log_prob(Tensor(z)).numpy().astype(np.float64)
        log_p = [law.log_prob(Tensor(np.repeat(x[None], len(z), 0))).numpy() for x in batch.x.numpy()]
        exact.append(np.logaddexp.reduce(np.array(log_p) + log_prior, axis=1) + np.log(z[1, 0] - z[0, 0]))
    exact = np.array(exact).T  # log p(x|y), (data, classes)
    draws = 400
    with opened(browser, tmp_path, *contents.contents(model, data, "run")) as window:
        weights = np.array(window.value(f"""Array.from({{length: 5}}, (_, i) => tinyvae.run.names.map((_, y) => {{
            const d = {{...tinyvae.testDatum(i), y}}, q = tinyvae.posterior(d);
            return Array.from({{length: {draws}}}, () => tinyvae.logWeight(q.draw(), d, q));
        }}))"""))
        found = np.array(window.value(CLASSES))
        again = f"tinyvae.classesByEvidence(tinyvae.testDatum(0), {draws // 4})"
        repeated = window.value(f"Array.from({{length: 100}}, () => {again})")
    ratios = np.exp(weights - exact[:5, :, None])
    spread = np.sqrt(np.square(ratios.std(2)).mean() / draws / ratios[..., 0].size)
    likely_zero("estimates of p(x|y) over the integral, minus 1", ratios.mean() - 1, spread)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    chances = np.exp(exact - np.logaddexp.reduce(exact, axis=1, keepdims=True))
    p, errors = (np.array([one[name] for one in repeated]) for name in ("p", "error"))
    y = np.abs(chances[0] - 0.5).argmin()  # the least certain class
    spread = p[:, y].std(ddof=1)
    print(f"p = {chances[0, y]:.3f}: spread {spread:.4f}, its standard error {np.sqrt(np.mean(errors[:, y] ** 2)):.4f}")
    assert 0.6 < spread / np.sqrt(np.mean(errors[:, y] ** 2)) < 1.5  # of 100 draws the spread is known to 7 %
    sure = chances.max(1) > 0.9
    assert sure.sum() >= 5
    assert (found.argmax(1) == chances.argmax(1))[sure].all()
