"""What a person sees of a run in the terminal: a progress bar, one line an epoch, tables with units."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyvae.choices import counted
from tinyvae.evidence.ais import TwoSided
from tinyvae.evidence.diagnostics import Quantity
from tinyvae.evidence.evaluation import Evaluation
from tinyvae.runs import files
from tinyvae.training.epochs import Training


def console(stderr: bool = False) -> Any:
    """A rich console; plain text where nobody looks."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


class TrainingView:
    """Shows a training as it goes: a bar on a terminal, a line an epoch everywhere, JSON lines if asked."""

    def __init__(self, training: Training, as_json: bool = False) -> None:
        self.training, self.as_json = training, as_json
        self._progress: Any = None
        self._task: Any = None
        self._console = console()

    @contextmanager
    def live(self) -> Iterator[TrainingView]:
        """Within this block the bar moves."""
        if self.as_json or not sys.stdout.isatty():
            yield self
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TextColumn("batches"),
                   TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            self._progress = progress
            self._task = progress.add_task("", total=self.training.batches.steps, epoch=self._epoch())
            yield self
        self._progress = None

    def _epoch(self) -> str:
        return f"{self.training.epoch + 1}/{self.training.settings.epochs}"

    def on_step(self, training: Training, done: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, epoch=self._epoch())

    def on_epoch(self, record: dict[str, Any], timings: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(files.plain(record)), flush=True)
        else:
            self._console.print(epoch_line(record, timings, self.training), markup=False)


def heading(training: Training) -> str:
    """What the columns of the epoch lines are."""
    data, settings = training.data, training.settings
    name = f"L_{settings.importance_samples}, the bound of iwae," if settings.bound == "iwae" else training.model.goal
    size = data.size_in_words + ("" if data.is_table else " pixels")
    units = ", as densities of standardised columns" if data.kind == "real" else ""
    return (f"{data.name}: {len(data.train):,} training, {len(data.test):,} test data of {size}; {training.model}\n"
            f"{name} in nats per datum (higher is better{units}) on training and test data, the latter with its "
            "standard error")


def epoch_line(record: dict[str, Any], timings: dict[str, Any], training: Training) -> str:
    """One epoch: bounds, terms, active units, speed, and the fingerprint of the parameters."""
    name, elbo = ("bound", f"ELBO {record['test_elbo']:.2f}, ") if "train_bound" in record else ("elbo", "")
    valid = f"  valid {record[f'valid_{name}']:.2f}" if "valid_elbo" in record else ""
    skipped = f"  skipped {record['skipped']}" if record["skipped"] else ""
    error = record[f"test_{name}_stderr"]  # one datum has none
    if record["test_kl"] is None:  # a model whose bound has other terms
        shown = {}  # of terms that test data have no value for, that of the training data
        for key in (key.removeprefix("train_") for key in record if key.startswith("train_")):
            if key not in ("elbo", "count", "objective"):
                known = f"test_{key}" in record
                if known and record[f"test_{key}"] == record["test_elbo"]:
                    continue  # the only term of the bound, which the line has already
                shown[key if known else f"train {key}"] = record[f"test_{key}" if known else f"train_{key}"]
        parts = f"({', '.join(f'{key} {value:.2f}' for key, value in shown.items())})"
    else:
        layers = "active_units_per_layer" in record  # of a hierarchy, the lowest first
        of_layers = f" = {' + '.join(f'{kl:.2f}' for kl in record['kl_per_dimension'])}" if layers else ""
        parts = f"({elbo}reconstruction {record['test_reconstruction']:.2f}, KL {record['test_kl']:.2f}{of_layers})"
        if "train_weights" in record:  # of a posterior over weights, for all training data together
            parts += f"  KL of the weights {record['train_weights'] * record['train_count']:,.0f} nats"
        if record["active_units"] is not None:  # a model with several latent variables counts none
            active = "+".join(map(str, record["active_units_per_layer"] if layers else [record["active_units"]]))
            parts += (f"  active {active}/{training.model.latent} (variance > "
                      f"{record['active_threshold']:g})")
    right = "".join(f"  {part} accuracy {record[f'{part}_accuracy']:.2%} ± {record[f'{part}_accuracy_stderr']:.2%}"
                    for part in ("valid", "test") if f"{part}_accuracy" in record)
    return (f"epoch {record['epoch']:>3}/{training.settings.epochs}  train {record[f'train_{name}']:.2f}{valid}  "
            f"test {record[f'test_{name}']:.2f}{'' if math.isnan(error) else f' ± {error:.2f}'}{right}  {parts}  "
            f"{timings['data_per_second']:,.0f} data/s  {record['fingerprint']}{skipped}")


def evaluation_table(result: Evaluation, part: str, kept: dict[str, Any]) -> Any:
    """Every number with its unit, direction, standard error and count."""
    first = f"the first {result.data_count:,} of {result.data_available:,}" if result.data_available else \
        f"{result.data_count:,}"
    table = quantity_table(f"{result.data}, {first} {part} data, one draw of z each", kept, result.quantities())
    table.caption = result.remarks() or None
    return table


def two_sided_table(result: TwoSided, kept: dict[str, Any]) -> Any:
    """log p(x) of data that the model made, from below and above."""
    table = quantity_table(f"{result.data_count:,} data made by the model", kept, result.quantities())
    table.caption = (f"ais: from the {result.start} by {counted(result.temperatures, 'temperature')}, "
                     f"{counted(result.chains, 'chain')} each "
                     "way; on average log p(x) lies between the two, so neither errs by more than the gap"
                     + ("" if result.gap > 2 * result.gap_stderr else ", which is 0 within its error"))
    return table


def quantity_table(title: str, kept: dict[str, Any], quantities: list[Quantity]) -> Any:
    """A table of numbers with their errors, units and directions."""
    from rich.table import Table

    table = Table(title=f"{title}; parameters of epoch {kept['epoch']} ({kept['checkpoint']})", title_justify="left",
                  caption_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("quantity", "value", "std. error", "unit", "direction"):
        table.add_column(name, justify="right" if name in ("value", "std. error") else "left")
    for quantity in quantities:
        table.add_row(*quantity.cells())
    return table
