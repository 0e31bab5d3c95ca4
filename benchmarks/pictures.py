"""Drawing the pictures of the README and of docs/conditional.md from the trainings that they name."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

import tinyvae as tv
from benchmarks import results
from tinyvae.models import model_for
from tinyvae.pictures import answers, gallery
from tinyvae.pictures.completions import completions
from tinyvae.tasks.generation.upscaling import upscale

FOLDER = results.ROOT / "docs" / "pictures"


def run() -> None:
    """Train on the digits like the first command, and on MNIST with 20 and with 2 latents, and save the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    digits, mnist = tv.data.load("digits"), tv.data.load("mnist-dynamic")
    with tempfile.TemporaryDirectory() as folder:
        trainings = ("digits", digits, 20, 401), ("mnist", mnist, 20, 10), ("plane", mnist, 2, 20)
        for name, data, latent, epochs in trainings:
            model = tv.VAE(data.dimensions, hidden=400, latent=latent)
            records = tv.fit(model, data, epochs=epochs)
            print(f"{name}: test ELBO {records[-1]['test_elbo']:.2f} nats per datum after {epochs} passes")
            out = Path(folder) / name
            out.mkdir()
            drawn = [gallery.manifold(model, data, out)] if latent == 2 else [gallery.sample(model, data, out),
                                                                              gallery.traverse(model, data, out)]
            for files in drawn:
                for file in files:
                    kind = "mnist" if name == "plane" else name
                    if file.name in ("samples.png", "manifold.png") or (name == "digits" and file.suffix == ".gif"):
                        shutil.copy(file, FOLDER / f"{kind}-{file.name}")
            if name == "mnist":
                found = tv.complete(model, data, "left", "metropolis", count=30)
                completions(found, data.shape, FOLDER / "mnist-completion.png")
        few_labels(digits, Path(folder))
    conditional()


def few_labels(data: tv.DataSet, folder: Path) -> None:
    """The pictures of the page about learning from few labels, by the run that it begins with."""
    model = model_for("m2", data, hidden=200, latent=5)
    tv.fit(model, data, labels=100, batch=50, lr=3e-3, epochs=60)
    for draw in (gallery.confusion, gallery.reliability, gallery.analogies):
        for file in draw(model, data, folder):
            shutil.copy(file, FOLDER / f"digits-{file.name}")


def conditional() -> None:
    """Train on the digits with a half of each image, or with averaged images, given, as docs/conditional.md does."""
    digits = tv.data.load("digits")
    with tempfile.TemporaryDirectory() as folder:
        for name, given in (("answers", "quadrants:2"), ("upscaled", "pooled:2")):
            model = model_for("cvae", digits, given=given)
            records = tv.fit(model, digits, epochs=100)
            print(f"{name}: test ELBO {records[-1]['test_elbo']:.2f} nats per datum after 100 passes")
            if name == "answers":
                file = gallery.sample(model, digits, Path(folder))[0]
            else:
                images = (digits.test / np.float32(digits.scale)).reshape(-1, *digits.shape)
                file = answers.upscaled(upscale(model, images, (0.2, 1.0)), digits.shape, Path(folder) / "upscaled.png")
            shutil.copy(file, FOLDER / f"digits-{name}.png")
