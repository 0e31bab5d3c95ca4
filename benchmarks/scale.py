"""Training in several processes: equal bits, the cost of the exchange, and a model of many machines.

Two processes on one machine are measured. Of more machines a model speaks, in which a step of R ranks takes

    T = compute + 2 (R - 1) / R * bytes / bandwidth + 2 (R - 1) * latency

for Alltoall and Allgather of the gradient. Its compute is the measured step of one rank's rows, and its bandwidths and
latencies are those of networks, which are stated and not measured.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import parts, plots, reproduce
from benchmarks.parts import Content
from benchmarks.results import ROOT
from benchmarks.tables import say

# 784-500-20 in float32: its step at some rows, in as many processes as start it
STEP = """
import json, sys, time
import numpy as np
import tinyvae as tv
from tinyvae.training.batches import CURSOR
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings

batch, shards, steps = map(int, sys.argv[1:])
grey = (255 * np.random.default_rng(0).random((batch, 784)) ** 3).astype(np.uint8)
data = tv.DataSet("made-up", grey, grey[:1], (1, 784), 255.0, "dynamic", "bernoulli")
training = Training(tv.VAE(784, 500, 20), data, Settings(batch=batch, shards=shards))
training.begin_epoch()
seconds = []
for _ in range(steps + 4):  # the first ones are recorded and compared
    training.counters[CURSOR:] = 0
    begin = time.perf_counter()
    training.step()
    seconds.append(time.perf_counter() - begin)
if training.ranks.rank == 0:
    print(json.dumps([seconds[4:], training.model.parameters.count]))
"""
# the exchange of a gradient of that size, and MPI's own sum of it, in turn
EXCHANGE = """
import json, sys, time
import numpy as np
from mpi4py import MPI
from tinyvae.training.shards.ranks import ranks

count, rounds = map(int, sys.argv[1:])
team, found = ranks(), {"ours": [], "allreduce": []}
vector, out = np.random.default_rng(team.rank).normal(size=count).astype(np.float32), np.empty(count, np.float32)
for i in range(2 * rounds):
    name = ("ours", "allreduce")[i % 2]
    given = vector.copy()
    team.comm.Barrier()
    begin = time.perf_counter()
    team.add(given) if name == "ours" else team.comm.Allreduce(given, out)
    found[name].append(time.perf_counter() - begin)
if team.rank == 0:
    print(json.dumps([found, MPI.Get_library_version().splitlines()[0]]))
"""
BITS = """
import tinyvae as tv
from tinyvae.training.shards.ranks import ranks

data = tv.data.load("digits")
records = tv.fit(tv.VAE(data.dimensions, hidden=100, latent=5), data, shards=4, epochs=2, quiet=True)
if ranks().rank == 0:
    print(records[-1]["fingerprint"])
"""
# what Open MPI asks of the administrator's account, as in a container, and of more processes than processors
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
GRADIENT = 815_824  # the parameters of 784-500-20
BATCHES = (100, 1000, 8192)
NETWORKS = {"10 GbE": (25e-6, 1.1e9), "100 Gb RDMA": (2e-6, 11e9)}  # seconds, bytes a second; not measured here
RANKS = tuple(2**k for k in range(9))
STRONG = 8192  # the rows that all ranks of strong scaling share
ONE, TWO = "one process, two threads", "two processes, one thread each"


def launcher(python: str = sys.executable) -> str:
    """The mpiexec beside a Python, or the first one on the path; SystemExit if there is none."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if (found := shutil.which("mpiexec", path=path)) is None:
        raise SystemExit("no mpiexec was found: pip install '.[mpi-local]', which brings MPICH, or install another MPI")
    return found


def run(program: str, *arguments: int, processes: int = 1, threads: int = 1, python: str = sys.executable) -> Any:
    """What a program prints, in so many processes with so many threads each, by this Python or by that of another
    environment."""
    launch = [launcher(python), "-n", str(processes)] if processes > 1 else []
    count, path = str(threads), sys.path if python == sys.executable else [str(ROOT), str(ROOT / "kernels")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "NUMBA_NUM_THREADS": count,
                                "OPENBLAS_NUM_THREADS": count} | OPEN_MPI  # fmt: skip
    done = subprocess.run([*launch, python, "-c", program, *map(str, arguments)], env=environment, text=True,
                          capture_output=True, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"a program in {processes} processes ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.strip() if program is BITS else json.loads(done.stdout)


def row(setting: str, seconds: list[float], **more: Any) -> dict[str, Any]:
    """A row for a median of seconds, in microseconds."""
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75)) * 1e6
    return {"setting": setting, "quantity": "microseconds, median, lower is better", "value": middle,
            "stderr": 1.25 * float(np.std(seconds)) * 1e6 / len(seconds) ** 0.5, "lower_quartile": low,
            "upper_quartile": high, "count": len(seconds), "target": "none", "reached": None, "digits": 0} | more


def bits(other: str | None) -> Content:
    """The fingerprint of a training in one, two and four processes; and by the MPI of the other environment."""
    found = [run(BITS, processes=count) for count in (1, 2, 4)]
    found += [run(BITS, processes=count, python=other) for count in (2, 4) if other]
    what = "1, 2 and 4 processes" + ", and of 2 and 4 of another MPI" * bool(other)
    return {"rows": [{"setting": f"fingerprints of {what}", "quantity": "different ones, lower is better",
                      "value": len(set(found)), "stderr": 0.0, "count": len(found), "target": "1",
                      "reached": len(set(found)) == 1, "digits": 0, "fingerprints": found}]}


def exchange(quick: bool, python: str = sys.executable) -> Content:
    """The sum of a gradient over two processes, beside MPI's own."""
    found, library = run(EXCHANGE, GRADIENT, 10 if quick else 200, processes=2, python=python)
    library = " ".join(library.replace("\0", " ").partition(",")[0].replace(" Version:", "").split())
    ours, theirs = (statistics.median(found[name]) for name in ("ours", "allreduce"))
    what = f"{4 * GRADIENT / 1e6:.2f} MB between two processes"
    return {"libraries": [library], "rows": [
        row(f"{what}, Alltoall, tree, Allgather by {library}", found["ours"], times_allreduce=ours / theirs,
            target="at most 1.5 of Allreduce", reached=bool(ours <= 1.5 * theirs)),
        row(f"{what}, Allreduce of {library}", found["allreduce"])]}


def step(batch: int, quick: bool) -> Content:
    """A step in one process and in two, in turn, and the step of one thread alone."""
    steps, rounds = (2, 1) if quick else (max(10, 20_000 // batch), 3)
    forms = {ONE: {"threads": 2}, "the same in two shards": {"threads": 2, "shards": 2},
             TWO: {"processes": 2, "shards": 2}, "one process, one thread": {}}  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            options = {key: value for key, value in form.items() if key != "shards"}
            seconds[name] += run(STEP, batch, form.get("shards", 1), steps, **options)[0]
    say("; ".join(f"{name} {1e3 * statistics.median(found):.2f} ms" for name, found in seconds.items()))
    return {"rows": [row(f"a step of {batch:,} rows, {name}", found, batch=batch, form=name,
                         times_one=statistics.median(found) / statistics.median(seconds[ONE]))
                     for name, found in seconds.items()]}


def modelled(content: Content) -> Content:
    """The share of the time that computes, by the model, for networks and numbers of ranks."""
    alone = sorted((found["batch"], found["value"] / 1e6) for found in content["rows"]
                   if found.get("form") == "one process, one thread")
    rows_of, seconds_of = zip(*alone, strict=True)
    curves = {}
    for network, (latency, bandwidth) in NETWORKS.items():
        for scaling in ("weak", "strong"):
            points = []
            for count in RANKS:
                rows = 1000 if scaling == "weak" else STRONG / count
                compute = float(np.interp(rows, (0, *rows_of), (0, *seconds_of)))
                move = 2 * (count - 1) / count * 4 * GRADIENT / bandwidth + 2 * (count - 1) * latency
                points.append([count, compute / (compute + move)])
            curves[f"{scaling} scaling, {network}"] = points
    rows = [{"setting": f"model, {name}, 64 ranks", "quantity": "share of the time that computes, higher is better",
             "value": dict(map(tuple, points))[64], "stderr": 0.0, "count": 64, "target": "modelled", "reached": None}
            for name, points in curves.items()]
    return {"curves": curves, "rows": rows}


def plot(content: Content, path: Path) -> Path:
    """The curves of the model."""
    with plots.matplotlib.rc_context(plots.STYLE):
        figure, axes = plots.plt.subplots(figsize=(6, 3.2), layout="constrained")
        colours = dict(zip(NETWORKS, (plots.OURS, plots.BELOW), strict=True))
        for name, points in content["curves"].items():
            scaling, network = name.split(" scaling, ")
            ranks, shares = zip(*points, strict=True)
            axes.plot(ranks, [100 * share for share in shares], "-" if scaling == "weak" else "--", marker="o",
                      markersize=3, color=colours[network], label=name)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(RANKS, labels=[str(count) for count in RANKS])
        axes.set(xlabel="ranks", ylabel="% of the time that computes", ylim=(0, 102),
                 title="784-500-20, modelled: weak 1,000 rows a rank, strong 8,192 rows in all")
        axes.legend(frameon=False)
        return plots.save(figure, path.with_suffix(".svg"))


def table_of(quick: bool, other: str | None = None) -> parts.Table:
    """Bits, exchange, a step at each batch size, and the model; bits and exchange also by the MPI of the environment of
    another Python."""
    launcher()
    made: dict[str, parts.Part] = {"bits": lambda _: bits(other), "exchange": lambda _: exchange(quick)}
    if other:
        made["exchange of another MPI"] = lambda _: exchange(quick, other)
    made |= {f"batch {batch}": lambda _, batch=batch: step(batch, quick) for batch in ((10, 20) if quick else BATCHES)}
    return parts.Table("scale", made | {"model": modelled}, reproduce.show, plot)
