"""Timing the same training step in tinyvae, JAX and PyTorch. The steps are checked before they are timed.

Net, weights, data, order of the data and optimizer are the same for all contestants; each has its own random generator.
The peers run as their users would run them, in the fastest of the forms that were tried (see the peers' files).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from benchmarks import nets, parts, plots, tables, workers
from benchmarks.nets import Net
from benchmarks.parts import Content
from benchmarks.tables import FLOOR
from benchmarks.workers import Worker

OURS, SPARSE = "tinyvae", "tinyvae, sparse"
# The package and the class of each peer.
PEERS: dict[str, tuple[str, str]] = {
    "JAX, scan": ("jax", "benchmarks.peer_jax:Scan"),
    "torch, eager": ("torch", "benchmarks.peer_torch:Eager"),
    "torch.compile": ("torch", "benchmarks.peer_torch:Compiled"),
}
SLOW_TO_START = ("torch.compile",)  # left out of a quick run
STEPS = 20  # the number of compared steps
TOLERANCE = 1e-4  # the relative tolerance of a loss, and of a gradient relative to the largest element of its array
DRIFT = 0.02  # the relative tolerance of the loss after STEPS steps, since the contestants draw different normals
WORK = f"""a training step: gather the batch, draw its pixels (where they are dynamic), draw normals, forward, backward,
the loss's value, Adam; {OURS} also checks loss and gradient for NaN and infinity"""


def here(name: str, package: str) -> bool:
    """Whether a peer's package is installed; prints a line if it is not."""
    if importlib.util.find_spec(package) is None:
        print(f"{name} is left out: {package} is not installed (pip install '.[peers]')")
        return False
    return True


def installed(quick: bool) -> dict[str, str]:
    """The classes of the peers that can run; prints a line for each that cannot."""
    found = {}
    for name, (package, place) in PEERS.items():
        if quick and name in SLOW_TO_START:
            print(f"{name} is left out of a quick run: it compiles for longer than the rest takes")
        elif here(name, package):
            found[name] = place
    return found


# ---- the checks ------------------------------------------------------------------------------------------------------


def refuse(net: object, name: str, what: str) -> None:
    """End the program, because the step of a contestant is wrong."""
    raise SystemExit(f"{net}: {name} {what}; nothing was timed")


def check_gradients(net: Net, name: str, reference: dict[str, Any], loss: float, gradients: dict[str, Any],
                    tolerance: float = TOLERANCE) -> None:
    """Check that loss and gradients for one batch and one draw of normals are those of tinyvae."""
    if not abs(loss - reference["loss"]) <= tolerance * abs(reference["loss"]):  # NaN fails
        refuse(net, name, f"has a loss of {loss:.6g}, {OURS} {reference['loss']:.6g} nats per datum")
    for parameter, ours in reference["gradients"].items():
        error = np.abs(gradients[parameter] - ours).max() / np.abs(ours).max()
        if not error <= tolerance:
            refuse(net, name, f"differs from {OURS} in the gradient by {parameter} by {error:.2g} of its largest")


def check_draws(net: Net, name: str, x: np.ndarray, eps: np.ndarray) -> None:
    """Check that the first batch has the right rows and pixels, and that the normals have mean 0 and variance 1."""
    data = nets.data_set(net)
    grey = data.train[nets.order(net)[0]] / data.scale
    if not (x.shape == grey.shape and np.isin(x, (0, 1)).all()):
        refuse(net, name, f"has pixels from {x.min():.3g} to {x.max():.3g} in a batch {x.shape}; expected bits")
    for weight in (np.ones_like(grey), 2 * grey - 1):  # the second sum finds pixels of other rows
        spread = np.sqrt((grey * (1 - grey) * weight**2).sum())  # the standard error of the sum; 0 for fixed bits
        if not abs(((x - grey) * weight).sum()) <= 5 * spread:
            refuse(net, name, "does not gather the first batch, or draws its pixels wrongly")
    error = 5 / np.sqrt(eps.size)
    if not (eps.shape == (net.batch, net.latent) and abs(eps.mean()) <= error and abs(eps.var() - 1) <= 1.5 * error):
        refuse(net, name, f"draws normals of mean {eps.mean():.3g} and variance {eps.var():.3g}")


def check_losses(net: object, name: str, losses: list[float], ours: list[float]) -> None:
    """Check that after some steps the loss is finite, is lower than at first, and is near that of tinyvae."""
    if not (np.isfinite(losses).all() and losses[-1] < losses[0]):
        refuse(net, name, f"does not train: a loss of {losses[0]:.4g} became {losses[-1]:.4g} in {len(losses)} steps")
    if not abs(losses[-1] - ours[-1]) <= DRIFT * abs(ours[-1]):
        refuse(net, name, f"trains to a loss of {losses[-1]:.4g} in {len(losses)} steps, {OURS} to {ours[-1]:.4g}")


def check(net: Net, team: dict[str, Worker], tolerance: float = TOLERANCE) -> None:
    """Make all checks for every contestant; SystemExit at the first that fails."""
    reference, ours = team[OURS].ask("reference"), team[OURS].ask("losses", STEPS)
    check_draws(net, OURS, reference["x"], reference["eps"])
    check_losses(net, OURS, ours, ours)
    for name, worker in team.items():
        if name != OURS:
            answer = worker.ask("loss_and_gradients", reference["x"], reference["eps"])
            check_gradients(net, name, reference, *answer, tolerance)
            check_draws(net, name, *worker.ask("first_batch"))
            check_losses(net, name, worker.ask("losses", STEPS), ours)


# ---- the measurement -------------------------------------------------------------------------------------------------


def measure(net: Net, peers: dict[str, str], quick: bool) -> Content:
    """Check the contestants, then time them in alternation; a row for each, and their versions."""
    rounds, least, rest = (2, 2e-3, 0.0) if quick else (15, 0.3, nets.REST)
    if net.data == nets.MNIST:  # only real digits have enough zeros for a sparse first layer
        peers = {SPARSE: "benchmarks.peer_tinyvae:Sparse", **peers}
    tables.say(f"{net}: starting, compiling and checking {', '.join([OURS, *peers])}")
    with workers.team({OURS: "benchmarks.peer_tinyvae:Replayed", **peers}, net) as team:
        check(net, team)
        tables.say(f"{net}: same loss, gradients and course of {STEPS} steps; timing {rounds} rounds")
        turns = {FLOOR: (team[OURS], "products"), **{name: (worker, "epoch") for name, worker in team.items()}}
        times = workers.measure(turns, nets.steps_an_epoch(net), rounds, least, pause=rest)
        about = {name: worker.ask("about") for name, worker in team.items()}
    rows = [tables.row(net, name, t, times[FLOOR], times_our_time=times[OURS].times_faster_than(t))
            for name, t in times.items()]
    return {"rows": rows, "contestants": about}


def show(content: Content) -> None:
    """Print the table."""
    columns = {**tables.NET, "step": lambda row: row["step"], **tables.TIME,
               f"its time/{OURS}'s": lambda row: f"{row['times_our_time']:.2f}"}
    tables.show(WORK, columns, content["rows"], tables.NOTE,
                f"its time/{OURS}'s: the median of the rounds' ratios; above 1 {OURS} is faster",
                f"checked before: the same loss and gradients to {TOLERANCE:g} for one batch and one draw, and after "
                f"{STEPS} steps the same loss to {DRIFT:.0%}")


def table_of(quick: bool) -> parts.Table:
    """A part for each net."""
    peers = installed(quick)
    chosen = nets.chosen(quick)[-1 if quick else 0 :]  # a quick run has one net, because the libraries start slowly
    found = {str(net): lambda _, net=net: measure(net, peers, quick) for net in chosen}
    return parts.Table("peers", found, show, lambda _, path: plots.peers(path), head={"work": WORK})
