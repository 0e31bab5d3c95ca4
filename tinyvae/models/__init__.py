"""Models, one file each. A model is registered under its kind when its file is imported."""

from tinyvae.models.base import MODELS, Model, Phase, build_model
from tinyvae.models.batch import Batch
from tinyvae.models.extensions import use
from tinyvae.models.vae import VAE

__all__ = ["MODELS", "VAE", "Batch", "Model", "Phase", "build_model", "use"]
