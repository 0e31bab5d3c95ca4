"""Whether a model and its steps fit into this machine's memory; on a GPU the allocation itself fails."""

from __future__ import annotations

from tinyvae.engine.devices import CPU, physical_memory
from tinyvae.models import Model
from tinyvae.nn.network import layer_outputs
from tinyvae.training.settings import Settings


def check_memory(model: Model, settings: Settings) -> None:
    """Raise ValueError if two arrays for each layer and draw of a step exceed this machine's memory."""
    if model.xp is not CPU:
        return
    rows = settings.batch * settings.samples * settings.importance_samples * model.copies
    needed, there = 2 * rows * layer_outputs(model.parameters) * model.dtype.itemsize, physical_memory()
    if needed > there:
        raise ValueError(f"a step of {rows:,} draws needs about {needed / 2**30:,.0f} GiB, and this machine has "
                         f"{there / 2**30:,.0f}: make --batch, --samples or --importance-samples smaller")
