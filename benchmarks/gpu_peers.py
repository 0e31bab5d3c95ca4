"""Timing the same step on the GPU in tinyvae, PyTorch and JAX. The steps are checked before they are timed.

Net, weights, data, order of the data, optimizer and checks are those of peers.py; all data lie on the card. Only one
library uses the card at a time. Each runs as its users would run it: PyTorch's compiled step with its gather and its
draws as one CUDA graph, JAX's epoch as one scan. Every epoch ends when the card has finished.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

from benchmarks import gpu_steps, nets, peers, tables, workers
from benchmarks.nets import ROWS, Net
from benchmarks.parts import Content, Part
from benchmarks.peers import OURS, STEPS
from benchmarks.tables import FLOOR, Columns, Row
from tinyvae.training.epochs import CHECK_INTERVAL

EAGER, GRAPH, SCAN = "torch, eager", "torch.compile, graph", "JAX, scan"
ON_CUDA = "import torch; x = torch.ones(8, device='cuda'); "
# The package of each peer, its class, and a program that fails if the peer cannot use the card.
PEERS: dict[str, tuple[str, str, str]] = {
    SCAN: ("jax", "benchmarks.peer_jax:Scan", "import jax; jax.devices('cuda')"),
    EAGER: ("torch", "benchmarks.peer_torch:Eager", f"{ON_CUDA}x + 1"),
    GRAPH: ("torch", "benchmarks.peer_torch:Captured", f"{ON_CUDA}torch.compile(lambda x: x.sin() + 1)(x)"),
}
SLOW_TO_START = (GRAPH,)  # left out of a quick run
TARGETS = {100: 1.5, 8192: 1.0}  # by batch: the wanted ratio of our steps per second to those of the best peer
TOLERANCES = {False: peers.TOLERANCE, True: gpu_steps.ALLOWED["TF32"][1]}  # without TF32 and with it
REST, LEAST = 0.02, 0.1  # the seconds of rest before each turn, and the least seconds of a turn


def net_of(batch: int) -> Net:
    """The net with this batch, and enough data for an epoch of all compared steps."""
    net = gpu_steps.NET
    return Net(net.pixels, net.hidden, net.latent, batch, rows=max(ROWS, STEPS * batch))


def installed(quick: bool) -> dict[str, str]:
    """The classes of the peers that can run; prints a line for each that cannot."""
    found, trials = {}, {}
    for name, (package, _, trial) in PEERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed (pip install it with CUDA)")
        elif quick and name in SLOW_TO_START:
            print(f"{name} is left out of a quick run: it compiles for longer than the rest takes")
        else:
            trials[name] = subprocess.Popen([sys.executable, "-c", trial], stderr=subprocess.PIPE, text=True,
                                            env=os.environ | workers.SETTINGS)
    for name, trial in trials.items():
        lines = trial.communicate()[1].strip().splitlines()
        if trial.returncode:
            print(f"{name} is left out: it cannot use this GPU ({lines[-1] if lines else 'it says nothing'})")
        else:
            found[name] = PEERS[name][1]
    return found


def measure(net: Net, tf32: bool, places: dict[str, str], rounds: int) -> Content:
    """Check the contestants, then time them in alternation; a row for each, and their versions."""
    precision = "TF32" if tf32 else "float32"
    tables.say(f"{net}, {precision}: starting, compiling and checking {', '.join([OURS, *places])}")
    places = {OURS: "benchmarks.peer_tinyvae:OnCard", **places}
    with workers.team(places, net, device="cuda", tf32=tf32) as team:
        peers.check(net, team, TOLERANCES[tf32])
        tables.say(f"{net}, {precision}: same loss, gradients and course of {STEPS} steps; timing {rounds} rounds")
        turns = {FLOOR: (team[OURS], "products"), **{name: (worker, "epoch") for name, worker in team.items()}}
        times = workers.measure(turns, nets.steps_an_epoch(net), rounds, LEAST, REST)
        about = {name: worker.ask("about") for name, worker in team.items()}
    rows = [tables.row(net, name, t, times[FLOOR], precision=precision, steps_per_second=1 / t.median,
                       times_our_time=times[OURS].times_faster_than(t)) for name, t in times.items()]
    return {"peers": rows, "contestants": about}


def verdicts(rows: list[Row]) -> list[dict[str, Any]]:
    """The speed relative to the best peer by batch and precision, and whether it reaches the target."""
    found = []
    for batch, precision in dict.fromkeys((row["batch"], row["precision"]) for row in rows):
        rivals = [row for row in rows if (row["batch"], row["precision"]) == (batch, precision)
                  and row["step"] not in (OURS, FLOOR, EAGER)]
        if rivals and batch in TARGETS:
            best = min(rivals, key=lambda row: row["microseconds"])
            found.append({"batch": batch, "precision": precision, "best": best["step"], "target": TARGETS[batch],
                          "times": best["times_our_time"], "reached": best["times_our_time"] >= TARGETS[batch]})
    return found


COLUMNS: Columns = {
    **tables.NET,
    "precision": lambda row: row["precision"],
    "step": lambda row: row["step"],
    "us/step": lambda row: f"{row['microseconds']:,.1f}",
    "quartiles": lambda row: f"{row['lower_quartile']:,.1f} to {row['upper_quartile']:,.1f}",
    "steps/s": lambda row: f"{row['steps_per_second']:,.0f}",
    "products/step": lambda row: f"{row['share_of_floor']:.0%}",
    f"its time/{OURS}'s": lambda row: f"{row['times_our_time']:.2f}",
}
NOTE = f"""us/step: lower is better; steps/s and products/step: higher is better
{FLOOR}: the step's products in a CUDA graph, if it can be captured
its time/{OURS}'s: the median of the rounds' ratios; above 1 {OURS} is faster
{OURS}: an epoch as tv.fit takes it, with a check every {CHECK_INTERVAL} steps that all were finite
checked before: the same loss and gradients to {TOLERANCES[False]:g} (TF32: {TOLERANCES[True]:g}) for one batch and one
draw, and after {STEPS} steps the same loss to {peers.DRIFT:.0%}"""


def parts(quick: bool, rounds: int) -> dict[str, Part]:
    """A part for each batch and precision."""
    places = installed(quick)
    wanted = [(batch, tf32) for batch in list(TARGETS)[: 1 if quick else None] for tf32 in (False, True)[: 2 - quick]]
    return {f"peers, batch {batch:,}, {'TF32' if tf32 else 'float32'}":
            lambda _, batch=batch, tf32=tf32: measure(net_of(batch), tf32, places, rounds) for batch, tf32 in wanted}


def show(content: Content) -> None:
    """Print the table and the targets."""
    rows = content.get("peers", [])
    tables.show(peers.WORK, COLUMNS, rows, NOTE, *(
        f"batch {v['batch']:,}, {v['precision']}: {v['times']:.2f} times the steps/s of the best peer ({v['best']}), "
        f"target at least {v['target']:g}: {'reached' if v['reached'] else 'missed'}" for v in verdicts(rows)),
        *(f"{OURS} as: {content['contestants'][OURS]['form']}" for _ in rows[:1]))
