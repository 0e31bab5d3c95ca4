"""Probability distributions: one file a family, each a choice by the name under which it registers itself.

Every module of this folder is imported, so a new file is at once a family; each family's class stands here by its own
name, as in `from tinyvae.distributions import Gamma`.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from tinyvae.distributions.base import Distribution
from tinyvae.distributions.divergence import closed_form, has_closed_kl, kl, kl_or_sampled, kl_per_dimension
from tinyvae.distributions.registry import (
    FAMILIES,
    LIKELIHOODS,
    family,
    likelihood,
    misfit,
    posteriors,
    prior_family,
    prior_of,
)
from tinyvae.distributions.stable import LogTensor, UnitTensor

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
_classes = {cls.__name__: cls for cls in FAMILIES.values() if cls.__module__.startswith(__name__)}
globals().update(_classes)

if TYPE_CHECKING:  # the classes, which no line here names
    def __getattr__(name: str) -> Any: ...

__all__ = [*_classes, "FAMILIES", "LIKELIHOODS", "Distribution", "LogTensor", "UnitTensor", "closed_form", "family",
           "has_closed_kl", "kl", "kl_or_sampled", "kl_per_dimension", "likelihood", "misfit", "posteriors",
           "prior_family", "prior_of"]
