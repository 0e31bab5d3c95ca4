"""The supervised network beside a run: the same labels, a folder of its own that resumes, and a gain with its error."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.models.classifier import Classifier
from tinyvae.runs import log
from tinyvae.tasks import supervised
from tinyvae.tasks.classification import classify
from tinyvae.training.selection import few_labels

ARGUMENTS = ("digits", "--model", "m2", "--hidden", "12", "--latent", "2", "--labels", "50", "--epochs", "2", "--batch",
             "200", "--no-pictures")  # fmt: skip


@pytest.fixture
def whole(run, tmp_path):
    code, out, error = run("train", *ARGUMENTS, "--supervised", "--out", tmp_path / "run")
    assert (code, error) == (0, "")
    return tmp_path / "run", out


def test_the_gain_is_a_number_with_its_error(whole, run):
    folder, out = whole
    data = few_labels(tv.data.load("digits"), 50, 0)
    own, rival = (classify(tv.load(path), data).right() for path in (folder, folder / "supervised"))
    more = own - rival
    assert (f"50 labels, 300 test data: m2 {own.mean():.2%} ± " in out.splitlines()[-1])
    assert f"gain {100 * more.mean():+.2f} ± {100 * more.std(ddof=1) / np.sqrt(300):.2f} points, paired" in out
    found = json.loads(run("train", "--resume", folder, "--json")[1].splitlines()[-1])
    assert found["gain"] == pytest.approx(more.mean())
    assert found["labels"] == 50


def test_it_is_the_network_that_a_run_of_its_own_makes(whole, tmp_path):
    folder, _ = whole
    records = tv.fit(Classifier(64, hidden=12), "digits", labels=50, epochs=2, batch=200, quiet=True)
    inside = log.read_lines(folder / "supervised" / "metrics.jsonl")
    assert [r["fingerprint"] for r in inside] == [r["fingerprint"] for r in records]


def test_a_stop_in_the_middle_of_it_is_resumed(whole, run, tmp_path, monkeypatch):
    folder, _ = whole
    train = supervised.runs.train

    def stopped(folder, training):
        train(folder, training, lambda training, done: os.kill(os.getpid(), signal.SIGINT) if done == 3 else None)

    monkeypatch.setattr(supervised.runs, "train", stopped)
    prepared = supervised.runs.prepare(begun(folder, tmp_path / "b"))
    with pytest.raises(supervised.runs.Interrupted, match=r"--resume \S*/b$"):
        supervised.gained(*prepared)
    monkeypatch.undo()
    code, out, error = run("train", "--resume", tmp_path / "b")
    assert (code, error) == (0, "")
    assert "gain" in out
    for file in ("last.safetensors", "metrics.jsonl"):
        assert (tmp_path / "b" / "supervised" / file).read_bytes() == (folder / "supervised" / file).read_bytes()


def begun(folder, copy):
    """A copy of a run without its supervised network."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("supervised"))
    return copy


@pytest.mark.parametrize(("kind", "why"), [("vae", "has no classifier to compare"), ("classifier", "is that network")])
def test_other_models_are_refused(kind, why, run, tmp_path):
    code, _, error = run("train", "digits", "--model", kind, "--supervised", "--out", tmp_path / "run")
    assert (code, error.count("\n")) == (2, 1)
    assert f"found --supervised with a {kind}, which {why}" in error
    assert not (tmp_path / "run").exists()
