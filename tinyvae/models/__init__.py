"""Models, one file each. Every file of this folder is imported, and registers its model under the model's kind."""

from importlib import import_module
from pkgutil import iter_modules

from tinyvae.models.base import (
    MODELS,
    Model,
    Phase,
    build_model,
    check_finite,
    check_model,
    config_for,
    model_for,
    options_of,
    taken_by,
)
from tinyvae.models.batch import Batch
from tinyvae.models.extensions import use
from tinyvae.models.vae import VAE

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["MODELS", "VAE", "Batch", "Model", "Phase", "build_model", "check_finite", "check_model", "config_for",
           "model_for", "options_of", "taken_by", "use"]
