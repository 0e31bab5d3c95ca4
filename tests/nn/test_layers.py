"""Layers: sizes, initial values, and parameters as views of one flat vector."""

import numpy as np
import pytest
from scipy import special, stats
from support import DTYPES, assert_close, assert_same_bits, likely, likely_zero

import tinyvae as tv
from tinyvae.engine import noise
from tinyvae.engine.noise import Noise
from tinyvae.engine.program import Tape
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.nn.activations import ACTIVATIONS, activation
from tinyvae.nn.layers import ALIGN, MLP, Linear, Parameters


@pytest.mark.parametrize(("hidden", "count"), [(500, 815_824), (400, 652_824)])
def test_known_parameter_counts(hidden, count):
    # 784-500-20: the encoder has 412 540, the decoder 403 284
    model = tv.VAE(784, hidden=hidden, latent=20)
    assert model.parameters.count == count
    assert f"{count:,} parameters" in repr(model)


def test_names_and_shapes():
    model = tv.VAE(12, hidden=(7, 5), latent=3, likelihood="gaussian")
    assert {name: t.shape for name, t in model.parameters.tensors.items()} == {
        "encoder.0.weight": (12, 7), "encoder.0.bias": (7,), "encoder.1.weight": (7, 5), "encoder.1.bias": (5,),
        "encoder.2.weight": (5, 6), "encoder.2.bias": (6,), "decoder.0.weight": (3, 5), "decoder.0.bias": (5,),
        "decoder.1.weight": (5, 7), "decoder.1.bias": (7,), "decoder.2.weight": (7, 24), "decoder.2.bias": (24,),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_are_views_of_one_vector(dtype):
    parameters = Parameters(MLP.shapes("net", (5, 4, 3)), dtype)
    assert parameters.flat.dtype == dtype
    parameters.flat[:] = np.arange(parameters.flat.size)
    seen = []
    for tensor in parameters:
        assert np.shares_memory(tensor.data, parameters.flat)
        assert tensor.requires_grad
        start = int(tensor.data.flat[0])
        assert start % ALIGN == 0  # each begins a cache line
        assert tensor.data.reshape(-1).tolist() == list(range(start, start + tensor.size))
        seen += tensor.data.reshape(-1).tolist()
    assert len(seen) == len(set(seen)) == parameters.count  # no two overlap
    parameters["net.0.bias"].data[2] = -1
    assert (parameters.flat == -1).sum() == 1  # and the other way round


def test_load_copies_into_the_views():
    parameters = Parameters(MLP.shapes("net", (5, 4)))
    wanted = {name: np.random.default_rng(0).standard_normal(a.shape).astype(np.float32)
              for name, a in parameters.arrays().items()}
    parameters.load(wanted)
    for name, array in wanted.items():
        assert_same_bits(parameters[name].data, array)
        assert np.shares_memory(parameters[name].data, parameters.flat)


def padding(parameters):
    """The places of the flat vector that no parameter uses."""
    used = np.zeros(parameters.flat.size, bool)
    home = parameters.flat.__array_interface__["data"][0]
    for tensor in parameters:
        start = (tensor.data.__array_interface__["data"][0] - home) // parameters.flat.itemsize
        used[start : start + tensor.size] = True
    return ~used


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "sgd"])
@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "twin"])
def test_padding_stays_zero_in_training(optimizer, fused):
    # a number there would be in the gradient's norm and in nobody's sight; Adagrad would divide 0 by 0 there
    rng = np.random.default_rng(0)
    data = tv.DataSet("bits-static", rng.integers(0, 2, (20, 6), np.uint8), rng.integers(0, 2, (4, 6), np.uint8),
                      (2, 3), 1.0, "static", "bernoulli")
    model = tv.VAE(6, hidden=5, latent=2)
    unused = padding(model.parameters)
    assert unused.any()
    with tv.fused(fused):
        tv.fit(model, data, epochs=2, batch=7, optimizer=optimizer, lr=0.05, weight_prior=True)
    assert np.isfinite(model.parameters.flat).all()
    assert (model.parameters.flat[unused] == 0).all()
    assert (model.parameters.gradient[unused] == 0).all()


# ---- gradients in their places ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [False, True])
def test_collect_puts_each_gradient_at_its_place(recorded):
    parameters = Parameters(MLP.shapes("net", (4, 3, 2)), np.float64)
    parameters.initialise("glorot", 0)
    net = MLP(parameters, "net", 2, "tanh")
    x = Tensor(np.random.default_rng(0).standard_normal((5, 4)))
    with Tape() if recorded else tv.fused(True):
        gradients = grad((net(x) * net(x)).sum(), list(parameters))
        parameters.collect(gradients)
    expected = [g.numpy().copy() for g in grad((net(x) * net(x)).sum(), list(parameters))]
    for name, g in zip(parameters.tensors, expected, strict=True):
        start = (parameters[name].data.__array_interface__["data"][0]
                 - parameters.flat.__array_interface__["data"][0]) // 8
        assert_same_bits(parameters.gradient[start : start + g.size], g.reshape(-1), name)
    assert (parameters.gradient[padding(parameters)] == 0).all()


def test_collect_wants_one_gradient_for_each_parameter():
    parameters = Parameters(MLP.shapes("net", (4, 3)))
    with pytest.raises(ValueError, match="argument"):
        parameters.collect([Tensor(np.zeros((4, 3), np.float32))])


# ---- values -------------------------------------------------------------------------------------------------------


REFERENCE = {"identity": lambda a: a, "tanh": np.tanh, "relu": lambda a: np.maximum(a, 0),
             "softplus": lambda a: np.log1p(np.exp(-abs(a))) + np.maximum(a, 0)}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "twin"])
def test_a_layer_is_its_formula(kind, fused):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 5, 4)), rng.standard_normal((4, 3)), rng.standard_normal(3)
    with tv.fused(fused):
        layer = Linear(Tensor(weight), Tensor(bias), kind)
        if kind in REFERENCE:
            assert_close(layer(Tensor(x)).numpy(), REFERENCE[kind](x @ weight + bias), 32)
        tv.testing.check_gradients(lambda x, w, b: Linear(w, b, kind)(x), x, weight, bias)


@pytest.mark.parametrize("kind", [kind for kind, one in ACTIVATIONS.items() if one.slope is not None])
def test_the_slope_by_the_value_is_the_derivative(kind):
    a = Tensor(np.linspace(-3, 3, 40), requires_grad=True)
    y = ACTIVATIONS[kind].value(a)
    assert_close(1.0 * ACTIVATIONS[kind].slope(y).data, grad(y.sum(), a).data, 8)


def test_an_activation_of_ones_own_needs_no_other_place():
    """One row: the twin runs where kernels do not know it, in a layer and in training."""
    activation("sine", lambda a: 2 * a.tanh() * (1 - 0.1 * a * a).sigmoid())
    try:
        test_a_layer_is_its_formula("sine", True)
        x = (np.arange(48).reshape(8, 6) % 3 == 0).astype(np.uint8)
        data = tv.DataSet("bits-static", x, x, (2, 3), 1.0, "static", "bernoulli")
        records = tv.fit(tv.VAE(6, hidden=5, latent=2, activation="sine"), data, lr=1e-2, epochs=20, batch=4)
        assert records[-1]["train_elbo"] > records[0]["train_elbo"]
        with pytest.raises(ValueError, match="'sine' exists already"):
            activation("sine", abs)
    finally:
        del ACTIVATIONS["sine"]


def test_the_last_layer_has_no_activation():
    parameters = Parameters(MLP.shapes("net", (4, 3, 2)), np.float64)
    net = MLP(parameters, "net", 2, "relu")
    assert [layer.activation for layer in net.layers] == ["relu", "identity"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"found activation 'swish'; expected one of identity, tanh, relu, softplus"):
        tv.VAE(4, 3, 2, activation="swish")
    with pytest.raises(ValueError, match=r"found init 'zeros'; expected one of glorot, aevb"):
        tv.VAE(4, 3, 2, init="zeros")
    with pytest.raises(ValueError, match=r"found likelihood 'cauchy'; expected one of bernoulli"):
        tv.VAE(4, 3, 2, likelihood="cauchy")
    with pytest.raises(ValueError, match=r"found device 'tpu'"):
        tv.VAE(4, 3, 2, device="tpu")


@pytest.mark.parametrize("sizes", [{"pixels": 0}, {"hidden": 0}, {"hidden": ()}, {"latent": 0}, {"hidden": (3, -1)}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="each must be at least 1"):
        tv.VAE(**({"pixels": 4, "hidden": 3, "latent": 2} | sizes))


@pytest.mark.parametrize("hidden", [None, True, "400", 2.5, [5, None], {5}])
def test_sizes_that_are_no_whole_numbers_are_refused(hidden):
    with pytest.raises(TypeError, match=r"found sizes pixels=6, hidden=.*expected whole numbers"):
        tv.VAE(6, hidden, 2)


@pytest.mark.parametrize("count", [0, -1, 2.5, "3"])
def test_a_count_of_images_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match=r"found the count of images .*; expected a whole number, at least 1"):
        tv.VAE(6, 5, 2).generate(count)


# ---- initial values -----------------------------------------------------------------------------------------------


def check_glorot(weights, bound):
    assert np.abs(weights).max() <= bound
    flat = weights.reshape(-1).astype(np.float64)
    likely("uniform weights", stats.kstest(flat, stats.uniform(-bound, 2 * bound).cdf).pvalue)


def test_glorot_is_uniform_within_its_bound():
    parameters = tv.VAE(100, hidden=80, latent=20).parameters
    check_glorot(parameters["encoder.0.weight"].data, np.sqrt(6 / 180))
    check_glorot(parameters["encoder.1.weight"].data, np.sqrt(6 / 120))  # mu and logvar: 40 outputs
    assert all((t.data == 0).all() for t in parameters if t.ndim == 1)
    with pytest.raises(AssertionError):  # the bound of another layer
        check_glorot(parameters["encoder.1.weight"].data, np.sqrt(6 / 180))


def check_aevb(values):
    values = values.reshape(-1).astype(np.float64)
    likely("normal parameters", stats.kstest(values, stats.norm(0, 0.01).cdf).pvalue)
    likely_zero("their mean", values.mean(), 0.01 / np.sqrt(values.size))


def test_aevb_is_normal_with_standard_deviation_one_hundredth():
    parameters = tv.VAE(100, hidden=80, latent=20, init="aevb").parameters
    check_aevb(np.concatenate([t.data.reshape(-1) for t in parameters]))  # biases too
    with pytest.raises(AssertionError):  # N(0, 0.01) read as a variance
        check_aevb(10 * parameters["encoder.0.weight"].data)


def test_initial_values_are_their_noise():
    # the number of a parameter is its site: the same on every machine, and to the last digit
    glorot, aevb = (tv.VAE(9, 5, 2, init=init, seed=7).parameters for init in ("glorot", "aevb"))
    for site, (name, tensor) in enumerate(glorot.tensors.items()):
        shape, drawn = tensor.shape, noise.normal(7, "init", 0, site, tensor.shape, np.float32)
        assert_same_bits(aevb[name].data, np.float32(0.01) * drawn, name)
        if tensor.ndim == 2:
            bound, u = np.float32(np.sqrt(6 / sum(shape))), noise.uniform(7, "init", 0, site, shape, np.float32)
            assert_same_bits(tensor.data, bound * (2 * u - 1), name)


@pytest.mark.parametrize("init", ["glorot", "aevb"])
def test_initial_values_are_a_function_of_the_seed(init):
    def flat(seed):
        return tv.VAE(9, 5, 2, init=init, seed=seed).parameters.flat

    assert_same_bits(flat(3), flat(3))
    assert (flat(3) != flat(4)).mean() > 0.5
    parameters = tv.VAE(16, 16, 8, init=init).parameters  # two layers of one shape draw different numbers
    assert (parameters["encoder.0.weight"].data != parameters["encoder.1.weight"].data).all()


def test_the_decoders_bias_can_start_at_the_datas_mean():
    mean = np.array([0.0, 0.2, 0.5, 1.0])
    model = tv.VAE(4, 3, 2, data_mean=mean)
    bias = model.decoder.layers[-1].bias.data
    # away from 0 and 1, where the logit is infinite
    assert_close(special.expit(bias.astype(np.float64)).astype(np.float32), [0.001, 0.2, 0.5, 0.999], 4)
    grey = tv.VAE(4, 3, 2, likelihood="gaussian", data_mean=mean)
    assert_same_bits(grey.decoder.layers[-1].bias.data[:4], bias)
    assert (grey.decoder.layers[-1].bias.data[4:] == 0).all()  # the log-variances


def test_plain_arrays_go_in_and_out():
    model = tv.VAE(4, 3, 2, seed=1)
    x = np.random.default_rng(0).integers(0, 2, (6, 4))
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (6, 2)
    assert_same_bits(mu, model.q(Tensor(x.astype(np.float32))).mu.numpy())
    assert_same_bits(model.reconstruct(x), model.decode(mu))
    images = model.generate(7, seed=2)
    assert images.shape == (7, 4)
    assert ((images >= 0) & (images <= 1)).all()
    assert_same_bits(images, model.decode(Noise(2, "generate").normal((7, 2)).numpy()))
    assert (images != model.generate(7, seed=3)).any()
    with pytest.raises(ValueError, match=r"found x of shape \(6, 3\); this model takes \(batch, 4\)"):
        model.encode(x[:, :3])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "continuous-bernoulli"])
def test_a_decoder_that_starts_at_the_data_mean_has_that_mean(likelihood):
    """With weights of 0 the mean image is the data's, whatever the likelihood's parameter means."""
    mean = np.array([0.01, 0.1, 0.4999, 0.5, 0.75, 0.99])
    model = tv.VAE(6, 4, 2, likelihood=likelihood, dtype="float64", data_mean=mean)
    model.parameters["decoder.1.weight"].data[...] = 0
    assert np.abs(model.decode(np.zeros((1, 2)))[0] - mean).max() <= 1e-6
