"""Networks of several inputs: a weight matrix for each is the same network as one matrix for all, side by side."""

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.models import Model


class Pair(Model, kind="pair-of-networks"):
    """The same network twice: read side by side, and with a matrix for each input."""

    def build(self, pixels, other=3, hidden=7):
        self.joined = self.network("joined", pixels + other, hidden, Normal, 2, "tanh")
        self.apart = self.network("apart", (pixels, other), hidden, Normal, 2, "tanh")


def pair():
    model = Pair(5, dtype="float64")
    whole, (left, right) = model.joined.layers[0].weight.data, model.apart.layers[0].weights
    left.data[...], right.data[...] = whole[:5], whole[5:]
    for i in (0, 1):
        model.apart.layers[i].bias.data[...] = np.random.default_rng(i).standard_normal(7 if i == 0 else 4)
        model.joined.layers[i].bias.data[...] = model.apart.layers[i].bias.data
    model.apart.layers[1].weight.data[...] = model.joined.layers[1].weight.data
    return model


@pytest.mark.parametrize("lead", [(4,), (6, 1)], ids=["rows", "every-class-meets-every-row"])
def test_values_and_gradients_are_those_of_one_matrix(lead):
    model, rng = pair(), np.random.default_rng(0)
    x, y = rng.standard_normal((4, 5)), rng.standard_normal((*lead, 3))
    inputs = Tensor(x, requires_grad=True), Tensor(y, requires_grad=True)
    one, two = (network.raw(*inputs) for network in (model.joined, model.apart))
    np.testing.assert_allclose(two.numpy(), one.numpy(), rtol=0, atol=1e-14)
    left, right = model.apart.layers[0].weights
    whole, *others = grad((one * one).sum(), [model.joined.layers[0].weight, *inputs])
    by_left, by_right, *again = grad((two * two).sum(), [left, right, *inputs])
    np.testing.assert_allclose(np.vstack([by_left.numpy(), by_right.numpy()]), whole.numpy(), rtol=0, atol=1e-12)
    for a, b in zip(again, others, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-12)


def test_glorot_takes_the_inputs_of_a_layer_together():
    model = Pair(300, other=200, hidden=100)
    bound = np.sqrt(6 / (500 + 100))
    for weight in (*model.apart.layers[0].weights, model.joined.layers[0].weight):
        assert 0.99 * bound < np.abs(weight.data).max() <= bound
    assert np.abs(model.apart.layers[1].weight.data).max() <= np.sqrt(6 / 104)


def test_names_and_shapes():
    names = {name: t.shape for name, t in Pair(5).parameters.tensors.items() if name.startswith("apart")}
    assert names == {"apart.0.weight": (5, 7), "apart.0.weight.1": (3, 7), "apart.0.bias": (7,),
                     "apart.1.weight": (7, 4), "apart.1.bias": (4,)}  # fmt: skip


def test_another_number_of_inputs_is_refused():
    with pytest.raises(ValueError, match="found 1 input of the network apart; expected 2"):
        pair().apart(tv.Tensor(np.zeros((2, 8))))
