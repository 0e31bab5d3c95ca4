"""The contract: models of one file each train, resume to the same bits and are judged; no other file is edited."""

import copy
import dataclasses
import pickle
from typing import ClassVar

import numpy as np
import pytest
from support import assert_same_bits

import tinyvae as tv
from tinyvae.distributions import posteriors
from tinyvae.inference.bounds import Draw, Terms
from tinyvae.models import MODELS, Batch, Model, Phase, build_model, model_for
from tinyvae.models.batch import rows_of
from tinyvae.models.classifier import Classifier
from tinyvae.models.m2 import M2
from tinyvae.nn.network import Network
from tinyvae.runs import checkpoint
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings


def digits(labels=None):
    """The digits; with `labels`, only so many training labels are known."""
    data = tv.data.load("digits")
    if labels is None:
        return data
    known = data.train_labels.copy()
    known[labels:] = -1
    return dataclasses.replace(data, train_labels=known)


def cvae(given="label"):
    return model_for("cvae", digits(), given=given, hidden=50, latent=5)


CASES = {"cvae": (cvae, digits),
         "net": (lambda: model_for("net", digits(), given="quadrants:2", hidden=50), digits),
         "m2": (lambda: M2(64, hidden=50, latent=5), lambda: digits(100)),
         "vae": (lambda: tv.VAE(64, 50, 5), digits)}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_a_model_trains_resumes_and_is_judged(kind, tmp_path):
    make, data = CASES[kind][0], CASES[kind][1]()
    whole = tv.fit(make(), data, out=tmp_path / "whole", epochs=4, seed=3)
    assert whole[-1]["train_elbo"] > whole[0]["train_elbo"] + 1  # nats per datum
    tv.fit(make(), data, out=tmp_path / "run", epochs=2, seed=3)
    records = tv.resume(tmp_path / "run", data=data, epochs=4)
    assert [r["fingerprint"] for r in records] == [r["fingerprint"] for r in whole]
    loaded = tv.load(tmp_path / "run")
    assert type(loaded) is MODELS[kind]
    best = max(records, key=lambda r: r["train_elbo"])
    judged = tv.evaluate(loaded, data)
    assert judged.elbo == pytest.approx(best["test_elbo"], abs=1e-9)
    assert judged.elbo_stderr > 0


def test_a_label_helps_the_conditional_model():
    """Given the label, fewer nats are left to say: its bound on log p(x|y) is above the VAE's on log p(x)."""
    bounds = {}
    for kind in ("vae", "cvae"):
        model = CASES[kind][0]()
        tv.fit(model, digits(), epochs=10)
        bounds[kind] = tv.evaluate(model, digits(), importance_samples=50).log_evidence
    assert bounds["cvae"] > bounds["vae"] + 0.5


def test_m2_classifies_better_with_unlabelled_data():
    data = digits(100)
    model = M2(64, hidden=50, latent=5)
    tv.fit(model, data, epochs=30)
    x = tv.Tensor((data.test / data.scale).astype(np.float32))
    found = (model.q_y(x).mean.numpy().argmax(1) == data.test_labels).mean()
    assert found > 0.7


def test_the_terms_of_m2_go_by_name():
    training = Training(M2(64, hidden=50, latent=5), digits(100), Settings(epochs=1, batch=100))
    for _ in training.steps():
        pass
    record = training.end_epoch()
    unlabelled, labelled, classifier = (record[f"train_{name}"] for name in ("unlabelled", "labelled", "classifier"))
    assert record["train_elbo"] == unlabelled  # the bound on log p(x) alone, as that of the test data
    expected = unlabelled + 100 / 1497 * labelled + classifier
    # the last step has 97 data, and its labelled rows count as much as theirs
    assert record["train_objective"] == pytest.approx(expected, abs=1e-3)
    assert record["test_kl"] is None
    assert record["test_unlabelled"] == pytest.approx(record["test_elbo"], abs=1e-9)


def test_the_weight_of_a_term_is_that_of_its_name():
    """With the weight alpha on the classifier, the gradient moves by alpha times the classifier's own."""
    def gradient(alpha):
        training = Training(M2(64, hidden=50, latent=5, alpha=alpha, dtype="float64"), digits(100), Settings(batch=50))
        training.begin_epoch()
        training.step_now().loss(50)
        return training.model.parameters.gradient.copy()

    none, one, three = (gradient(alpha) for alpha in (0.0, 1.0, 3.0))
    np.testing.assert_allclose(three - none, 3 * (one - none), rtol=1e-9, atol=1e-12)
    assert np.abs(one - none).max() > 1e-3


# ---- phases ----------------------------------------------------------------------------------------------------------


class InTurn(tv.VAE, kind="in-turn"):
    """Encoder and decoder are trained in turn, step by step."""

    def phases(self):
        return (Phase("encoder", self.terms, ("encoder",)), Phase("decoder", self.terms, ("decoder",)))


class OneAfterTheOther(tv.VAE, kind="one-after-the-other"):
    """Two epochs of the encoder, then the decoder."""

    def phases(self):
        return (Phase("encoder", self.terms, ("encoder",), epochs=2), Phase("decoder", self.terms, ("decoder",)))


@pytest.mark.filterwarnings("ignore:found epochs=:RuntimeWarning")  # the run ends before its last phase, and goes on
@pytest.mark.parametrize("family", [InTurn, OneAfterTheOther])
def test_phases_resume_to_the_same_bits(family, tmp_path):
    whole = tv.fit(family(64, 20, 3), digits(), epochs=4)
    tv.fit(family(64, 20, 3), digits(), out=tmp_path / "run", epochs=1)
    for epochs in (2, 3, 4):
        records = tv.resume(tmp_path / "run", data=digits(), epochs=epochs)
    assert [r["fingerprint"] for r in records] == [r["fingerprint"] for r in whole]


def test_a_phase_changes_its_own_parameters_alone():
    training = Training(OneAfterTheOther(64, 20, 3), digits(), Settings(epochs=3))
    parameters = training.model.parameters

    def trained():
        before = {name: tensor.data.copy() for name, tensor in parameters.tensors.items()}
        for _ in training.steps():
            pass
        training.end_epoch()
        return {name.split(".")[0] for name, t in parameters.tensors.items() if (t.data != before[name]).any()}

    assert [trained() for _ in range(3)] == [{"encoder"}, {"encoder"}, {"decoder"}]


def test_phases_that_take_turns_each_step():
    training = Training(InTurn(64, 20, 3), digits(), Settings(epochs=1))
    training.begin_epoch()
    parameters, changed = training.model.parameters, []
    for _ in range(8):  # recorded, compared and replayed
        before = {name: tensor.data.copy() for name, tensor in parameters.tensors.items()}
        training.step()
        changed.append({name.split(".")[0] for name, t in parameters.tensors.items() if (t.data != before[name]).any()})
    assert changed == [{"encoder"}, {"decoder"}] * 4


def test_the_best_epoch_is_chosen_within_the_last_phase(tmp_path):
    """Another phase raises other terms; its parameters must not be lost because an earlier phase scored higher."""
    class Half(tv.VAE, kind="half"):
        def phases(self):
            return (Phase("bound", self.terms, ("encoder",), epochs=2), Phase("half", self.smaller, ("decoder",)))

        def smaller(self, batch, draw):
            return Terms(half=2.0 * self.terms(batch, draw)["reconstruction"])

    try:
        records = tv.fit(Half(64, 20, 3), digits(), out=tmp_path / "run", epochs=4)
        assert max(records, key=lambda r: r["train_elbo"])["epoch"] <= 2
        assert checkpoint.load(tmp_path / "run" / "best.safetensors")[1]["record"]["epoch"] > 2
    finally:
        del MODELS["half"]


def test_phases_have_names_of_their_own():
    class Twice(tv.VAE, kind="twice"):
        def phases(self):
            return (Phase("a", self.terms, ("encoder",)), Phase("a", self.terms, ("decoder",)))

    with pytest.raises(ValueError, match="found phases 'a', 'a' of a twice; expected a different name for each"):
        Training(Twice(64, 20, 3), digits(), Settings())


# ---- terms of one's own ----------------------------------------------------------------------------------------------


class WithNorm(tv.VAE, kind="with-norm"):
    """The bound, and one more term: how far the posterior's mean is from 0."""

    weights: ClassVar = {"kl": -1.0, "norm": -0.1}

    def terms(self, batch, draw):
        mean = self.q(batch.x).mean
        return super().terms(batch, draw) | Terms(norm=(mean * mean).sum(-1))


@pytest.mark.parametrize("settings", [{}, {"free_bits": 0.1}, {"bound": "iwae", "importance_samples": 3}])
def test_a_term_of_ones_own_beside_those_of_any_bound(settings):
    records = tv.fit(WithNorm(64, 20, 3), digits(), epochs=2, quiet=True, **settings)
    assert records[-1]["train_norm"] > 0
    assert records[-1]["train_kl"] > 0
    assert ("train_bound" in records[-1]) == ("bound" in settings)


def test_terms_put_together():
    a, b, shown = (tv.Tensor(np.full(3, float(i))) for i in range(3))
    charged = Terms({"kl": shown}, kl=a)
    both = charged | Terms(own=b)
    assert (dict(both), both.reported) == ({"kl": a, "own": b}, {"kl": shown, "own": b})
    assert (dict(charged), charged.reported) == ({"kl": a}, {"kl": shown})
    charged |= {"own": b}
    assert charged.reported == {"kl": shown, "own": b}


@pytest.mark.parametrize(("made", "sentence"), [
    (lambda t: dict(t), "found dict from the terms of a faulty; expected tv.Terms"),
    (lambda t: t | Terms(own=1.0), "found a term 'own' of type float from a faulty; expected a tensor")])  # fmt: skip
def test_terms_that_are_none_get_a_sentence(made, sentence):
    class Faulty(tv.VAE, kind="faulty"):
        def terms(self, batch, draw):
            return made(super().terms(batch, draw))

    try:
        with pytest.raises(TypeError, match=sentence):
            Training(Faulty(64, 5, 2), digits(), Settings())
    finally:
        del MODELS["faulty"]


# ---- wrong use -------------------------------------------------------------------------------------------------------


def test_a_model_without_labels_gets_a_sentence():
    data = dataclasses.replace(digits(), train_labels=None)
    with pytest.raises(ValueError, match="m2 learns from labels, and digits-dynamic has none"):
        Training(M2(64, hidden=50, latent=5), data, Settings())
    with pytest.raises(ValueError, match="cvae needs labels for each datum, and the train data of digits-dynamic "
                                         "have none: take the labels from a file of their own, --labels-from FILE, or"):
        Training(cvae(), data, Settings())


def test_a_method_that_the_model_does_not_have_gets_a_sentence():
    with pytest.raises(ValueError, match=r"found importance_samples=5 \(-k\) for a classifier, which has no"):
        tv.evaluate(Classifier(64, hidden=50), digits(), importance_samples=5)


def test_a_term_of_a_wrong_shape_is_found_before_training():
    class Wide(tv.VAE, kind="wide"):
        def terms(self, batch, draw):
            return Terms(wide=self.likelihood(self.q(batch.x).sample(draw.noise)).mean)

    with pytest.raises(ValueError, match=r"found a term 'wide' of shape \(1, 2, 64\) from a wide"):
        Training(Wide(64, 5, 2), digits(), Settings())


def test_a_kind_that_is_not_registered_gets_a_sentence():
    with pytest.raises(ValueError, match=r"kind 'novel'.*--use FILE"):
        build_model({"kind": "novel", "pixels": 4})


def test_networks_that_do_not_lie_side_by_side_are_no_phase():
    model = M2(64, hidden=50, latent=5)
    with pytest.raises(ValueError, match="do not lie side by side"):
        model.parameters.among(("q_y", "p_x"))
    with pytest.raises(ValueError, match="no network nowhere"):
        model.parameters.among(("nowhere",))


def test_a_configuration_builds_the_same_model():
    for make, _ in CASES.values():
        model = make()
        again = build_model(model.config)
        assert_same_bits(again.parameters.flat, model.parameters.flat)
        assert again.config == model.config


def test_a_model_without_build_gets_a_sentence():
    class Empty(Model):
        pass

    with pytest.raises(TypeError, match="Empty has no build"):
        Empty(4)


def test_the_default_terms_are_those_of_the_bound():
    model, batch_of = tv.VAE(64, 20, 3), tv.models.Batch
    x = tv.Tensor(np.zeros((5, 64), np.float32))
    terms = model.terms(batch_of(x), Draw(tv.Noise(0)))
    assert tuple(terms) == ("reconstruction", "kl")
    expected = tv.elbo(model, model.q, x, tv.Noise(0)).numpy()
    assert_same_bits(terms["reconstruction"].numpy() - terms["kl"].numpy(), expected)


# ---- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("posterior", posteriors())
def test_a_copy_is_a_model_of_its_own(posterior, make):
    """Its parameters are views of its own vector; it judges the same, and trains with the same bits."""
    rows = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(np.uint8)
    data = tv.DataSet("made", rows[:30], rows[30:], (2, 3), 1.0, "static")
    model = tv.VAE(6, hidden=4, latent=2, posterior=posterior)
    tv.fit(model, data, epochs=1, batch=20, quiet=True)
    before, twin = model.parameters.flat.copy(), make(model)
    assert not np.shares_memory(twin.parameters.flat, model.parameters.flat)
    assert twin.encoder.layers[0].weight is twin.parameters["encoder.0.weight"]
    for name, tensor in twin.parameters.tensors.items():
        assert np.shares_memory(tensor.data, twin.parameters.flat), name
        assert np.array_equal(tensor.data, model.parameters[name].data)
        assert (tensor.name, tensor.requires_grad) == (name, True)
    assert tv.evaluate(twin, data) == tv.evaluate(model, data)
    found = tv.fit(twin, data, epochs=1, batch=20, seed=3, quiet=True)
    assert np.array_equal(model.parameters.flat, before)
    assert found == tv.fit(model, data, epochs=1, batch=20, seed=3, quiet=True)


# ---- counts ----------------------------------------------------------------------------------------------------------

COUNTS = np.random.default_rng(0).poisson(30.0, (12, 5)).astype(np.float32)
COUNTED = tv.DataSet("counts", COUNTS, COUNTS, (1, 5), 1.0, "counts", "negative-binomial", np.arange(12) % 3,
                     np.arange(12) % 3)  # fmt: skip


def built_for_counts(kind):
    more = {"given": "label"} if kind in ("cvae", "net") else {"features": 4} if kind == "m1m2" else {}
    sizes = {name: size for name, size in (("hidden", 4), ("latent", 2)) if name in tv.models.options_of(kind)}
    return tv.models.model_for(kind, COUNTED, dtype="float64", **sizes, **more)


@pytest.mark.parametrize("kind", ["vae", "miwae", "m1", "m2", "m1m2", "shot", "classifier", "cvae"])
def test_every_network_that_reads_counts_is_given_log1p_of_them(kind, monkeypatch):
    model = built_for_counts(kind)
    batch = rows_of(model, COUNTED, "test").at(tv.Tensor(np.arange(12)))
    if "labelled" in model.needs:
        batch = dataclasses.replace(batch, labelled=rows_of(model, COUNTED, "train", only=np.arange(12)).at(
            tv.Tensor(np.arange(12))))
    read, raw = [], Network.raw
    monkeypatch.setattr(Network, "raw", lambda self, *inputs: read.extend(inputs) or raw(self, *inputs))
    for phase in model.phases():
        phase.terms(batch, Draw(tv.Noise(0)))
    if model.has("classify"):
        model.classify(batch)
    # of SHOT also mixtures of two data
    width = [x.numpy() for x in read if x.shape[-1] == 5 and not np.array_equal(x.numpy(), np.ones((12, 5)))]
    assert len(width) >= 1 + 2 * (kind in ("m2", "shot"))
    assert any(np.array_equal(x, np.log1p(COUNTS.astype(float))) for x in width)
    assert max(x.max() for x in width) <= np.log1p(COUNTS.max())


@pytest.mark.parametrize("kind", ["vae", "m1", "m2", "m1m2", "shot"])
def test_the_likelihood_is_one_of_the_counts_themselves(kind):
    """With zero weights z does not matter, and each count has the law (1/2)^(x + 1)."""
    model = built_for_counts(kind)
    model.parameters.flat[...] = 0
    batch = Batch(tv.Tensor(COUNTS.astype(float)))
    found = model.log_weights(batch, Draw(tv.Noise(0)), 2).numpy()
    np.testing.assert_allclose(found, np.tile(-(COUNTS + 1.0).sum(1) * np.log(2), (2, 1)), rtol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind, family in MODELS.items() if family.__module__.startswith("tinyvae.")])
def test_every_model_of_the_default_sizes_prints_itself(kind):
    """As the first line of its training does; m1 once failed there."""
    needs = {"given": "label"} if kind in ("cvae", "net") else {}
    made = model_for(kind, digits(), **needs)
    assert f"{made.parameters.count:,} parameters" in repr(made)
    assert repr(made).startswith(type(made).__name__)
