"""Equal bits have one fingerprint, and others another."""

import numpy as np

from tinyvae.training.fingerprint import fingerprint


def test_fingerprint():
    assert fingerprint(np.zeros(3)) == fingerprint(np.zeros(3))
    prints = [
        fingerprint(x)
        for x in (np.zeros(3), np.zeros((3, 1)), np.zeros(3, np.float32), -np.zeros(3), {"a": np.zeros(3)},
                  {"b": np.zeros(3)})
    ]  # fmt: skip
    assert len(set(prints)) == len(prints)
    assert all(len(p) == 12 and int(p, 16) >= 0 for p in prints)
