"""The lines of docs/data.md that load a run's weights in PyTorch give what this library computes."""

import re

import numpy as np
import pytest
from support import ROOT
from tables import table

import tinyvae as tv


def test_weights_in_pytorch(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="optional: torch, in which a run's weights are loaded")
    (code,) = re.findall(r"^```py\n(.*?)^```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL | re.MULTILINE)
    data = table(60)
    tv.fit(tv.VAE(3, 8, 2, likelihood="normal"), data, out=tmp_path / "run", epochs=2)
    monkeypatch.chdir(tmp_path)
    names = {"x": torch.from_numpy(data.test)}
    exec(code, names)
    model = tv.load(tmp_path / "run")
    for found, expected in zip((names["mean"], names["logvar"]), model.encode(data.test), strict=True):
        assert np.abs(found.detach().numpy() - expected).max() < 1e-5
    decoded = names["decoder"](names["mean"]).detach().numpy()[:, :3]
    assert np.abs(decoded - model.decode(names["mean"].detach().numpy())).max() < 1e-5
