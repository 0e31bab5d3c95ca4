"""Every kind of flow: log-determinants against whole Jacobians, densities against NumPy, exact inverses, gradients."""

import numpy as np
import pytest
from scipy import stats
from support import likely_zero

import tinyvae as tv
from tinyvae.distributions.normal import Normal
from tinyvae.engine.tensor import Tensor, grad
from tinyvae.engine.testing import GradientError, check_gradients
from tinyvae.flows import FLOWS, Flow, FlowFamily
from tinyvae.flows.iaf import IafMap
from tinyvae.flows.planar import PlanarMap

INVERTIBLE = [name for name in FLOWS if name != "planar"]
LN_E_1 = np.log(np.e - 1)


def family_of(name, n=3, steps=3, hidden=7, seed=0, scale=0.7):
    """A kind of flow with random weights in float64, and those by name."""
    made, rng = FLOWS[name](steps, n, hidden), np.random.default_rng(seed)
    weights = {key: scale * rng.normal(size=shape) for key, shape in made.shapes("q").items()}
    made.attach({key: Tensor(value) for key, value in weights.items()}, "q")
    return made, weights


def raw_of(made, rows=2, seed=1, scale=0.7):
    return scale * np.random.default_rng(seed).normal(size=(rows, made.width(made.n)))


def flow_of(name, n=3, rows=2, **options):
    made, _ = family_of(name, n, **options)
    return made.from_raw(Tensor(raw_of(made, rows)))


def close(found, expected, rtol=1e-10, atol=1e-10):
    np.testing.assert_allclose(found, expected, rtol, atol, equal_nan=False)


# ---- log-determinants and inverses -----------------------------------------------------------------------------------


def jacobian(f, z):
    """df_i/dz_j of a vector function, (rows, n, n), by the engine's derivatives."""
    z = Tensor(z, requires_grad=True)
    y = f(z)
    return np.stack([grad(y[..., i].sum(), [z])[0].numpy() for i in range(y.shape[-1])], -2)[0]


def check_log_det(each, z):
    _, found = each.forward(Tensor(z))
    _, expected = np.linalg.slogdet(jacobian(lambda z: each.forward(z)[0], z))
    close(found.numpy()[0], expected)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_log_determinants(name, n):
    z = np.random.default_rng(2).normal(size=(1, 2, n))
    for each in flow_of(name, n).maps:
        check_log_det(each, z)


def test_a_wrong_log_determinant_is_found():
    class Wrong(IafMap):
        def forward(self, z):
            y, log_det = super().forward(z)
            return y, log_det + 1e-8 * z.sum(-1)

    each = flow_of("iaf").maps[0]
    z = np.random.default_rng(2).normal(size=(1, 2, 3))
    check_log_det(each, z)
    with pytest.raises(AssertionError):
        check_log_det(Wrong(*each), z)


@pytest.mark.parametrize("name", INVERTIBLE)
@pytest.mark.parametrize("n", [2, 5])
def test_the_inverse_gives_back_the_draw(name, n):
    q = flow_of(name, n)
    z_0 = np.random.default_rng(3).normal(size=(4, 2, n))
    for each in q.maps:
        y, forward = each.forward(Tensor(z_0))
        back, inverse = each.inverse(y)
        close(back.numpy(), z_0)
        close(inverse.numpy(), forward.numpy())
    z, log_q = q.draw(tv.Noise(0), 4)
    close(q.log_prob(z).numpy(), log_q.numpy())


def test_one_pass_does_not_invert_iaf():
    """So that the test above would notice an inverse with too few of them."""
    z = Tensor(np.random.default_rng(3).normal(size=(4, 2, 5)))
    each = flow_of("iaf", 5).maps[0]
    y = each.forward(z)[0]
    m, s = each.net(y, each.h).split(2)
    gate = (s + 2.0).sigmoid()
    once = (y - (1 - gate) * m) / (gate * (1 + np.exp(-2.0)))
    assert np.abs(once.numpy() - z.numpy()).max() > 1e-3


def test_a_planar_flow_knows_its_own_draws_alone():
    q = flow_of("planar")
    z, _ = q.draw(tv.Noise(0))
    with pytest.raises(ValueError, match=r"no inverse in closed form, .*stl and dreg do, .* or iaf"):
        q.log_prob(z)


# ---- densities -------------------------------------------------------------------------------------------------------


def planar_density(z, raw, gain, steps):
    """log q(z) of a planar flow in NumPy, whose maps are inverted by bisection along w."""
    n, total = z.shape[-1], 0.0
    for t in reversed(range(steps)):
        all_u, all_w, all_b = np.split(raw[2 * n :], [steps * n, 2 * steps * n])
        u, w, b = (each.reshape(steps, -1)[t] for each in (all_u, all_w, all_b))
        u = u * gain[t]
        u = u + (np.log1p(np.exp(w @ u + LN_E_1)) - 1 - w @ u) * w / (w @ w)
        low, high, target, slope = np.full(z.shape[:-1], -1e3), np.full(z.shape[:-1], 1e3), z @ w + b, w @ u
        for _ in range(80):  # a + (w . u) tanh(a) = w . z + b rises in a = w . y + b
            middle = (low + high) / 2
            above = middle + slope * np.tanh(middle) > target
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        z = z - u * np.tanh(middle)[..., None]
        total = total + np.log(abs(1 + slope * (1 - np.tanh(middle) ** 2)))
    mu, logvar = raw[:n], raw[n : 2 * n]
    return -0.5 * (np.log(2 * np.pi) + logvar + (z - mu) ** 2 * np.exp(-logvar)).sum(-1) - total


@pytest.mark.parametrize("steps", [1, 4])
def test_a_planar_density_is_that_of_its_inverse(steps):
    made, weights = family_of("planar", 3, steps)
    raw = raw_of(made)
    z, log_q = made.from_raw(Tensor(raw)).draw(tv.Noise(0), 50)
    for row in range(2):
        expected = planar_density(z.numpy()[:, row], raw[row], [weights[f"q.map{t}.gain"] for t in range(steps)], steps)
        close(log_q.numpy()[:, row], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_densities_integrate_to_one(name):
    """On a grid in two dimensions, with the mean of the draws."""
    made, weights = family_of(name, 2, 2, scale=0.5)
    raw = raw_of(made, 1)
    q = made.from_raw(Tensor(raw))
    side = np.linspace(-18, 18, 401)
    points = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 1, 2)
    if name == "planar":
        log_q = planar_density(points[:, 0], raw[0], [weights[f"q.map{t}.gain"] for t in range(2)], 2)
    else:
        log_q = q.log_prob(Tensor(points)).numpy()[:, 0]
    mass = np.exp(log_q) * (side[1] - side[0]) ** 2
    assert abs(mass.sum() - 1) < 1e-5  # the relu of a map's network gives the density kinks
    mean = mass @ points[:, 0]
    variance = mass @ (points[:, 0] - mean) ** 2
    drawn = q.draw(tv.Noise(5), 40_000)[0].numpy()[:, 0]
    for i in range(2):
        likely_zero(f"{name}: mean of z_{i}", drawn[:, i].mean() - mean[i], np.sqrt(variance[i] / len(drawn)))
        likely_zero(f"{name}: estimate of its mean", q.mean.numpy()[0, i] - mean[i], np.sqrt(variance[i] / 64))
        fourth = mass @ (points[:, 0, i] - mean[i]) ** 4
        likely_zero(f"{name}: estimate of its variance", q.variance.numpy()[0, i] - variance[i],
                    np.sqrt((fourth - variance[i] ** 2) / 32))
    prior = Normal(Tensor(np.array([0.3, -0.2])), Tensor(np.array([0.4, -0.3])))
    log_p = stats.norm([0.3, -0.2], np.exp([0.2, -0.15])).logpdf(points[:, 0]).sum(-1)
    exact = (mass * (log_q - log_p))[mass > 0].sum()
    many = made.from_raw(Tensor(np.tile(raw, (400, 1))))  # the same law in each row
    found = many.sample_with_kls(prior, tv.Noise(6), 10)[1].numpy()[:, 0]
    likely_zero(f"{name}: KL", found.mean() - exact, found.std() / np.sqrt(len(found)))


# ---- where they start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_begins_as_the_identity(name):
    """In a new model; and then the KL is that of z_0 in closed form, whatever is drawn."""
    model = tv.VAE(6, hidden=5, latent=4, posterior=name, flow_steps=3, dtype="float64")
    q = model.q(Tensor(np.random.default_rng(0).random((2, 6))))
    z_0 = np.random.default_rng(1).normal(size=(3, 2, 4))
    z, log_det = q.moved(Tensor(z_0))
    close(z.numpy(), z_0, rtol=1e-14)
    close(log_det.numpy(), 0, atol=1e-14)
    mu, variance = q.base.mean.numpy(), q.base.variance.numpy()
    closed = 0.5 * (mu**2 + variance - 1 - np.log(variance)).sum(-1, keepdims=True)
    for seed in range(2):
        close(q.sample_with_kls(model.prior, tv.Noise(seed), 2)[1].numpy(), closed, rtol=1e-12)


@pytest.mark.parametrize("name", FLOWS)
def test_a_unit_that_no_datum_moves_is_not_active(name):
    """The mean of 64 draws varies by a 64th of the prior's variance, which is more than the bound of an active unit;
    the center does not."""
    data = tv.data.load("digits")
    model = tv.VAE(64, hidden=5, latent=4, posterior=name, seed=3)
    for key, tensor in model.parameters.tensors.items():
        tensor.data[...] += 0.5 * np.random.default_rng(0).normal(size=tensor.shape) * ("map" in key)
    model.parameters["encoder.1.weight"].data[...] = 0.0  # q(z|x) is the same for every x
    assert tv.evaluate(model, data).active_units == 0
    model.parameters["encoder.1.weight"].data[:, 0] = 1.0  # mu_1 alone
    assert tv.evaluate(model, data).active_units >= 1


@pytest.mark.parametrize("name", FLOWS)
def test_the_center_is_the_mean_of_narrow_flows(name):
    made, _ = family_of(name)
    raw = raw_of(made)
    raw[:, 3:6] = -60.0  # log sigma^2 of z_0
    q = made.from_raw(Tensor(raw))
    close(q.center.numpy(), q.mean.numpy())


# ---- what depends on what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1])
def test_iaf_is_autoregressive(step):
    """m_i and s_i depend on the elements before the i-th one in the order of the step, on each of them, and on h."""
    made, _ = family_of("iaf", 5, 2, hidden=20)
    raw, z = raw_of(made, 1), np.random.default_rng(0).normal(size=(1, 1, 5))
    for which in range(2):
        each = made.from_raw(Tensor(raw)).maps[step]
        found = jacobian(lambda z, each=each, which=which: each.net(z, each.h).split(2)[which], z)[0]
        order = np.arange(5) if step == 0 else np.arange(5)[::-1]
        before = order[:, None] > order[None, :]
        assert (found[~before] == 0).all()
        assert (found[before] != 0).all()
        h = Tensor(raw[:, 10:], requires_grad=True)
        output = IafMap(each.net, h).net(Tensor(z), h).split(2)[which]
        assert all((grad(output[..., i].sum(), [h])[0].numpy() != 0).any() for i in range(5))


def test_a_coupling_leaves_one_half():
    q = flow_of("realnvp", 5)
    z = np.random.default_rng(0).normal(size=(3, 2, 5))
    for t, each in enumerate(q.maps):
        moved = (each.forward(Tensor(z))[0].numpy() != z).all((0, 1))
        assert (moved == (np.arange(5) % 2 == t % 2)).all()


# ---- gradients -------------------------------------------------------------------------------------------------------


def check(name):
    made, _ = family_of(name, steps=2, hidden=4)
    names = list(made.shapes("q"))
    weights = [made.parameters[each].numpy() for each in names]
    eps = np.random.default_rng(4).normal(size=(2, 1, 3))

    def f(raw, *given):
        made.attach(dict(zip(names, given, strict=True)), "q")
        q = made.from_raw(raw)
        z, log_det = q.moved(q.base.at(Tensor(eps)))
        return z.sum(-1) + log_det

    check_gradients(f, raw_of(made, 1), *weights)


@pytest.mark.parametrize("name", FLOWS)
def test_gradients(name):
    check(name)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_gradients_of_a_given_point(name):
    made, _ = family_of(name, steps=2, hidden=4)
    check_gradients(lambda raw, x: made.from_raw(raw).log_prob(x), raw_of(made, 1), np.ones((1, 1, 3)))


def test_a_wrong_gradient_is_found(monkeypatch):
    forward = PlanarMap.forward
    monkeypatch.setattr(PlanarMap, "forward", lambda self, z: forward(self._replace(b=self.b.detach()), z))
    with pytest.raises(GradientError):
        check("planar")


@pytest.mark.parametrize("name", INVERTIBLE)
def test_a_detached_flow_passes_a_gradient_to_z_alone(name):
    made, _ = family_of(name)
    raw, z = Tensor(raw_of(made), requires_grad=True), Tensor(np.ones((1, 2, 3)), requires_grad=True)
    fixed = made.from_raw(raw).map(Tensor.detach).log_prob(z).sum()
    assert (grad(fixed, [z])[0].numpy() != 0).all()
    assert not grad(fixed, [raw])[0].numpy().any()


# ---- as posteriors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOWS)
def test_the_bound_is_below_the_evidence(name):
    """A linear model with one pixel, whose log p(x) is known: x ~ N(w . z, 1), z ~ N(0, I)."""
    w, x = np.array([0.8, -0.5]), np.array([[1.3], [-0.4]])
    made, _ = family_of(name, 2, 2, scale=0.4)
    prior = Normal.standard(2, np.float64)
    joint = tv.Joint(prior, lambda z: Normal((z * Tensor(w)).sum(-1, keepdims=True), Tensor(np.zeros(1))))
    evidence = -0.5 * (np.log(2 * np.pi * (1 + w @ w)) + x[:, 0] ** 2 / (1 + w @ w))
    raw = raw_of(made, scale=0.3)
    raw[:, 2:4] += 0.5  # a wide z_0, so that no weight is large
    q = made.from_raw(Tensor(raw))
    bounds = tv.elbo(joint, lambda _: q, Tensor(x), tv.Noise(0), samples=20_000, bound="elbo-a").numpy()
    assert (bounds < evidence).all()
    z, log_q = q.draw(tv.Noise(1), 20_000)
    log_w = (joint.likelihood(z).log_prob(Tensor(x)) + prior.log_prob(z) - log_q).numpy()
    ratio = np.exp(log_w - evidence)  # its mean is 1
    for row in range(2):
        likely_zero(f"{name}: E[w] / p(x) - 1", ratio[:, row].mean() - 1, ratio[:, row].std() / np.sqrt(len(ratio)))


@pytest.mark.parametrize(("options", "words"), [
    ({"posterior": "normal", "flow_steps": 2}, "found flow_steps=2 with a normal posterior, which has no maps"),
    ({"posterior": "iaf", "flow_steps": -1}, "found flow_steps=-1; expected at least 1, or 0 for the 2 of iaf"),
    ({"posterior": "realnvp", "latent": 1}, "found latent=1 with a realnvp posterior, which needs at least 2")])
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        tv.VAE(9, hidden=6, **{"latent": 2} | options)


def test_a_flow_of_ones_own():
    """One that is registered is a choice of `posterior`, and its weights are trained."""
    from tinyvae.distributions.registry import POSTERIORS, PRIORS
    from tinyvae.flows import flow

    class Shift:
        def __init__(self, by):
            self.by = by

        def forward(self, z):
            return z + self.by, 0 * z.sum(-1)

        def inverse(self, z):
            return z - self.by, 0 * z.sum(-1)

        def map(self, f):
            return Shift(f(self.by))

    @flow("tests-shift")
    class ShiftFamily(FlowFamily):
        def read(self, n):
            return 0

        def weights(self):
            return {"by": (self.n,)}

        def of_step(self, t, read):
            return Shift(self.weight(t, "by"))

    try:
        model = tv.VAE(4, hidden=3, latent=2, posterior="tests-shift")
        assert isinstance(model.q(Tensor(np.ones((1, 4), np.float32))), Flow)
        data = tv.DataSet("made", np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8), (2, 2), 1.0, "static")
        tv.fit(model, data, epochs=1, batch=4, quiet=True)
        assert model.parameters["encoder.map1.by"].numpy().any()
    finally:
        for table in (FLOWS, POSTERIORS, PRIORS):
            del table["tests-shift"]
