"""Mutated run folders, at every public entrance: what is refused, is refused with one of the product's own errors."""

import shutil

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from run_folders import begin, bits

from benchmarks import damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return begin(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return begin(tmp_path_factory.mktemp("other") / "run", lr=0.02)


@settings(max_examples=60, phases=[Phase.generate])
@given(st.randoms(use_true_random=False))
def test_mutated_run_folders(whole, other, tmp_path_factory, pick):
    out = tmp_path_factory.mktemp("mutated") / "run"
    shutil.copytree(whole, out)
    try:
        what = damage.damaged(out, other, pick)
        print(what, damage.refusals(out, bits()))
    finally:
        shutil.rmtree(out.parent)


def test_a_sound_folder_is_refused_nowhere(whole, tmp_path):
    assert damage.refusals(shutil.copytree(whole, tmp_path / "run"), bits()) == []


def test_an_error_of_python_is_found(whole, tmp_path, monkeypatch):
    """Without the schema the mutations are not refused in sentences."""
    from tinyvae.runs import schema

    monkeypatch.setattr(schema, "check", lambda *_: None)
    out = shutil.copytree(whole, tmp_path / "run")
    from run_folders import reseal

    reseal(out / "last.safetensors", lambda arrays, meta: meta.update(epoch="x"))
    with pytest.raises((TypeError, ValueError)):
        damage.refusals(out, bits())
