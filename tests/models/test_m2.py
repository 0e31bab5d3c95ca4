"""M2 against a model whose every number is known: linear-Gaussian given the class, so p(x) is a mixture of normals.

    p(y) = 1/3,  p(z) = N(0, I),  p(x|y, z) = N(A z + m_y, diag(s^2)):    p(x|y) = N(m_y, C),  C = A A^T + diag(s^2)

The columns of A are orthogonal under 1/s^2, so p(z|x, y) has a diagonal covariance, and p(y|x) is a softmax of linear
functions of x, since C is common: both can be said exactly by networks without a hidden layer.
"""

import os
import signal

import numpy as np
import pytest
from scipy import special, stats
from support import likely_zero

import tests.oracles as oracles
import tinyvae as tv
from tinyvae.distributions import Normal
from tinyvae.engine.program import Tape
from tinyvae.inference.bounds import Draw
from tinyvae.models import Batch
from tinyvae.models.m2 import M2
from tinyvae.runs import CheckpointError, Interrupted, checkpoint
from tinyvae.training.batches import STEP
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

PIXELS, CLASSES, LATENT = 4, 3, 2
ROWS = np.random.default_rng(5).standard_normal((6, PIXELS))
LABELS = np.eye(CLASSES)[[0, 1, 2, 2, 1, 0]]


def put(network, by_inputs, bias):
    """Give a network of one layer these weights, one matrix for each input, and this bias."""
    for weight, values in zip(network.layers[0].weights, by_inputs, strict=True):
        weight.data[...] = values
    network.layers[0].bias.data[...] = bias


class Exact:
    """The model by plain NumPy; `model` is an M2 with the same p, and with the exact q or a wrong one."""

    def __init__(self, wrong=0.0):
        rng = np.random.default_rng(1)
        self.s2 = rng.uniform(0.3, 1.5, PIXELS)
        directions = np.linalg.qr(rng.standard_normal((PIXELS, LATENT)))[0] * (1.5, 0.7)
        self.a = np.sqrt(self.s2)[:, None] * directions
        self.m = rng.standard_normal((CLASSES, PIXELS))
        self.c = self.a @ self.a.T + np.diag(self.s2)
        s = np.linalg.inv(np.eye(LATENT) + (self.a.T / self.s2) @ self.a)  # of p(z|x, y)
        assert np.allclose(s, np.diag(np.diag(s)))
        gain, linear = s @ (self.a.T / self.s2), np.linalg.solve(self.c, self.m.T)
        error = wrong * np.random.default_rng(2).standard_normal(100)
        self.gain, self.v = gain + error[:8].reshape(LATENT, PIXELS), np.diag(s) * np.exp(error[8:10])
        self.linear, self.offset = linear + error[10:22].reshape(PIXELS, CLASSES), -0.5 * np.sum(self.m.T * linear, 0)
        self.model = M2(PIXELS, classes=CLASSES, hidden=(), latent=LATENT, likelihood="gaussian", dtype="float64")
        self.model.p_x.family = Normal  # of mean and logvar, where that of grey pixels squeezes the mean
        zero = np.zeros
        put(self.model.p_x, [np.hstack([self.a.T, zero((LATENT, PIXELS))]), np.hstack([self.m, zero(self.m.shape)])],
            np.append(zero(PIXELS), np.log(self.s2)))
        put(self.model.q_z, [np.hstack([self.gain.T, zero((PIXELS, LATENT))]),
                             np.hstack([-self.m @ self.gain.T, zero((CLASSES, LATENT))])],
            np.append(zero(LATENT), np.log(self.v)))  # fmt: skip
        put(self.model.q_y, [self.linear], self.offset)

    # ---- closed forms, each (rows, classes) or (rows,) ---------------------------------------------------------------

    def log_joint(self, x):
        """log p(x, y) of every class."""
        return np.stack([stats.multivariate_normal(m, self.c).logpdf(x) for m in self.m], 1) - np.log(CLASSES)

    def bound(self, x):
        """-L(x, y) of every class, for this q."""
        found = []
        for m in self.m:
            mu = (x - m) @ self.gain.T
            rest = x - mu @ self.a.T - m
            spread = (self.a**2 @ self.v) / self.s2
            reconstruction = -0.5 * (np.log(2 * np.pi * self.s2) + rest**2 / self.s2 + spread).sum(1)
            found.append(reconstruction - 0.5 * (mu**2 + self.v - 1 - np.log(self.v)).sum(1) - np.log(CLASSES))
        return np.stack(found, 1)

    def q_y(self, x):
        return special.softmax(x @ self.linear + self.offset, 1)

    def unlabelled(self, x):
        q = self.q_y(x)
        return (q * (self.bound(x) - np.log(q))).sum(1)


def by_nodes(bound="elbo-b"):
    """A draw whose average is the exact expectation of a quadratic function of z."""
    nodes = oracles.Nodes(LATENT)
    return Draw(nodes, samples=nodes.samples, bound=bound)


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


def test_with_the_exact_posterior_every_bound_is_the_evidence():
    exact, x = Exact(), tv.Tensor(ROWS)
    model, joint = exact.model, exact.log_joint(ROWS)
    evidence = special.logsumexp(joint, 1)
    for draw in (by_nodes(), by_nodes("elbo-a"), Draw(tv.Noise(0), "elbo-a")):
        close(model.given(x, model.every, draw), joint.T)
        close(model.unlabelled(x, draw), evidence)
        close(model.given(x, tv.Tensor(LABELS), draw), joint[LABELS == 1])
    close(model.classify(Batch(x)), np.exp(joint - evidence[:, None]))
    weights = model.class_weights(x, Draw(tv.Noise(0)), 2)
    close(weights, np.broadcast_to(joint.T, (2, CLASSES, len(ROWS))))
    close(model.log_weights(Batch(x), Draw(tv.Noise(0)), 2), np.broadcast_to(evidence, (2, len(ROWS))))


@pytest.mark.parametrize("bound", ["elbo-a", "elbo-b"])
def test_with_a_wrong_posterior_the_bounds_are_their_closed_forms_and_lie_below(bound):
    exact, x = Exact(wrong=0.3), tv.Tensor(ROWS)
    joint = exact.log_joint(ROWS)
    close(exact.model.given(x, exact.model.every, by_nodes(bound)), exact.bound(ROWS).T)
    close(exact.model.given(x, tv.Tensor(LABELS), by_nodes(bound)), exact.bound(ROWS)[LABELS == 1])
    close(exact.model.unlabelled(x, by_nodes(bound)), exact.unlabelled(ROWS))
    close(exact.model.classify(Batch(x)), exact.q_y(ROWS))
    assert (exact.bound(ROWS) < joint - 1e-3).all()
    assert (exact.unlabelled(ROWS) < special.logsumexp(joint, 1) - 1e-3).all()


def test_draws_for_every_class_estimate_p_of_x_and_y():
    exact, samples = Exact(wrong=0.2), 20_000
    weights = exact.model.class_weights(tv.Tensor(ROWS[:2]), Draw(tv.Noise(3)), samples).numpy()
    ratio = np.exp(weights - exact.log_joint(ROWS[:2]).T) - 1
    for label in range(CLASSES):
        each = ratio[:, label].mean(1)
        likely_zero(f"E[w] / p(x, {label}) - 1", each.mean(), each.std() / np.sqrt(samples))


def test_the_objective_is_the_papers_sum_per_datum():
    """mean over all of -U + M/N mean over labelled of -L + alpha mean over labelled of log q(y|x); elbo is -U alone."""
    exact = Exact(wrong=0.3)
    exact.model.weights = {"classifier": 0.7}
    seen = Batch(tv.Tensor(ROWS), tv.Tensor(LABELS), available=30)
    batch = Batch(tv.Tensor(ROWS[:4]), labelled=seen, available=120)
    terms = exact.model.terms(batch, by_nodes())
    close(terms.reported["labelled"], exact.bound(ROWS)[LABELS == 1])
    close(terms["labelled"], 0.25 * exact.bound(ROWS)[LABELS == 1])
    close(terms["classifier"], np.log(exact.q_y(ROWS)[LABELS == 1]))
    assert exact.model.bound_of({name: term.numpy().mean() for name, term in terms.items()}) == pytest.approx(
        exact.unlabelled(ROWS[:4]).mean(), abs=1e-10)


def test_analogies_keep_the_style_and_change_the_class():
    exact = Exact()
    found = exact.model.restyled(tv.Tensor(ROWS), tv.Tensor(LABELS)).numpy()
    style = (ROWS - LABELS @ exact.m) @ exact.gain.T
    np.testing.assert_allclose(found, (style @ exact.a.T)[None] + exact.m[:, None], rtol=0, atol=1e-10)


# ---- the cost --------------------------------------------------------------------------------------------------------


def test_the_first_products_are_computed_once_for_all_classes():
    model, x = M2(PIXELS, classes=CLASSES, hidden=5, latent=LATENT), tv.Tensor(np.float32(ROWS > 0))
    with Tape() as tape:
        model.unlabelled(x, Draw(tv.Noise(0)))
    rows = [launch.inputs[0].shape for launch in tape.launches
            if "matmul" in launch.rule.name and launch.inputs[0].shape[-1] == PIXELS]
    assert rows == [(len(ROWS), PIXELS)] * 2  # that of q(y|x), and that of q(z|x, y), not one a class


@pytest.mark.parametrize(("logit", "counts"), [(-60.0, False), (-40.0, True)])
def test_a_class_that_is_ruled_out_passes_no_gradient_of_subnormal_numbers(logit, counts):
    model, x = M2(PIXELS, classes=CLASSES, hidden=5, latent=LATENT), tv.Tensor(np.float32(ROWS > 0))
    head = model.q_y.layers[-1]
    head.weights[0].data[...], head.bias.data[...] = 0, (0, logit, 0)
    bounds, q = model.given(x, model.every, Draw(tv.Noise(0))).data, special.softmax([0, logit, 0])
    found = model.unlabelled(x, Draw(tv.Noise(0)))
    np.testing.assert_allclose(found.data, q @ bounds - q @ np.log(q), rtol=1e-6)
    of_class = tv.grad(found.sum(), model.p_x.layers[0].weights[1]).data  # (classes, hidden)
    assert of_class[[0, 2]].any(1).all()
    assert of_class[1].any() == counts  # exp(-40)^2 is a normal number of float32, and exp(-60)^2 is not


# ---- training --------------------------------------------------------------------------------------------------------


def few(count=80, labels=16):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    rows = (rng.random((count, 6)) < np.where(y[:, None] == 1, 0.8, 0.2) * np.ones(6)).astype(np.uint8)
    known = np.where(np.arange(count) < labels, y, -1)
    return tv.DataSet("made", rows, rows[:20], (2, 3), 1.0, "static", "bernoulli", known, y[:20])


def small(**more):
    return M2(6, **({"classes": 2, "hidden": 8, "latent": 3} | more))


@pytest.mark.parametrize(("posterior", "estimator", "bound"), [
    ("normal", "reparam", "elbo-a"), ("normal", "score", "elbo-b"), ("full-normal", "reparam", "elbo-b"),
    ("gamma", "grep", "elbo-b"), ("dirichlet", "score", "elbo-a")])
def test_other_posteriors_and_estimators_train(posterior, estimator, bound):
    records = tv.fit(small(posterior=posterior), few(), epochs=10, batch=20, lr=1e-2, estimator=estimator, bound=bound,
                     quiet=True)
    assert records[-1]["train_objective"] > records[0]["train_objective"]
    assert records[-1]["test_accuracy"] > 0.8


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"free_bits": 0.1}, "found free_bits=0.1, which belong to one q.* with an m2, which has one q"),
    ({"bound": "iwae", "importance_samples": 3}, "found bound=iwae, whose weights belong to one q.* with an m2"),
    ({"beta": 2.0}, "found beta=2 with an m2, none of whose terms is a kl"),
    ({"warmup": 2.0}, "found warmup=2 with an m2, none of whose terms is a kl")])  # fmt: skip
def test_settings_that_make_no_sense_get_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Training(small(), few(), Settings(**settings))


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["m2", "shot", "m1m2"])
def test_a_weight_that_lowers_the_labels_is_none(kind, alpha):
    with pytest.raises(ValueError, match=f"found alpha={alpha}; expected a finite number of at least 0"):
        tv.models.model_for(kind, few(), alpha=alpha)


def test_one_class_is_none():
    with pytest.raises(ValueError, match="found 1 class with an m2; expected data whose labels have at least 2"):
        small(classes=1)


@pytest.mark.parametrize("kind", ["stopped", "killed"])
def test_labelled_batches_go_on_with_their_bits_in_the_middle_of_an_epoch(kind, tmp_path):
    """16 labels in batches of 6 begin again within an epoch of 4 steps, so they have a place of their own."""
    settings = {"epochs": 4, "batch": 22, "labelled_batch": 6, "seed": 3, "quiet": True}
    whole = tv.fit(small(), few(), out=tmp_path / "whole", **settings)

    def end(training, done):
        if training.now(STEP) == 6:  # of 4 an epoch
            if kind == "killed":  # what a kill leaves on the disk: the state after the first epoch
                raise SystemExit
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit if kind == "killed" else Interrupted):
        tv.fit(small(), few(), out=tmp_path / "run", on_step=end, **settings)
    records = tv.resume(tmp_path / "run", data=few(), quiet=True)
    assert [r["fingerprint"] for r in records] == [r["fingerprint"] for r in whole]
    for file in ("last.safetensors", "best.safetensors", "metrics.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_pixels_of_labelled_rows_are_drawn_apart():
    """The first row of both batches is a datum of grey pixels: equal draws would be the same noise, used twice."""
    grey = np.full((40, 64), 128, np.uint8)
    labels = np.arange(40) % 2
    data = tv.DataSet("grey", grey, grey[:4], (8, 8), 255.0, "dynamic", "bernoulli", labels, labels[:4])
    training = Training(M2(64, classes=2, hidden=3, latent=2), data, Settings(batch=20))
    training.begin_epoch()
    batch, _ = training.batches.next(20)
    same = (batch.x.numpy() == batch.labelled.x.numpy()).mean()
    assert 0.4 < same < 0.6  # 1,280 pairs of fair coins


def test_labelled_batches_that_began_anew_would_be_seen():
    """The comparison above notices a resumed run whose labelled rows begin at the head of their order."""
    runs = []
    for forget in (False, True):
        training = Training(small(), few(), Settings(epochs=4, batch=22, labelled_batch=6, seed=3))
        training.begin_epoch()
        for step in range(4):
            if forget and step == 2:
                training.batches.labelled_counters[:] = 0
            training.step()
        runs.append(training.model.parameters.flat.copy())
    assert (runs[0] != runs[1]).any()


def test_a_place_among_the_labelled_rows_that_does_not_exist_is_refused(tmp_path):
    tv.fit(small(), few(), out=tmp_path / "run", epochs=1, batch=20, quiet=True)
    arrays, meta = checkpoint.load(tmp_path / "run" / "last.safetensors")
    arrays["training.labelled_counters"] += 1
    checkpoint.save(tmp_path / "run" / "last.safetensors", arrays, meta)
    with pytest.raises(CheckpointError, match="which is no place in a training"):
        tv.resume(tmp_path / "run", data=few(), epochs=2, quiet=True)
