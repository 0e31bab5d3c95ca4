"""Bayesian networks: the apple's probabilities by rational arithmetic, draws, the VAE as two nodes, `tv.infer`."""

import itertools
import math
from fractions import Fraction as F

import numpy as np
import pytest
from linear import linear_gaussian
from scipy.special import betaln
from scipy.stats import norm
from support import assert_same_bits, likely

import tinyvae as tv
from tinyvae.bayes.apple import decaying_apple
from tinyvae.distributions import Bernoulli, Beta, Categorical, Normal, kl

NO_YES = ("no", "yes")


# ---- the apple by hand: the same tables once more, as fractions ------------------------------------------------------

INJURY, SPORES = (F(4, 5), F(1, 5)), (F(3, 4), F(1, 4))
DECAYED = {(0, 0): F(1, 100), (0, 1): F(1, 10), (1, 0): F(1, 5), (1, 1): F(4, 5)}  # p(yes | injury, spores)
SPOTS = {(0, 0): F(1, 20), (0, 1): F(1, 2), (1, 0): F(7, 10), (1, 1): F(9, 10)}  # p(yes | decayed, injury)
SKIN = {0: (F(3, 5), F(3, 10), F(1, 10)), 1: (F(1, 10), F(3, 20), F(3, 4))}  # p(green, red, brown | decayed)
NAMES = ("injury", "spores", "decayed", "spots", "skin")
STATES = {name: NO_YES for name in NAMES} | {"skin": ("green", "red", "brown")}


def joint(i, s, d, p, c):
    """p(injury = i, spores = s, decayed = d, spots = p, skin = c), a fraction."""
    decayed, spots = DECAYED[i, s], SPOTS[d, i]
    return INJURY[i] * SPORES[s] * (decayed if d else 1 - decayed) * (spots if p else 1 - spots) * SKIN[d][c]


def by_hand(query, observed):
    """p(query | observed) and p(observed), fractions."""
    found = dict.fromkeys(STATES[query], F(0))
    for numbers in itertools.product(*(range(len(STATES[name])) for name in NAMES)):
        states = {name: STATES[name][n] for name, n in zip(NAMES, numbers, strict=True)}
        if all(states[name] == state for name, state in observed.items()):
            found[states[query]] += joint(*numbers)
    total = sum(found.values())
    return {state: p / total for state, p in found.items()}, total


def test_the_apple_by_hand():
    # p(decayed) = sum over injury and spores: .8 .75 .01 + .8 .25 .1 + .2 .75 .2 + .2 .25 .8
    assert by_hand("decayed", {})[0]["yes"] == F(6, 1000) + F(20, 1000) + F(30, 1000) + F(40, 1000) == F(12, 125)
    apple = decaying_apple()
    assert apple.posterior("decayed")["yes"] == pytest.approx(12 / 125, rel=1e-14)
    # a brown skin: 12/125 3/4 against 113/125 1/10
    assert apple.posterior("decayed", {"skin": "brown"})["yes"] == pytest.approx(180 / 406, rel=1e-13)


@pytest.mark.parametrize("observed", [
    {}, {"skin": "brown"}, {"skin": "brown", "spots": "yes"}, {"skin": "green", "spots": "yes"},
    {"decayed": "yes"}, {"decayed": "yes", "spores": "yes"}, {"injury": "no", "spots": "no", "skin": "red"}])
def test_enumeration_is_exact(observed):
    apple = decaying_apple()
    for query in set(NAMES) - set(observed):
        expected, evidence = by_hand(query, observed)
        found = apple.posterior(query, observed)
        assert list(found) == list(expected)
        for state, p in expected.items():
            assert found[state] == pytest.approx(float(p), rel=1e-12)
        assert apple.log_evidence(observed) == pytest.approx(math.log(evidence), abs=1e-13)


def test_one_cause_explains_the_other_away():
    """Injury and spores are independent; once the decay is seen, spores make an injury less probable."""
    apple = decaying_apple()
    assert apple.posterior("injury", {"spores": "yes"})["yes"] == pytest.approx(0.2, rel=1e-14)
    decay = apple.posterior("injury", {"decayed": "yes"})["yes"]
    both = apple.posterior("injury", {"decayed": "yes", "spores": "yes"})["yes"]
    assert decay == pytest.approx(float(F(70, 96)))
    assert both == pytest.approx(float(F(40, 60)))
    assert both < decay


def test_the_log_joint_of_every_state():
    apple = decaying_apple()
    for numbers in itertools.product(*(range(len(STATES[name])) for name in NAMES)):
        values = {name: STATES[name][n] for name, n in zip(NAMES, numbers, strict=True)}
        assert float(apple.log_joint(values).data) == pytest.approx(math.log(joint(*numbers)), rel=1e-13)


def test_draws_have_the_law_of_the_network_and_repeat():
    from scipy.stats import chisquare

    apple, count = decaying_apple(), 20_000
    drawn = apple.sample(tv.Noise(3, "apple"), count)
    for name, again in apple.sample(tv.Noise(3, "apple"), count).items():
        assert_same_bits(again.data, drawn[name].data, name)
    assert any((other.data != drawn[name].data).any() for name, other in apple.sample(tv.Noise(4), count).items())
    sizes = tuple(len(STATES[name]) for name in NAMES)
    places = np.ravel_multi_index([drawn[name].data.argmax(1) for name in NAMES], sizes)
    expected = np.array([float(joint(*numbers)) for numbers in np.ndindex(sizes)]) * count
    seen = np.bincount(places, minlength=math.prod(sizes))
    common = expected >= 5
    likely("all states", chisquare([*seen[common], seen[~common].sum()],
                                   [*expected[common], expected[~common].sum()]).pvalue)


def test_what_is_impossible_has_the_probability_0():
    sure = tv.BayesianNetwork({"a": tv.Node([1.0, 0.0]), "b": tv.Node([[0.5, 0.5], [0.0, 1.0]], ("a",))})
    assert sure.posterior("b") == {0: 0.5, 1: 0.5}
    assert sure.log_evidence({"a": 1}) == -math.inf
    assert sure.posterior("a", {"b": 0}) == {0: 1.0, 1: 0.0}
    with pytest.raises(ValueError, match="found a = 1, which has the probability 0; nothing can be concluded"):
        sure.posterior("b", {"a": 1})


# ---- nodes that are no tables ----------------------------------------------------------------------------------------


def test_a_mixture_has_the_posterior_of_its_component():
    """z is a table, x given z a normal distribution: Bayes' theorem with SciPy's densities."""
    means = tv.Tensor(np.array([[-2.0], [0.5], [3.0]]))
    mixture = tv.BayesianNetwork({"x": tv.Node(lambda z: Normal(z @ means, tv.Tensor([0.0])), ("z",)),
                                  "z": tv.Node([0.2, 0.5, 0.3])})  # in any order
    joint = np.array([0.2, 0.5, 0.3]) * norm.pdf(1.1, [-2.0, 0.5, 3.0])
    found = mixture.posterior("z", {"x": np.array([1.1])})
    np.testing.assert_allclose(list(found.values()), joint / joint.sum(), rtol=1e-13)
    assert mixture.log_evidence({"x": [1.1]}) == pytest.approx(math.log(joint.sum()), rel=1e-13)
    with pytest.raises(ValueError, match="found the hidden node x, which has no table of states; enumeration needs"):
        mixture.posterior("z")
    draws = mixture.sample(tv.Noise(0), 7)
    assert draws["z"].shape == (7, 3)
    assert draws["x"].shape == (7, 1)
    assert list(draws) == ["z", "x"]


def test_the_vae_is_its_two_node_case():
    """Its log joint is log p(z) + log p(x|z), to the bit, and its draws are the generator's."""
    model = tv.VAE(12, hidden=9, latent=3, seed=1)
    network = tv.BayesianNetwork({"z": tv.Node(model.prior), "x": tv.Node(model.likelihood, ("z",))})
    x = tv.Tensor(np.random.default_rng(0).integers(0, 2, (5, 12)).astype(np.float32))
    q = model.q(x)
    z, log_q = q.draw(tv.Noise(0), 4)
    found = network.log_joint({"z": z, "x": x})
    assert_same_bits(found.data, (model.prior.log_prob(z) + model.likelihood(z).log_prob(x)).data)
    weights = model.log_weights(tv.Batch(x), tv.Draw(tv.Noise(0)), 4)
    np.testing.assert_allclose((found - log_q).data, weights.data, rtol=1e-6)
    draws, noise = network.sample(tv.Noise(5), 6), tv.Noise(5)
    z = model.prior.sample(noise, 6)
    assert_same_bits(draws["z"].data, z.data)
    assert_same_bits(draws["x"].data, model.likelihood(z).sample(noise)[0].data)


def test_of_a_linear_gaussian_model():
    """log p(x, z) = log p(x) + log p(z|x), each known in closed form."""
    model, law, (slope, offset, covariance) = linear_gaussian(pixels=4, latent=2)
    network = tv.BayesianNetwork({"z": tv.Node(model.prior), "x": tv.Node(model.decoder, ("z",))})
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=4), rng.normal(size=(3, 2))
    found = network.log_joint({"z": tv.Tensor(z), "x": tv.Tensor(x)}).data
    for i in range(3):
        gap = z[i] - slope @ x - offset
        log_posterior = -0.5 * (np.linalg.slogdet(2 * math.pi * covariance)[1]
                                + gap @ np.linalg.solve(covariance, gap))
        assert found[i] == pytest.approx(law.log_density(x) + log_posterior, rel=1e-12)


# ---- inference by gradients ------------------------------------------------------------------------------------------


def test_infer_finds_the_exact_posterior_of_a_discrete_node():
    """A product of factors is not the posterior; of one hidden node it is, and the ELBO is log p(observed)."""
    apple, seen = decaying_apple(), {"injury": "no", "spores": "yes", "spots": "yes", "skin": "red"}
    found = tv.infer(apple.given(seen), {"decayed": tv.Factor(Categorical, (2,))}, samples=16, steps=600, lr=0.03,
                     baseline="leave-one-out")
    q, p = found.q["decayed"].mean.data, np.array(list(apple.posterior("decayed", seen).values()))
    gap = (q * np.log(q / p)).sum()
    print(f"q {q}, posterior {p}, KL {gap:.2g} nats")
    assert 0 <= gap < 0.005
    assert found.elbo[-100:].mean() == pytest.approx(apple.log_evidence(seen), abs=0.02)


def test_infer_takes_continuous_and_observed_nodes():
    """Tosses of a coin whose probability is Beta(2, 2): the posterior is conjugate."""
    coin = tv.BayesianNetwork({
        "p": tv.Node(Beta(tv.Tensor([2.0]), tv.Tensor([2.0]))),
        "x": tv.Node(lambda p: Bernoulli(p.log() - (1 - p).log()), ("p",))})
    x = np.array([1.0] * 7 + [0.0] * 3)
    found = tv.infer(coin.given({"x": x}), {"p": tv.Factor(Beta, (1,), start=np.array([6.0, 6.0]))}, "implicit", 4,
                     1000, lr=0.06)
    exact = Beta(tv.Tensor([9.0]), tv.Tensor([5.0]))
    assert float(kl(found.q["p"], exact).data) < 0.02
    assert found.elbo[-200:].mean() == pytest.approx(betaln(9, 5) - betaln(2, 2), abs=0.05)


def test_each_term_names_the_latents_that_it_contains():
    apple = decaying_apple()
    draws = apple.sample(tv.Noise(0), 5)
    terms = apple.given({"skin": "red", "decayed": "yes"})({n: draws[n] for n in ("injury", "spores", "spots")})
    assert [term.of for term in terms] == [("injury",), ("spores",), ("injury", "spores"), ("spots", "injury"), ()]
    values = draws | {"skin": "red", "decayed": "yes"}
    np.testing.assert_allclose(sum(term.value.data for term in terms), apple.log_joint(values).data, rtol=1e-14)


def test_a_term_sums_over_all_axes_but_the_samples():
    """Three rows of a latent, each with a datum of its own; and a node that depends on no latent counts once."""
    network = tv.BayesianNetwork({"z": tv.Node(Normal.standard(1, "float64")),
                                  "x": tv.Node(lambda z: Normal(z, tv.Tensor([0.0])), ("z",)),
                                  "y": tv.Node(Normal.standard(1, "float64"))})
    x, z = np.array([[0.5], [-1.0], [2.0]]), np.random.default_rng(0).normal(size=(4, 3, 1))
    terms = network.given({"x": x, "y": [0.3]})({"z": tv.Tensor(z)})
    assert {term.of: term.value.shape for term in terms} == {("z",): (4,), (): (4,)}
    expected = (norm.logpdf(z) + norm.logpdf(x, z)).sum((1, 2)) + norm.logpdf(0.3)
    np.testing.assert_allclose(sum(term.value.data for term in terms), expected, rtol=1e-13)


def test_gradients_flow_to_what_a_function_reads():
    weight = tv.Tensor(np.array([[0.7]]), requires_grad=True)
    network = tv.BayesianNetwork({"z": tv.Node(Normal.standard(1, "float64")),
                                  "x": tv.Node(lambda z: Normal(z @ weight, tv.Tensor([0.0])), ("z",))})
    z, x = np.array([[1.5]]), np.array([2.0])
    slope = tv.grad(network.log_joint({"z": z, "x": x}).sum(), weight)
    assert float(slope.data[0, 0]) == pytest.approx((2.0 - 0.7 * 1.5) * 1.5)


# ---- its picture -----------------------------------------------------------------------------------------------------


def test_its_picture_names_nodes_and_arrows():
    from xml.etree import ElementTree

    apple = decaying_apple()
    picture = ElementTree.fromstring(apple.svg(["skin"]))
    space = "{http://www.w3.org/2000/svg}"
    assert {text.text for text in picture.iter(f"{space}text")} == set(NAMES)
    assert len(list(picture.iter(f"{space}path"))) == 5
    fills = [ellipse.get("fill") for ellipse in picture.iter(f"{space}ellipse")]
    assert fills.count("white") == 4
    assert "decayed depends on injury and spores" in picture.find(f"{space}title").text
    places = {e.get("cy") for e in picture.iter(f"{space}ellipse")}
    assert len(places) == 3  # causes, decay, signs
    odd = tv.BayesianNetwork({"<&>": tv.Node([1.0])}).svg()
    assert [text.text for text in ElementTree.fromstring(odd).iter(f"{space}text")] == ["<&>"]
    assert repr(apple).startswith("BayesianNetwork(p(injury) p(spores) p(decayed | injury, spores) ")


# ---- mistakes --------------------------------------------------------------------------------------------------------

HALF = [0.5, 0.5]
TWO = [HALF, HALF]


@pytest.mark.parametrize(("nodes", "message"), [
    ({"a": tv.Node(TWO, ("b",)), "b": tv.Node(TWO, ("c",)), "c": tv.Node(TWO, ("a",)), "d": tv.Node(HALF)},
     "found the cycle a -> c -> b -> a; expected a graph without one: leave out one of these arrows"),
    ({"a": tv.Node(TWO, ("a",))}, "found the cycle a -> a; expected"),
    ({"a": tv.Node(TWO, ("z",)), "b": tv.Node(HALF)}, "found the parent of a 'z'; expected one of a, b"),
    ({"a": tv.Node(HALF), "b": tv.Node([HALF, [0.5, 0.4]], ("a",))},
     r"found the row \[0.5, 0.4\] at a = 1 in the table of b, with the sum 0.9; expected probabilities with the sum 1"),
    ({"a": tv.Node([1.5, -0.5])}, r"found the row \[1.5, -0.5\] in the table of a, with the sum 1; expected prob"),
    ({"a": tv.Node([math.nan, 1.0])}, r"found the row \[nan, 1.0\] in the table of a"),
    ({"a": tv.Node(HALF), "b": tv.Node([HALF] * 3, ("a",))},
     r"found a table of shape \(3, 2\) for b; expected \(2, 2\): an axis for the states of a and its own states"),
    ({"a": tv.Node(HALF, states=("no", "perhaps", "yes"))}, r"found a table of shape \(2,\) for a; expected \(3,\)"),
    ({"a": tv.Node(HALF, states=("no", "no"))}, "found the states no, no of a; expected a different name"),
    ({"a": tv.Node(0.5)}, r"found a table of shape \(\) for a; expected \(0,\)"),
    ({"z": tv.Node(Normal.standard(1)), "b": tv.Node(TWO, ("z",))},
     "found the parent z of b, which has no states, so b can have no table; expected a function")])  # fmt: skip
def test_a_network_is_checked(nodes, message):
    with pytest.raises(ValueError, match=message):
        tv.BayesianNetwork(nodes)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: tv.Node(HALF, "a"), r"found the parents 'a'; expected several names: \('a',\)"),
    (lambda: tv.Node("half"), "found 'half' as a conditional distribution; expected a table of probabilities, a distr"),
    (lambda: tv.Node(Normal.standard(1), ("a",)), "found a distribution for a node with the parents a; expected a fun"),
    (lambda: tv.Node(lambda: None, (), NO_YES), "found the states no, yes of a node without a table"),
    (lambda: tv.BayesianNetwork({"a": HALF}), r"found \[0.5, 0.5\] for 'a'; expected a node: tv.Node"),
    (lambda: tv.BayesianNetwork({}), "found {} in place of the nodes; expected them by name"),
    (lambda: tv.BayesianNetwork({"a": tv.Node(lambda: 3.0)}).sample(tv.Noise(0)),
     "found float from the function of a; expected a distribution")])  # fmt: skip
def test_a_node_is_checked(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(("use", "message"), [
    (lambda a: a.posterior("colour"), "found the query 'colour'; expected one of injury, spores, decayed, spots, skin"),
    (lambda a: a.posterior("skin", {"skins": "red"}), "found a node 'skins'; expected one of injury"),
    (lambda a: a.posterior("skin", {"spots": "many"}), "found the state 'many' of spots; expected one of no, yes"),
    (lambda a: a.posterior("skin", {"skin": "red"}), "found skin as the query and among the observed"),
    (lambda a: a.log_joint({"skin": "red"}), "found no value of injury, spores, decayed, spots; expected one of each"),
    (lambda a: a.log_joint({"skin": np.ones((2, 4))}), "found no value of injury"),
    (lambda a: a.conditional("decayed", {"injury": "no"}), "found no value of spores, a parent of decayed"),
    (lambda a: a.given(dict.fromkeys(NAMES[:4], "no") | {"skin": "red"}), "found a value of every node, which leaves"),
    (lambda a: a.svg(["peel"]), "found a node 'peel'; expected one of injury"),
    (lambda a: a.log_evidence({"skin": np.ones((2, 4))}), r"found a value of skin of shape \(2, 4\); expected"),
    (lambda a: a.log_evidence({"skin": np.eye(3)[[0, 1, 1]]}),
     r"found a value of skin of shape \(3, 3\); expected that of one datum"),
    (lambda a: a.sample(tv.Noise(0), 0), "found samples 0; expected a whole number, at least 1"),
    (lambda a: tv.infer(a.given({"skin": "red"}), {"decayed": tv.Factor(Categorical, (2,))}, steps=1),
     "found the latent 'injury' in the log joint; q has factors for decayed")])  # fmt: skip
def test_wrong_use_gets_a_sentence(use, message):
    with pytest.raises(ValueError, match=message):
        use(decaying_apple())


def test_more_states_than_can_be_summed_over():
    long = tv.BayesianNetwork({"a0": tv.Node(HALF), **{f"a{i}": tv.Node(TWO, (f"a{i - 1}",)) for i in range(1, 21)}})
    with pytest.raises(ValueError, match="found 2,097,152 joint states of 21 hidden nodes; expected at most 1,048,576"):
        long.posterior("a3")


def test_a_function_of_the_wrong_shape():
    network = tv.BayesianNetwork({"z": tv.Node(Normal.standard(2)),
                                  "x": tv.Node(lambda z: Normal.standard(2), ("z",))})
    with pytest.raises(ValueError, match=r"found draws of x of shape \(2,\); expected \(5, n\): its function has"):
        network.sample(tv.Noise(0), 5)
