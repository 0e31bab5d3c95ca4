"""Training: the replayed step is the eager one to the last bit, and a bad step leaves everything as it was."""

import dataclasses
import itertools
import math
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import special
from support import ROOT, assert_close, assert_same_bits
from threadpoolctl import threadpool_limits
from tinyvae_kernels import state

import tinyvae as tv
from tinyvae import runs
from tinyvae.data import DataSet
from tinyvae.data.sources import SOURCES
from tinyvae.engine.rules import TABLE
from tinyvae.engine.tape import TapeError
from tinyvae.models import Phase
from tinyvae.nn.optimizers import CLIP, FINITE, UPDATES
from tinyvae.training import epochs, faults
from tinyvae.training.batches import BATCH, CURSOR, STEP
from tinyvae.training.epochs import Training
from tinyvae.training.faults import DivergedError, NonFiniteError
from tinyvae.training.objective import DATA_COUNT, OBJECTIVE, SKIPPED
from tinyvae.training.selection import hold_out
from tinyvae.training.settings import Settings

WIDTH = 6
RECONSTRUCTION, KL = 1, 2  # the places of the two terms in `totals`


def data_set(pixels="dynamic", count=26, seed=0):
    """26 images of 2 x 3 pixels: batches of 4 leave a last one of 2."""
    rng = np.random.default_rng(seed)
    if pixels == "dynamic":
        train, test = (rng.integers(0, 17, (n, WIDTH)).astype(np.uint8) for n in (count, 10))
        return DataSet("made-dynamic", train, test, (2, 3), 16.0, "dynamic", "bernoulli")
    train, test = (rng.random((n, WIDTH), np.float32) for n in (count, 10))
    if pixels == "gray":
        return DataSet("made-gray", train, test, (2, 3), 1.0, "gray", "gaussian", np.arange(count), np.arange(10))
    return DataSet("made-static", np.rint(train), np.rint(test), (2, 3), 1.0, "static", "bernoulli")


def start(data=None, likelihood="bernoulli", activation="tanh", dtype="float32", **settings):
    settings = {"batch": 4, "epochs": 3, "seed": 1} | settings
    model = tv.VAE(WIDTH, hidden=5, latent=2, activation=activation, likelihood=likelihood, dtype=dtype)
    return Training(model, data or data_set(), Settings(**settings))


def all_steps(training, count):
    """So many steps, over epoch ends; yields the number of steps done."""
    done = 0
    while done < count:
        for _ in training.steps():
            done += 1
            yield done
            if done == count:
                return
        training.epoch += 1
        training.counters[CURSOR] = training.counters[BATCH] = 0
        training.totals[...] = 0


def eager(training):
    """A twin that never replays: each step is built anew, with no tape."""

    def step():
        training.step_now().eager(training.batches.size_now())

    training.step = step
    return training


def snapshot(training):
    return {name: array.tobytes() for name, array in training.state().items()}


def assert_same_state(a, b, what=""):
    for (name, one), other in zip(a.state().items(), b.state().values(), strict=True):
        assert_same_bits(one, other, f"{what}{name}")


# ---- replay ---------------------------------------------------------------------------------------------------------


def test_replay_is_bit_identical_to_eager_for_1000_steps():
    # with a schedule, a warm-up, clipping, a last partial batch, and a batch that is not finite and skipped
    settings = {"epochs": 143, "schedule": "cosine", "lr": 0.02, "warmup": 40, "clip": 1.6, "on_nonfinite": "skip"}
    replayed, twin = start(**settings), eager(start(**settings))
    seen = {"skipped": 0, "clipped": 0, "unclipped": 0, "sizes": set()}
    poisoned = (3, 400, 401, 600)
    for number, _ in zip(all_steps(replayed, 1000), all_steps(twin, 1000), strict=True):
        assert_same_state(replayed, twin, f"step {number}, ")
        status = replayed.optimizer.status
        seen["skipped"] += status[FINITE] != 1
        seen["clipped"] += bool(status[CLIP] < 1)
        seen["unclipped"] += bool(status[CLIP] == 1)
        seen["sizes"].add(replayed.batches.size_now())
        for training in (replayed, twin):  # what a bad datum does, for the one step that comes
            bias = training.model.parameters["encoder.0.bias"].data
            if number + 1 in poisoned:
                bias[0] = np.nan
            elif number in poisoned:
                bias[0] = 0.25
    assert replayed.counters[STEP] == 1000
    assert replayed.optimizer.status[UPDATES] == 1000 - len(poisoned)
    assert seen["skipped"] == len(poisoned)
    assert seen["sizes"] >= {4, 2}
    assert seen["clipped"] > 100
    assert seen["unclipped"] > 100


VARIANTS = {
    "adagrad with prior": {"optimizer": "adagrad", "weight_prior": True, "lr": 0.05},
    "sgd": {"optimizer": "sgd", "lr": 0.01},
    "sampled bound, three draws": {"bound": "elbo-a", "samples": 3},
    "sticking the landing": {"bound": "elbo-a", "gradient": "stl", "warmup": 2.0},
    "iwae": {"bound": "iwae", "importance_samples": 3},
    "iwae, stl": {"bound": "iwae", "importance_samples": 3, "gradient": "stl"},
    "iwae, dreg, twice": {"bound": "iwae", "importance_samples": 3, "samples": 2, "gradient": "dreg"},
    "free bits": {"free_bits": 0.1, "beta": 2.0},
    "float64": {"dtype": "float64"},
    "relu": {"activation": "relu"},
    "softplus": {"activation": "softplus"},
    "gaussian": {"data": "gray", "likelihood": "gaussian"},
    "continuous": {"data": "gray", "likelihood": "continuous-bernoulli", "data_mean_bias": True},
}


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "twin"])
@pytest.mark.parametrize("name", VARIANTS)
def test_replay_is_bit_identical_in_every_setting(name, fused):
    options = dict(VARIANTS[name])
    options["data"] = data_set(options.get("data", "dynamic"))
    with tv.fused(fused):
        replayed, twin = start(**options), eager(start(**options))
        before = replayed.model.parameters.flat.copy()
        for step, _ in zip(all_steps(replayed, 30), all_steps(twin, 30), strict=True):
            assert_same_state(replayed, twin, f"step {step}, ")
    assert (replayed.model.parameters.flat != before).any()


def test_one_tape_a_batch_size():
    training = start()
    for _ in all_steps(training, 28):
        pass
    assert set(training.step_now().program.tapes) == {(4,), (2,)}
    assert all(training.step_now().program.is_settled(size) for size in (4, 2))


def frozen_number(training):
    """A Python number that changes from step to step, in the decoder."""
    decode, calls = training.model.likelihood, itertools.count(1)

    def likelihood(z):
        return decode(z * (1 + 1e-3 * next(calls)))

    training.model.likelihood = likelihood


def frozen_array(training):
    """An array made by NumPy in the step: a replay would see the first one for ever."""
    q, rng = training.model.q, np.random.default_rng(0)

    def noisy(x):
        return q(x + rng.normal(0, 1e-3, x.shape).astype(np.float32))

    training.model.q = noisy


def another_program(training):
    """A step that does one more operation every other time."""
    decode, calls = training.model.likelihood, itertools.count()

    def likelihood(z):
        return decode(z + 0.5 if next(calls) % 2 else z)

    training.model.likelihood = likelihood


@pytest.mark.parametrize("fault", [frozen_number, frozen_array, another_program])
def test_a_frozen_value_is_found_at_the_second_step(fault):
    training = start()
    fault(training)
    training.begin_epoch()
    training.step()
    with pytest.raises(TapeError, match=r"a replayed step (differs|leaves).*step run anew"):
        training.step()


def test_the_frozen_value_is_named():
    training = start()
    frozen_number(training)
    training.begin_epoch()
    training.step()
    with pytest.raises(TapeError, match=r"first in mul\(.*frozen into the recording"):
        training.step()


def check_memory(training):
    """What 500 steps leave behind is less than one array of a step, and less than a byte each."""
    for done in all_steps(training, 810):
        if done == 20:  # all tapes are made
            tracemalloc.start()
        if done == 300:  # and so are the interpreter's own free lists
            before = tracemalloc.get_traced_memory()[0]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before <= 500, f"{before} bytes after 300 steps, {after} after 800"


@pytest.mark.parametrize("settings", [{}, {"samples": 2, "bound": "elbo-a", "free_bits": 0.1},
                                      {"bound": "iwae", "importance_samples": 3, "gradient": "dreg"}])
def test_memory_does_not_grow_with_steps(settings):
    check_memory(start(epochs=200, **settings))


def test_the_memory_check_sees_what_is_kept():
    training, kept = start(epochs=200), []
    step = training.step
    training.step = lambda: (step(), kept.append(training.totals.copy()))
    with pytest.raises(AssertionError, match="bytes after 300 steps"):
        check_memory(training)


# ---- the objective --------------------------------------------------------------------------------------------------


def gradient(**settings):
    """The gradient of the first step, the totals it reports, and its loss."""
    training = start(dtype="float64", **settings)
    training.begin_epoch()
    size = training.batches.size_now()
    with np.errstate(all="ignore"):
        loss, terms, _ = training.step_now().loss(size)
    shown = [term.numpy().copy() for term in terms.reported.values()]
    return training.model.parameters.gradient.copy(), shown, loss.item()


@pytest.mark.parametrize("bound", ["elbo-a", "elbo-b"])
def test_beta_weighs_the_divergence_in_the_objective_only(bound):
    results = [gradient(beta=beta, bound=bound) for beta in (0.0, 1.0, 3.0)]
    (g0, terms, loss0), (g1, terms1, loss1), (g3, terms3, loss3) = results
    assert_close(g3 - g0, 3 * (g1 - g0), 64)  # linear in beta
    assert np.abs(g1 - g0).max() > 1e-3
    reconstruction, kl = terms
    assert_close([loss0, loss1, loss3], [beta * kl.mean() - reconstruction.mean() for beta in (0, 1, 3)], 16)
    for other in (terms1, terms3):  # what is reported has weight 1 always
        assert_same_bits(other[0], reconstruction)
        assert_same_bits(other[1], kl)


def test_free_bits_change_the_objective_and_not_the_reported_divergence():
    g, terms, loss = gradient()
    free, free_terms, free_loss = gradient(free_bits=5.0)
    assert_same_bits(free_terms[1], terms[1])
    assert_close([free_loss, loss], [2 * 5.0 - terms[0].mean(), terms[1].mean() - terms[0].mean()], 16)
    none = gradient(beta=0.0)[0]
    assert_close(free, none, 16)  # all below the floor: the divergence pulls at nothing
    assert np.abs(free - g).max() > 1e-3


def test_the_weight_prior_is_shared_by_all_data():
    # -log N(theta; 0, 1) once for the whole set: theta / N in the gradient of a datum (AEVB section 5)
    gradients = {}
    for prior in (False, True):
        training = start(dtype="float64", weight_prior=prior)
        theta = training.model.parameters.flat.copy()
        training.begin_epoch()
        training.step()
        gradients[prior] = training.model.parameters.gradient
    assert_close(gradients[True] - gradients[False], theta / 26, 8)


@pytest.mark.parametrize("settings", [{"beta": 2.0}, {"bound": "iwae", "importance_samples": 3, "samples": 2}])
def test_the_gradient_is_that_of_the_bound(settings):
    # by finite differences of the loss itself, along one direction, in float64
    training = start(dtype="float64", **settings)
    training.begin_epoch()
    flat = training.model.parameters.flat
    direction = np.random.default_rng(0).standard_normal(flat.size)
    values = []
    for sign in (1, -1, 0):
        flat += sign * 1e-5 * direction
        values.append(training.step_now().loss(4)[0].item())
        flat -= sign * 1e-5 * direction
    expected = (values[0] - values[1]) / 2e-5
    assert abs(training.model.parameters.gradient @ direction - expected) <= 1e-7 * max(1, abs(expected))


def rates(training):
    """The learning rates and KL weights of all epochs."""
    found = []
    for epoch in range(training.settings.epochs):
        training.epoch = epoch
        training.begin_epoch()
        found.append(training.batches.plan.copy())
    return np.concatenate(found).T


def test_schedules_of_the_learning_rate():
    # 7 steps an epoch; progress counts steps, over the whole run
    progress = np.arange(21) / 21
    for name, expected in (("constant", np.ones(21)), ("linear", 1 - progress),
                           ("cosine", (1 + np.cos(np.pi * progress)) / 2)):
        found = rates(start(schedule=name, lr=0.5, dtype="float64"))
        assert_close(found[0], 0.5 * expected, 4, name)
        assert_close(found[1], np.ones(21), 1, name)


def test_the_warm_up_rises_to_beta():
    found = rates(start(warmup=1.5, beta=4.0, dtype="float64"))[1]
    assert_close(found, 4 * np.minimum(1, np.arange(1, 22) / 7 / 1.5), 4)
    assert found[-1] == 4
    # the weight of a step reaches its loss: with warm-up, the first step's is a seventh of beta
    assert_close([gradient(warmup=1.0, beta=1.0)[2]], [gradient(beta=1 / 7)[2]], 16)


def test_the_epochs_record_is_the_mean_over_its_data():
    training = start(dtype="float64")
    training.begin_epoch()
    sums, count = np.zeros(2), 0
    while training.counters[BATCH] < training.batches.steps:
        before = training.totals.copy()
        size = training.batches.size_now()
        training.step()
        sums += (training.totals - before)[[RECONSTRUCTION, KL]]
        count += size
    record = training.end_epoch()
    assert record["train_count"] == count == 26
    assert_close([record["train_reconstruction"], record["train_kl"]], sums / 26, 8)
    assert_close([record["train_elbo"]], [(sums[0] - sums[1]) / 26], 8)  # not weighted by beta, not a mean of batches
    assert record["test_data_count"] == 10
    assert (record["epoch"], record["step"], record["data"]) == (1, 7, "made-dynamic")


IWAE = {"bound": "iwae", "importance_samples": 5}


@pytest.mark.parametrize("choice", ["stl", "dreg"])
def test_estimates_of_the_gradient_change_the_encoders_only(choice):
    (g, terms, loss), (other, other_terms, other_loss) = (gradient(**IWAE, gradient=name) for name in ("path", choice))
    assert_close(other_loss, loss, 4)  # the bound, never a surrogate; path reads log q off the noise of the draw
    for one, two in zip(terms, other_terms, strict=True):
        assert_close(one, two, 4)
    parameters = start().model.parameters
    fifth = list(parameters)[4].data  # two layers of weight and bias come before
    decoder = (fifth.ctypes.data - parameters.flat.ctypes.data) // fifth.itemsize
    assert_close(other[decoder:], g[decoder:], 64)
    assert np.abs(other[:decoder] - g[:decoder]).max() > 1e-3


def test_the_record_has_the_bound_that_was_trained_beside_the_elbo():
    training = start(dtype="float64", validation=6, **IWAE)
    training.begin_epoch()
    sums, count = np.zeros(3), 0
    while training.counters[BATCH] < training.batches.steps:
        size = training.batches.size_now()
        sums += size * np.array([gradient_free(training, size)]).ravel()
        training.step()
        count += size
    record = training.end_epoch()
    found = [record["train_bound"], record["train_reconstruction"], record["train_kl"]]
    assert_close(found, sums / count, 16)
    assert record["train_elbo"] == pytest.approx(found[1] - found[2], rel=1e-12)
    assert record["train_bound"] > record["train_elbo"] + 1e-3
    for part in ("valid", "test"):
        judged = tv.evaluate(training.model, training.data, 5, part=part)
        assert (record[f"{part}_bound"], record[f"{part}_bound_stderr"]) == (
            judged.log_evidence, judged.log_evidence_stderr)  # fmt: skip
        assert record[f"{part}_elbo"] == judged.elbo
    assert record["importance_samples"] == 5
    assert "train_bound" not in tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), epochs=1, batch=4)[0]


def gradient_free(training, size):
    """The bound and the terms of the batch that comes, means over its data."""
    loss, terms, _ = training.step_now().loss(size)
    return -loss.item(), *(t.numpy().mean() for t in terms.reported.values())


@pytest.mark.parametrize("validation", [0, 6])
def test_the_best_epoch_of_iwae_is_chosen_by_its_bound(validation, monkeypatch):
    # the validation ELBO falls, as it may where the bound rises
    values, real = iter([-5.0, -4.0, -3.0]), epochs.evaluate

    def judged(model, data, importance_samples, part, team):
        result = real(model, data, importance_samples, part=part)
        value = next(values) if part == "valid" else 0.0
        return dataclasses.replace(result, elbo=-9 - value, log_evidence=value) if part == "valid" else result

    monkeypatch.setattr(epochs, "evaluate", judged)
    records = tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), epochs=3, batch=4, validation=validation, **IWAE)
    score = [r["valid_bound" if validation else "train_bound"] for r in records]
    assert [r["best"] for r in records] == [value > max(score[:i], default=-math.inf) for i, value in enumerate(score)]
    if validation:
        assert [r["best"] for r in records] == [True] * 3


@pytest.mark.parametrize("settings", [{**IWAE, "samples": 2, "gradient": "dreg"},
                                      {"bound": "elbo-a", "gradient": "stl"}])  # fmt: skip
def test_settings_of_the_bound_survive_a_checkpoint(settings, tmp_path):
    once = tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), epochs=3, batch=4, **settings)
    tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), out=tmp_path / "run", epochs=1, batch=4, **settings)
    _, training = runs.prepare(tmp_path / "run", data_set(), epochs=3)
    assert training.settings == Settings(epochs=3, batch=4, **settings)
    assert tv.resume(tmp_path / "run", data_set())[-1]["fingerprint"] == once[-1]["fingerprint"]
    # a run begun before there was a choice
    old = {name: value for name, value in dataclasses.asdict(Settings()).items() if name in ("epochs", "bound")}
    assert Settings.from_dict(old) == Settings()


# ---- what is not finite ---------------------------------------------------------------------------------------------


def bad_data(row=5):
    data = data_set("static")
    data.train[row, 2] = np.nan
    return data


def test_stop_names_the_operation_the_batch_and_the_tensor():
    training = start(bad_data(), on_nonfinite="stop")
    training.begin_epoch()
    while 5 not in training.batches.stream.index[training.counters[CURSOR] :][:4]:
        training.step()
    before = snapshot(training)
    with pytest.raises(NonFiniteError) as caught:
        training.step()
    report = caught.value.report
    assert 5 in report["indices"]
    assert len(report["indices"]) <= 4
    assert report["operation"].startswith("grey_rows(")  # where the NaN came in
    assert (report["nan"], report["inf"], report["size"]) == (1, 0, 6 * len(report["indices"]))
    message = str(caught.value)
    for part in (f"epoch 1, batch {report['batch']}", f"step {report['step']}", "first in grey_rows", "1 NaN",
                 "finite part from 0 to 1", "no parameter was changed", "--lr", "--clip"):
        assert part in message
    after = snapshot(training)
    for name in before:
        if name == "parameters" or name.startswith("optimizer."):
            assert after[name] == before[name], name
    assert training.counters[BATCH] == report["batch"]  # the counters stands at the batch


def test_an_overflow_inside_is_named():
    training = start(on_nonfinite="stop", activation="relu")
    training.model.parameters["encoder.1.bias"].data[2:] = 1e3  # logvar: exp of it is no number
    training.begin_epoch()
    with pytest.raises(NonFiniteError, match=r"first in gaussian_sample_kl\(.*infinite of"):
        training.step()


def course(interval, mend=lambda training: None, on_nonfinite="stop"):
    """Three epochs with the host looking every so many steps: the state after each, the fault if there is one."""
    training, states = start(data_set("static"), epochs=3, on_nonfinite=on_nonfinite), []
    training.interval = interval
    for epoch in range(3):
        if epoch == 2:
            training.batches.stream.rows.stored.data[5, 2] = np.nan
            mend(training)
        try:
            assert list(training.steps())[-1] == training.batches.steps
        except NonFiniteError as fault:
            return states, snapshot(training), fault
        states.append(snapshot(training))
        training.end_epoch()
    return states, snapshot(training), None


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_looking_at_intervals_changes_nothing(on_nonfinite):
    """As on a GPU: the same bits after each epoch; a fault is found later, and then at the same step."""
    here, before, fault = course(1, on_nonfinite=on_nonfinite)
    assert (fault is None) == (on_nonfinite == "skip")
    for interval in (2, 4, 200):
        there, after, found = course(interval, on_nonfinite=on_nonfinite)
        assert there == here
        assert after == before
        assert str(found) == str(fault)
        assert getattr(found, "report", None) == getattr(fault, "report", None)


def test_steps_that_are_not_taken_back_are_noticed(monkeypatch):
    """Had the steps since the last look stayed done, the fault would be looked for in another place."""
    _, before, fault = course(1)
    blind = lambda training: monkeypatch.setattr(training, "state", lambda: {"counters": training.counters})
    _, after, found = course(4, blind)
    assert fault is not None
    assert found is None or after != before


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "sgd"])
def test_skip_leaves_the_batch_out(optimizer):
    training = start(bad_data(), on_nonfinite="skip", optimizer=optimizer)
    training.begin_epoch()
    skipped = 0
    while training.counters[BATCH] < training.batches.steps:
        size = training.batches.size_now()
        before, updates = snapshot(training), training.optimizer.status[UPDATES]
        index = training.batches.stream.index[training.counters[CURSOR] :][:size]
        training.step()
        if 5 in index:
            skipped, left_out = skipped + 1, size
            assert snapshot(training)["parameters"] == before["parameters"]
            assert training.optimizer.status[UPDATES] == updates
            assert training.totals[SKIPPED] == 1
        else:
            assert training.optimizer.status[UPDATES] == updates + 1
    assert skipped == 1
    record = training.end_epoch()
    assert record["skipped"] == 1
    assert record["train_count"] == 26 - left_out
    assert math.isfinite(record["train_elbo"])


def test_the_gradient_norm_of_an_epoch_is_the_mean_over_its_sound_steps():
    """Before clipping, by NumPy from each step's gradient; a skipped step does not enter."""
    training, norms = start(bad_data(), on_nonfinite="skip", clip=1.0), []
    training.begin_epoch()
    while training.counters[BATCH] < training.batches.steps:
        training.step()
        if training.step_now().is_sound():
            norms.append(np.linalg.norm(training.step_now().gradient.astype(np.float64)))
    assert max(norms) > 1.0
    assert len(norms) == training.batches.steps - 1
    assert_close(np.array(training.end_epoch()["gradient_norm"]), np.mean(norms), 1e4)


def test_state_vectors_have_the_lengths_of_their_places():
    """A checkpoint holds them; a longer or shorter one would not load in another version."""
    for settings, terms in (({}, 2), ({"bound": "iwae", "importance_samples": 3}, 2)):
        training = start(**settings)
        size = training.model.parameters.flat.size
        shapes = {name: array.shape for name, array in training.state().items()}
        assert shapes == {"parameters": (size,), "training.counters": (3,), "optimizer.m": (size,),
                          "optimizer.v": (size,), "training.status": (4,), "training.totals": (5 + terms,)}
        assert (shapes["training.totals"], shapes["training.status"]) == ((1 + max(
            state.DATA_COUNT, state.RECONSTRUCTION, state.KL, state.OBJECTIVE, state.NORMS, state.SOUND,
            state.SKIPPED),), (1 + max(state.FINITE, state.CLIP, state.NORM, state.UPDATES),))  # fmt: skip


def test_an_epoch_of_skipped_batches_ends_the_training():
    # it has no bound, and is not the best one: 0 nats would beat every bound there is
    data = data_set("static")
    data.train[:] = np.nan
    with pytest.raises(NonFiniteError, match="all 7 batches of epoch 1 were skipped"):
        tv.fit(tv.VAE(WIDTH, 5, 2), data, epochs=1, batch=4, on_nonfinite="skip")


# ---- early stopping and validation ----------------------------------------------------------------------------------


def test_held_out_data_are_disjoint_and_a_function_of_the_seed():
    data = data_set("gray")
    part = hold_out(data, 7, seed=3)
    assert (len(part.train), len(part.valid)) == (19, 7)
    rows = {row.tobytes() for row in part.train} | {row.tobytes() for row in part.valid}
    assert rows == {row.tobytes() for row in data.train}
    for row, label in zip(part.train, part.train_labels, strict=True):  # labels go with their images
        assert_same_bits(row, data.train[label])
    assert_same_bits(hold_out(data, 7, seed=3).valid, part.valid)
    assert (hold_out(data, 7, seed=4).valid != part.valid).any()
    assert hold_out(data, 0, seed=3) is data
    with pytest.warns(RuntimeWarning, match="has a validation part of 7 data, which is not used: validation=5 takes"):
        assert len(hold_out(part, 5, seed=3).valid) == 5
    with pytest.raises(ValueError, match="found validation=26 of 26 training data"):
        hold_out(data, 26, seed=3)


def test_early_stopping_needs_validation_data():
    with pytest.raises(ValueError, match=r"early stopping .* needs validation data.*validation=COUNT"):
        start(patience=2)


def test_early_stopping_stops_after_the_best_epoch(monkeypatch):
    # the validation bound rises for three epochs and then never again
    bounds = iter([-5.0, -4.0, -3.0, -3.0, -3.5, -9.0])
    real = epochs.evaluate

    def judged(model, data, part, importance_samples, team):
        result = real(model, data, part=part)
        return dataclasses.replace(result, elbo=next(bounds)) if part == "valid" else result

    monkeypatch.setattr(epochs, "evaluate", judged)
    records = tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), epochs=50, batch=4, validation=6, patience=2)
    assert [r["valid_elbo"] for r in records] == [-5.0, -4.0, -3.0, -3.0, -3.5]
    assert [r["best"] for r in records] == [True, True, True, False, False]
    assert all(r["train_count"] == 20 and r["valid_data_count"] == 6 for r in records)


def test_without_patience_all_epochs_are_done():
    assert len(tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), epochs=4, batch=4, validation=6)) == 4
    assert tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), epochs=0) == []


# ---- options --------------------------------------------------------------------------------------------------------


def test_data_mean_bias_starts_at_the_pixels_mean():
    for data, likelihood in ((data_set(), "bernoulli"), (data_set("gray"), "gaussian")):
        training = start(data, likelihood, data_mean_bias=True)
        training.begin_epoch()
        bias = training.model.parameters["decoder.1.bias"].data[:WIDTH]
        assert_close(special.expit(bias), (data.train / data.scale).mean(0).astype(np.float32), 8)
        bias[:] = 7
        training.counters[STEP] = 1
        training.begin_epoch()  # only once, at the very start
        assert (bias == 7).all()
    plain = start()
    plain.begin_epoch()
    assert (plain.model.parameters["decoder.1.bias"].data == 0).all()


BAD = [("epochs", -1), ("batch", 0), ("lr", 0.0), ("lr", -1.0), ("lr", math.inf), ("lr", math.nan), ("samples", 0),
       ("beta", -0.1), ("beta", math.nan), ("warmup", -1.0), ("warmup", math.nan), ("free_bits", -1.0),
       ("beta", math.inf), ("free_bits", math.nan), ("clip", -1.0), ("clip", math.nan), ("schedule", "step"),
       ("bound", "elbo-c"), ("importance_samples", 0), ("importance_samples", 5), ("gradient", "score"),
       ("gradient", "stl"), ("gradient", "dreg"),
       ("optimizer", "lion"), ("on_nonfinite", "ignore"), ("validation", -1), ("patience", -1), ("seed", -1),
       ("labels", -1), ("labelled_batch", -1), ("shards", 0),
       ("seed", 2**32), ("estimator", "magic"), ("baseline", "wise"), ("baseline", "fitted")]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_every_setting_is_checked(name, value):
    with pytest.raises(ValueError, match=rf"found {name}=.*(; expected |; it goes with |with bound=)"):
        Settings(**{name: value})


APART = [{"bound": "elbo-a", "gradient": "dreg"}, {"bound": "elbo-a", "importance_samples": 2},
         {"bound": "iwae", "importance_samples": 0}, {"bound": "iwae", "gradient": "score"},
         {"bound": "iwae", "beta": 2.0}, {"bound": "iwae", "warmup": 3.0}, {"bound": "iwae", "free_bits": 0.1},
         {"bound": "elbo-a", "gradient": "stl", "free_bits": 0.1}]  # fmt: skip


@pytest.mark.parametrize("settings", APART)
def test_settings_that_do_not_go_together(settings):
    name, value = list(settings.items())[-1]
    with pytest.raises(ValueError, match=rf"^found {name}={value}.*(bound|expected)"):
        Settings(**settings)
    Settings(**{key: value for key, value in settings.items() if key != name})


def test_every_setting_that_can_be_wrong_has_such_a_test():
    switches = {"weight_prior", "data_mean_bias"}
    assert {field.name for field in dataclasses.fields(Settings)} == {name for name, _ in BAD} | switches


def test_all_faults_are_listed_at_once():
    with pytest.raises(ValueError, match=r"found batch=0; expected at least 1; found lr=-1; expected a finite number"):
        Settings(batch=0, lr=-1)
    with pytest.raises(ValueError, match=r"unknown settings: lrate; there are epochs, batch, optimizer, lr"):
        Settings.from_dict({"lrate": 1})


def test_data_that_do_not_fit_the_model_are_refused():
    with pytest.raises(ValueError, match="made-dynamic has 6 pixels a datum; the model takes 9"):
        Training(tv.VAE(9, 5, 2), data_set(), Settings())


def test_a_bernoulli_on_grey_pixels_is_refused():
    # the usual tutorial loss, which is no likelihood
    with pytest.raises(ValueError, match=r"bernoulli takes 0 and 1, and made-gray has numbers.*continuous.*-dynamic"):
        start(data_set("gray"), "bernoulli")


@pytest.mark.parametrize(("likelihood", "value"), [("gaussian", 0.5), ("continuous-bernoulli", 0.0), ("gaussian", 0.0)])
def test_images_that_are_all_the_same_are_refused_under_a_density(likelihood, value):
    rows = np.full((20, WIDTH), value, np.float32)
    data = DataSet("made", rows, rows, (2, 3), 1.0)
    said = f"every pixel of all 20 images is {value:g} in made, where the density of the likelihood {likelihood} may "
    with pytest.raises(ValueError, match=f"{said}have no bound: there is nothing to learn"):
        start(data, likelihood)
    start(DataSet("made", np.zeros((20, WIDTH), np.uint8), np.eye(2, WIDTH, dtype=np.uint8), (2, 3), 1.0, "static"))


def test_two_values_under_a_density_get_a_line():
    bits = np.eye(20, WIDTH)
    with pytest.warns(UserWarning, match="all pixels of made are 0 or 1, .* its ELBO can rise without end; take the"):
        start(DataSet("made", bits, bits, (2, 3), 1.0), "continuous-bernoulli")
    start(DataSet("made", bits, bits, (2, 3), 1.0), "bernoulli")  # the cure


@pytest.mark.parametrize(("kind", "lr"), [(DivergedError, 0.01), (NonFiniteError, 100.0)])
def test_copies_of_few_images_are_named_as_the_cause(kind, lr):
    """With a Gaussian the variance of each copy shrinks until the training fails; a smaller rate only delays it."""
    few = np.random.default_rng(0).random((5, 36), np.float32)
    rows = np.repeat(few, 8, axis=0)
    data = DataSet("made", rows, rows, (6, 6), 1.0, "gray", "gaussian")
    said = "The data are the cause: only 5 of 40 images differ from each other in made, where the density of the "
    with pytest.raises(kind, match=said) as fault:
        tv.fit(tv.VAE(36, 32, 3, likelihood="gaussian"), data, epochs=2000, batch=40, lr=lr, quiet=True)
    assert "--lr" not in str(fault.value)
    assert not faults.blame(tv.VAE(36, 4, 2), data)  # no density
    assert not faults.blame(tv.VAE(WIDTH, 4, 2, likelihood="gaussian"), data_set("gray"))


# ---- it learns ------------------------------------------------------------------------------------------------------


def test_two_runs_of_a_seed_have_the_same_bits_and_of_two_seeds_not():
    ends = [tv.fit(tv.VAE(WIDTH, 5, 2), data_set(), epochs=2, batch=4, seed=seed) for seed in (0, 0, 1)]
    assert ends[0] == ends[1]
    assert ends[0][-1]["fingerprint"] != ends[2][-1]["fingerprint"]


def test_training_learns_digits():
    # the model that knows only the mean of each pixel, for which no network is needed, is far behind
    data = tv.data.load("digits-dynamic")
    model = tv.VAE(64, hidden=64, latent=8)
    before = tv.evaluate(model, data).elbo
    records = tv.fit(model, data, epochs=40, batch=50, lr=3e-3)
    p = np.clip(data.train.mean(0) / 16, 1e-3, 1 - 1e-3)
    grey = data.test / 16
    pixel_means = (grey * np.log(p) + (1 - grey) * np.log(1 - p)).sum(1).mean()
    assert records[-1]["test_elbo"] > pixel_means + 3 > before
    assert records[-1]["train_elbo"] > records[0]["train_elbo"] + 5
    assert records[-1]["active_units"] >= 4
    assert records[-1]["test_kl"] == pytest.approx(sum(records[-1]["kl_per_dimension"]))
    # and the same check sees a model that was only initialised
    assert not before > pixel_means + 3


def real(name):
    """A real data set from $TINYVAE_DATA, else from ../shared/data beside the checkout."""
    folder = Path(os.environ.get("TINYVAE_DATA") or ROOT.parent / "shared" / "data")
    source = SOURCES[name.rpartition("-")[0]]
    for file in source.files:
        path = folder / source.folder / file.name
        if not path.is_file():
            pytest.skip(f"no data: {path} is missing; set TINYVAE_DATA to a folder that has it")
    return tv.data.load(name, folder)


def test_training_learns_mnist():
    # after two passes over a tenth of it, far above the pixels' means, which give -205.78 nats
    data = real("mnist-dynamic")
    part = tv.DataSet(data.name, data.train[:6000], data.test[:2000], data.shape, data.scale, "dynamic", "bernoulli")
    with threadpool_limits(1):  # two BLAS threads wait for each other where the cores are busy: 20 times slower
        records = tv.fit(tv.VAE(784, hidden=100, latent=10), part, epochs=2, batch=50, lr=2e-3)
    p = np.clip(data.train.mean(0) / 255, 1e-6, 1 - 1e-6)
    grey = data.test / 255
    pixel_means = (grey * np.log(p) + (1 - grey) * np.log(1 - p)).sum(1).mean()
    assert abs(pixel_means + 205.8) <= 0.2
    assert -160 < records[-1]["test_elbo"] < -80
    assert records[-1]["active_units"] >= 5


def test_accumulate_counts_only_sound_steps():
    row, totals = TABLE["accumulate"], np.zeros(7)
    row.value(np, np.array([-3.0, -5.0]), np.array([1.0, 2.0]), np.array(4.5), totals, np.array([1.0, 1.0, 2.0, 1.0]))
    sound = totals.copy()
    assert (totals[RECONSTRUCTION], totals[KL], totals[SKIPPED]) == (-8, 3, 0)
    row.value(np, np.full(2, np.nan), np.full(2, np.nan), np.array(np.nan), totals, np.array([0.0, 1.0, 2.0, 1.0]))
    sound[SKIPPED] += 1
    assert_same_bits(totals, sound)


# ---- divergence without infinities -----------------------------------------------------------------------------------


def thrown_out(tmp_path, **settings):
    """A step size that throws the weights far out in the first epoch, into a run folder."""
    data = data_set(count=800)
    model = tv.VAE(WIDTH, hidden=20, latent=2, activation="tanh", init="aevb")
    return tv.fit(model, data, out=tmp_path / "run", batch=4, epochs=2, optimizer="sgd", lr=3.0, clip=1e9, **settings)


def test_a_run_far_worse_than_the_untrained_model_is_stopped_and_not_saved(tmp_path):
    """No number is infinite, and yet nothing of it may replace the last good checkpoint."""
    with pytest.raises(DivergedError, match=r"diverged in epoch 1: .* that of the untrained model"):
        thrown_out(tmp_path)
    kept = tv.load(tmp_path / "run")
    fresh = tv.VAE(WIDTH, hidden=20, latent=2, activation="tanh", init="aevb")
    assert kept.parameters.flat.tobytes() == fresh.parameters.flat.tobytes()
    assert "diverged" in (tmp_path / "run" / "fault.json").read_text()
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_skip_goes_on_all_the_same(tmp_path):
    """`on_nonfinite=skip` says to go on whatever happens; the check above is what stops it otherwise."""
    assert len(thrown_out(tmp_path, on_nonfinite="skip")) == 2


def test_an_early_overshoot_is_no_divergence(tmp_path):
    """The first hundred steps may be worse than the untrained model, as Adagrad's are, which have full length."""
    training = start(batch=4)
    training.begin_epoch()
    training.step()
    training.totals[OBJECTIVE] = (training.first_loss + 50) * training.totals[DATA_COUNT]
    training._check_divergence(training.step_now())
    training.counters[STEP] = 100
    with pytest.raises(DivergedError):
        training._check_divergence(training.step_now())


def test_a_step_beyond_this_machine_is_refused():
    """Before memory is asked for: the system would end the process without a word."""
    with pytest.raises(ValueError, match=r"a step of 40,000,000,000 draws needs about .* GiB.*--importance-samples"):
        start(data_set("static"), bound="iwae", importance_samples=10**10)


# ---- phases ----------------------------------------------------------------------------------------------------------


class Alternating(tv.VAE, kind="alternating"):
    """The encoder learns in one step, the decoder in the next."""

    def phases(self):
        return (Phase("encoder", self.terms, ("encoder",)), Phase("decoder", self.terms, ("decoder",)))


def test_phases_without_lengths_alternate_step_by_step():
    training = Training(Alternating(64, hidden=5, latent=2), tv.data.load("digits"), Settings(batch=500))
    training.begin_epoch()
    changed = []
    for _ in range(3):
        before = {name: array.copy() for name, array in training.model.parameters.arrays().items()}
        training.step()
        after = training.model.parameters.arrays()
        changed.append({name.split(".")[0] for name in before if (before[name] != after[name]).any()})
    assert changed == [{"encoder"}, {"decoder"}, {"encoder"}]


class Following(Alternating, kind="following"):
    """The encoder learns for two epochs, then the decoder."""

    def phases(self):
        return (Phase("encoder", self.terms, ("encoder",), 2), Phase("decoder", self.terms, ("decoder",)))


@pytest.mark.parametrize(("epochs", "progress"), [(5, [0, 1 / 2, 0, 1 / 3, 2 / 3]), (1, [0]), (2, [0, 1 / 2])])
def test_a_schedule_runs_over_each_phase(epochs, progress):
    settings = Settings(batch=1497, epochs=epochs, schedule="linear", lr=0.5)
    with warnings.catch_warnings(action="ignore"):  # the second phase may not begin
        training = Training(Following(64, hidden=5, latent=2, dtype="float64"), tv.data.load("digits"), settings)
    assert_close(rates(training)[0], 0.5 * (1 - np.array(progress)), 4)
