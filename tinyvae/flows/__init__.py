"""Normalizing flows: posteriors q(z|x) that invertible maps make of a normal one, one file a kind.

Every module of this folder is imported, so a new file is at once a choice of `posterior`.
"""

from importlib import import_module
from pkgutil import iter_modules

from tinyvae.flows.base import FLOWS, Flow, FlowFamily, Map, flow, posterior_family

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["FLOWS", "Flow", "FlowFamily", "Map", "flow", "posterior_family"]
