"""The page as text: it reads back what was packed, its policy names its script, and names stay text."""

import base64
import hashlib
import html
import json
import re
import zlib

import numpy as np
import pytest
from run_folders import begin

import tinyvae as tv
from tinyvae.explorer import explore
from tinyvae.explorer.writing import pack, page
from tinyvae.runs import CheckpointError

EVIL = "</script><b>\u2028&amp;\"'"
MB = 1_000_000


def block(text, tag):
    return re.search(rf"<{tag}>(.*?)</", text, re.DOTALL).group(1)


def facts_of(text):
    return json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL).group(1))


def test_arrays_come_back():
    arrays = {"half": np.array([[1.5, -2.0**-24]], np.float16), "whole": np.array([np.pi], np.float32),
              "bytes": np.arange(5, dtype=np.uint8), "labels": np.array([-1, 300], np.int16),
              "bits": np.array([1, 0, 1, 1, 0, 0, 0, 1, 1], bool)}  # fmt: skip
    table, packed = pack(arrays)
    content = zlib.decompress(packed)
    for name, array in arrays.items():
        row = table[name]
        assert row["count"] == array.size
        assert row["at"] % 4 == 0
        if name == "bits":
            found = np.unpackbits(np.frombuffer(content, np.uint8, 2, row["at"]), count=9).astype(bool)
        else:
            found = np.frombuffer(content, row["type"], row["count"], row["at"])
        assert (found == array.reshape(-1)).all()


def test_the_policy_names_the_script_and_the_style():
    text = page({"name": "run", "data": "set"}, {})
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text).group(1)
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(block(text, tag).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"(src|href)=|https?://|style=", text.split("</style>")[1].partition('id="facts"')[0])


def test_names_stay_text():
    facts = {"name": EVIL, "data": EVIL, "names": [EVIL], "kl_error": [float("nan")]}
    text = page(facts, {})
    assert EVIL not in text
    assert html.unescape(block(text, "title")) == f"{EVIL}: {EVIL}"
    assert facts_of(text) == {**facts, "kl_error": [None], "arrays": {}}


def test_a_run_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"unknown data set 'mine-static'.*say where they are now"):
        explore(begin(tmp_path / "run"))  # its data were in memory
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", train=rng.integers(0, 256, (40, 4, 3), np.uint8),
             test=rng.integers(0, 256, (9, 4, 3), np.uint8))  # fmt: skip
    model = tv.VAE(12, hidden=6, latent=2)
    tv.fit(model, str(tmp_path / "set.npz-dynamic"), out=tmp_path / EVIL.replace("/", ""), epochs=1)
    run = tmp_path / EVIL.replace("/", "")
    assert explore(run) == run / "explorer.html"
    facts = facts_of((run / "explorer.html").read_text())
    assert (facts["name"], facts["data"]) == (run.name, "set.npz-dynamic")  # without the path
    other = explore(run / "last.safetensors", tmp_path / "new" / "page.html")
    assert facts_of(other.read_text())["name"] == run.name
    with pytest.raises(CheckpointError, match=r"is a folder; expected the name of a file, as .*explorer.html"):
        explore(run, tmp_path)


def test_the_page_of_784_400_20_is_small():
    """At most 3 MB, with as many test data as it ever holds; and 0.5 MB with the default sizes for digits."""
    rng = np.random.default_rng(0)
    images = np.where(rng.random((1060, 784)) < 0.2, rng.integers(0, 256, (1060, 784)), 0).astype(np.uint8)
    data = tv.DataSet("made-dynamic", images[:60], images[60:], (28, 28), 255.0, "dynamic", "bernoulli")
    from tinyvae.explorer.contents import contents

    for model, of, most in ((tv.VAE(784, 400, 20), data, 3 * MB), (tv.VAE(64), tv.data.load("digits"), MB // 2)):
        size = len(page(*contents(model, of, "run")))
        print(f"{size / MB:.2f} MB, allowed {most / MB:.1f}")
        assert size <= most
