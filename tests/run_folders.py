"""A small run folder for tests: made in a moment, with everything in it."""

import json

import numpy as np

import tinyvae as tv
from tinyvae.data import DataSet
from tinyvae.runs import checkpoint

SETTINGS = {"epochs": 2, "batch": 8, "seed": 3, "lr": 0.01}


def bits(seed=0, name="mine-static"):
    """20 training and 5 test data of 12 pixels, which have no file."""
    rng = np.random.default_rng(seed)
    train, test = (rng.integers(0, 2, (n, 12), np.uint8) for n in (20, 5))
    return DataSet(name, train, test, (3, 4), 1.0, "static", "bernoulli")


def vae(**config):
    return tv.VAE(12, **{"hidden": 6, "latent": 2, **config})


def begin(out, **settings):
    """Train a small model in a new run folder, which is returned."""
    tv.fit(vae(), bits(), out=out, **SETTINGS | settings)
    return out


def reseal(file, change):
    """Change the arrays and the meta of a checkpoint, and seal it again: what a forger would do."""
    arrays, meta = checkpoint.load(file)
    change(arrays, meta)
    checkpoint.save(file, arrays, meta)


def edit(out, change):
    """Change config.json."""
    file = out / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def files_of(out):
    """The bytes of each file of a run folder, by its name."""
    return {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
