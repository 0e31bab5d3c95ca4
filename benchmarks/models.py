"""Timing a pass of M2 and of conditional models: beside a pass of the VAE of the same widths, and in Pyro.

Networks, first weights, objective, optimizer, sizes of the batches and the labelled data are the same for tinyvae and
Pyro; each has its own random generator. Before they are timed, the losses of their first steps are compared. A pass
goes over all training data of MNIST, whose pixels are drawn at each use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyvae as tv
from benchmarks import nets, parts, peers, tables, workers
from benchmarks.parts import Content
from benchmarks.peer_tinyvae import Trained, copied
from tinyvae.measure.timing import Timing
from tinyvae.runs import environment
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

OURS, VAE, PYRO, PACKAGE = "tinyvae", "tinyvae, VAE", "Pyro", "pyro"
LABELS = 100
LEAST = 2.5  # how many times the time of tinyvae that of Pyro is to be at least
STEPS = 20  # the number of steps in a turn
COMPARED = 100  # the number of compared steps, after which a loss without its KL would be another one, or an epoch
WORK = """a pass over the training data: gather the batch and draw its pixels, draw normals, forward, backward, Adam;
M2 also reads a batch of labelled data in each step"""


@dataclass(frozen=True)
class Case:
    """A model whose networks have one hidden layer, its data, and what its time is held against."""

    model: str
    given: str
    most: float  # how many times the VAE's time its own is to be at most
    data: str = "mnist-dynamic"
    hidden: int = 400
    latent: int = 20
    batch: int = 100

    def __str__(self) -> str:
        return f"{self.model} {self.given}".rstrip()


GIVEN = ("label", "quadrants:1", "pooled:4", "pooled:2")
CASES = (Case("m2", "", 11.0), *(Case("cvae", given, 1.3) for given in GIVEN))
SMALL = (Case("m2", "", 11.0, "digits", 20, 3, 50), Case("cvae", "label", 1.3, "digits", 20, 3, 50))  # of a quick run


def compared(case: Case) -> int:
    """The number of compared steps."""
    return min(COMPARED, len(tv.data.load(case.data).train) // case.batch)


def training(case: Case, plain: bool = False) -> Training:
    """The training of a model, or of the VAE of its widths, before its first step."""
    data = tv.data.load(case.data)
    options = {"given": case.given} if case.given and not plain else {}
    model = tv.models.model_for("vae" if plain else case.model, data, hidden=case.hidden, latent=case.latent, **options)
    few = {"labels": LABELS} if "labelled" in model.needs else {}
    ready = Training(model, data, Settings(batch=case.batch, **few))
    ready.begin_epoch()
    return ready


class Ours(Trained):
    """The contestant; workers.py explains `about` and `losses`."""

    plain = False

    def __init__(self, case: Case) -> None:
        ready, self.batch = training(case, self.plain), case.batch
        super().__init__(ready, ready.step, copied(ready))
        self.some()

    def about(self) -> dict[str, Any]:
        return {"numba": environment.installed("numba"), "threads": environment.blas()["threads"]}

    def some(self) -> None:
        """Train for STEPS steps."""
        nets.rewind(self.training)
        self.training.step_many([self.batch] * STEPS)


class Plain(Ours):
    """The VAE of the same widths."""

    plain = True


def check(case: Case, team: dict[str, workers.Worker]) -> None:
    """Check that Pyro trains to the loss of tinyvae, the mean of the last steps; SystemExit if it does not."""
    found = [team[name].ask("losses", compared(case)) for name in (PYRO, OURS)]
    theirs, ours = ([losses[0], float(np.mean(losses[-STEPS:]))] for losses in found)
    peers.check_losses(case, PYRO, theirs, ours)


def measure(case: Case, quick: bool) -> Content:
    """Check the first losses, then time the contestants in alternation; a row for each."""
    places = {OURS: "benchmarks.models:Ours", VAE: "benchmarks.models:Plain"}
    if peers.here(PYRO, PACKAGE):
        places[PYRO] = f"benchmarks.peer_pyro:{case.model.upper()}"
    rounds, least, rest = (2, 2e-3, 0.0) if quick else (15, 0.3, nets.REST)
    with workers.team(places, case) as team:
        if PYRO in team:
            check(case, team)
        tables.say(f"{case}: timing {rounds} rounds")
        turns = {name: (worker, "some") for name, worker in team.items()}
        times = workers.measure(turns, STEPS, rounds, least, pause=rest)
        about = {f"{case}, {name}": worker.ask("about") for name, worker in team.items()}
    return {"rows": [_row(case, name, t, times) for name, t in times.items()], "contestants": about}


def _row(case: Case, name: str, timing: Timing, times: dict[str, Timing]) -> dict[str, Any]:
    """Seconds a pass, and the ratios within the rounds: to the VAE's time, and to that of tinyvae."""
    steps = len(tv.data.load(case.data).train) / case.batch
    (low, high), ours = timing.quartiles, times[OURS]
    times_vae, times_ours = times[VAE].times_faster_than(timing), ours.times_faster_than(timing)
    wanted = {OURS: {"most_times_vae": case.most, "reached": times_vae <= case.most},
              PYRO: {"least_times_our_time": LEAST, "reached": times_ours >= LEAST}}.get(name, {})
    return {"model": str(case), "size": f"{case.hidden}-{case.latent}", "batch": case.batch, "data": case.data,
            "step": name, "seconds_a_pass": steps * timing.median, "lower_quartile": steps * low,
            "upper_quartile": steps * high, "rounds": len(timing.seconds), "times_vae": times_vae,
            "times_our_time": times_ours, **wanted}  # fmt: skip


def show(content: Content) -> None:
    """Print the table."""
    columns = {
        "model": lambda row: row["model"], "step": lambda row: row["step"],
        "s a pass": lambda row: f"{row['seconds_a_pass']:.2f}",
        "quartiles": lambda row: f"{row['lower_quartile']:.2f} to {row['upper_quartile']:.2f}",
        "its time/VAE's": lambda row: f"{row['times_vae']:.2f}",
        f"its time/{OURS}'s": lambda row: f"{row['times_our_time']:.2f}",
    }  # fmt: skip
    note = f"checked before: after {COMPARED} steps, or an epoch, Pyro has the same loss to {peers.DRIFT:.0%}"
    tables.plain(WORK, columns, content["rows"],
                 "s a pass: lower is better; each ratio is the median of the rounds' ratios", note)


def table_of(quick: bool) -> parts.Table:
    """A part for each model."""
    found = {str(case): lambda _, case=case: measure(case, quick) for case in (SMALL if quick else CASES)}
    return parts.Table("models", found, show, head={"work": WORK})
