"""Checking that the same commands still give the same bits, by comparing them with recorded fingerprints.

A fingerprint is twelve digits of the SHA-256 of all parameters after an epoch, or of the output of `evaluate --json`.
The bits depend on the length of the processor's vectors (here AVX-512), so the recording names its machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import results

# The arguments of `tinyvae train` by name. The runs are small; together they take a minute.
TRAININGS = {
    "plain": "digits --epochs 3",
    "two layers, adagrad": "digits --epochs 2 --hidden 50,30 --latent 5 --activation softplus --optimizer adagrad "
                           "--lr 0.02 --init aevb --weight-prior",
    "float64": "digits --epochs 2 --dtype float64 --activation tanh --hidden 60 --latent 4",
    "iwae, dreg": "digits-dynamic --epochs 2 --bound iwae --importance-samples 5 --gradient dreg --hidden 50",
    "elbo-a, stl": "digits-dynamic --epochs 2 --bound elbo-a --gradient stl --samples 2 --hidden 50",
    "full normal": "digits --epochs 2 --posterior full-normal --latent 4 --hidden 50",
    "log-normal": "digits --epochs 2 --posterior log-normal --latent 4 --hidden 50",
    "gamma, grep": "digits --epochs 2 --posterior gamma --estimator grep --latent 4 --hidden 50 --samples 2 "
                   "--baseline fitted",
    "gamma, implicit": "digits --epochs 2 --posterior gamma --latent 4 --hidden 50",
    "beta": "digits-gray --epochs 2 --posterior beta --latent 4 --hidden 50 --likelihood continuous-bernoulli",
    "dirichlet": "digits-static --epochs 2 --posterior dirichlet --latent 4 --hidden 50",
    "score": "digits --epochs 2 --estimator score --samples 3 --baseline leave-one-out --latent 4 --hidden 50",
    "free bits": "digits --epochs 2 --free-bits 0.5 --warmup 1.5 --clip 50 --schedule cosine --validation 200 "
                 "--patience 3 --hidden 50",
    "gaussian": "olivetti-gray --epochs 2 --likelihood gaussian --hidden 50 --latent 5 --optimizer sgd --lr 1e-6",
    "mnist": "mnist-dynamic --epochs 1 --hidden 64 --latent 8 --data-mean-bias --beta 0.7",
}
# The training whose run is evaluated, and the arguments of `tinyvae evaluate RUN`, by name.
EVALUATIONS = {
    "importance": ("plain", "-k 50"),
    "ais": ("plain", "--method ais --count 20 --chains 2 --temperatures 20"),
    "hmc": ("full normal", "--method hmc --count 10 --draws 20"),
    "two-sided": ("plain", "--simulated --method ais --count 10 --chains 2 --temperatures 20"),
    "importance, gamma": ("gamma, implicit", "-k 50"),
    "importance, dirichlet": ("dirichlet", "-k 20"),
}


def tinyvae(*arguments: str) -> str:
    """The output of a command, which runs in its own process."""
    path = os.pathsep.join([str(results.ROOT), str(results.ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-m", "tinyvae", *arguments], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": path}, cwd=results.ROOT)
    if done.returncode:
        raise SystemExit(f"tinyvae {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def record() -> list[dict[str, Any]]:
    """Run all commands and return their fingerprints; commands with missing data are left out."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, command in TRAININGS.items():
            run = Path(folder) / name.replace(", ", "-").replace(" ", "-")
            try:
                printed = tinyvae("train", *command.split(), "--json", "--no-pictures", "--out", str(run))
            except SystemExit as fault:
                print(f"left out: {fault}", file=sys.stderr)
                continue
            prints = [json.loads(line)["fingerprint"] for line in printed.splitlines()]
            found.append({"name": name, "command": f"train {command}", "fingerprints": prints})
        for name, (training, options) in EVALUATIONS.items():
            run = Path(folder) / training.replace(", ", "-").replace(" ", "-")
            printed = tinyvae("evaluate", str(run), *options.split(), "--json").replace(folder, "")
            digest = hashlib.sha256(printed.encode()).hexdigest()[:12]
            found.append({"name": name, "command": f"evaluate {training}: {options}", "fingerprints": [digest]})
    return found


def run(out: Path) -> bool:
    """Compare with benchmarks/results/fingerprints.json, or write it if it is missing; True if all are equal."""
    now, path = record(), results.FOLDER / "fingerprints.json"
    if not path.exists():
        print(f"recorded: {results.write('fingerprints', out, now)}")
        return True
    recorded = {row["name"]: row["fingerprints"] for row in results.read("fingerprints")["rows"]}
    table = Table("command", "recorded", "now", "", box=None, title_justify="left",
                  title=f"Fingerprints, recorded on {results.read('fingerprints')['environment']['cpu']}")
    for row in now:
        before = recorded.get(row["name"], [])
        table.add_row(row["name"], before[-1] if before else "", row["fingerprints"][-1],
                      "equal" if before == row["fingerprints"] else "DIFFERENT")
    Console().print(table)
    return all(recorded.get(row["name"]) == row["fingerprints"] for row in now)
