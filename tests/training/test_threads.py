"""Threads that train and use models at once: the bits of a single run, or a sentence."""

import contextvars
import copy
import threading

import numpy as np
import pytest

import tinyvae as tv


def data():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (120, 12)).astype(np.uint8)
    return tv.DataSet("made", rows[:90], rows[90:], (3, 4), 1.0, "static")


def in_threads(*works):
    """What each work returned or raised, all begun at the same moment."""
    found, start = [None] * len(works), threading.Barrier(len(works))

    def run(i):
        start.wait()
        try:
            found[i] = works[i]()
        except Exception as fault:
            found[i] = fault

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def trained(seed, fused=True, posterior="normal"):
    with tv.fused(fused):
        model = tv.VAE(12, hidden=9, latent=3, seed=seed, posterior=posterior)
        record = tv.fit(model, data(), epochs=2, batch=30, seed=seed, quiet=True)[-1]
        return record["fingerprint"], tv.evaluate(model, data(), importance_samples=5).log_evidence


WORKS = [(0, True, "normal"), (1, True, "gamma"), (2, False, "normal"), (3, True, "full-normal")]


def test_trainings_in_several_threads_have_the_bits_of_single_ones():
    alone = [trained(*work) for work in WORKS]
    for _ in range(2):
        assert in_threads(*(lambda work=work: trained(*work) for work in WORKS)) == alone


def test_a_tape_records_its_own_thread():
    all_record = threading.Barrier(4)

    def record():
        with tv.Tape() as tape:
            all_record.wait()
            for _ in range(20):
                tv.Tensor(np.ones(3)) * 2.0
            all_record.wait()
        return len(tape), tv.engine.tape.recording()

    assert in_threads(*[record] * 4) == [(20, None)] * 4


def test_the_switches_belong_to_a_thread():
    def switches():
        return tv.fused.setting.get(), tv.tf32.setting.get()

    with tv.fused(False), tv.tf32(True):
        context = contextvars.copy_context()
        assert in_threads(switches, lambda: context.run(switches)) == [(True, False), (False, True)]

        def switched():
            tv.fused(True)
            tv.tf32(False)
            return switches()

        assert in_threads(switched) == [(True, False)]
        assert switches() == (False, True)


USES = {
    "evaluate": lambda model: tv.evaluate(model, data()), "encode": lambda model: model.encode(data().test),
    "generate": lambda model: model.generate(2), "copy": copy.deepcopy,
    "fit": lambda model: tv.fit(model, data(), epochs=1, quiet=True),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_a_model_that_is_trained_and_used_at_once(use):
    """In the thread that trains it, in on_epoch, it may be used and copied; in another one that gets a sentence."""
    model, found = tv.VAE(12, hidden=5, latent=2), []

    def on_epoch(record, timings):
        found.extend(in_threads(lambda: USES[use](model)))
        if use != "fit":
            USES[use](model)

    tv.fit(model, data(), epochs=1, quiet=True, on_epoch=on_epoch)
    assert type(found[0]) is RuntimeError
    what = "a second training of the same model" if use == "fit" else "a model in use that another thread trains"
    assert str(found[0]).startswith(f"found {what}")
    assert "wait until fit has returned, or give each thread a model of its own, copy.deepcopy(model)" in str(found[0])
    USES[use](model)  # afterwards it is free


def test_a_model_is_free_after_a_training_that_failed():
    model = tv.VAE(12, hidden=5, latent=2)

    def stop(record, timings):
        raise KeyError

    with pytest.raises(KeyError):
        tv.fit(model, data(), epochs=1, quiet=True, on_epoch=stop)
    assert isinstance(in_threads(lambda: tv.evaluate(model, data()))[0], tv.Evaluation)


def test_a_use_that_a_training_overtakes():
    """A use that began before the training, and ends after it, has read parameters of two states."""
    model = tv.VAE(12, hidden=5, latent=2)
    with pytest.raises(RuntimeError, match="found a model in use that another thread trains meanwhile"):
        with model.parameters.used():
            assert len(in_threads(lambda: tv.fit(model, data(), epochs=1, quiet=True))[0]) == 1
    with model.parameters.used():
        tv.fit(model, data(), epochs=1, quiet=True)  # in the same thread
