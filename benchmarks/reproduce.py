"""Reproducing published numbers: each setting is trained as its source says and compared with a target."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

import tinyvae as tv
from benchmarks import grep_settings, reproduce_grep, reproduce_iwae, results
from tinyvae.training.faults import TrainingError

console = Console(highlight=False, soft_wrap=True)
SEED = 0


Records = list[dict[str, Any]]


def _train(name: str, model: dict[str, Any], data: str, quick: bool, **settings: Any) -> tuple[Records, float]:
    """Train one setting; returns the records of its epochs and the seconds."""
    data_set = tv.data.load("digits" if quick else data)
    settings |= {"epochs": 2} if quick else {}
    net = tv.VAE(data_set.dimensions, seed=SEED, **model)

    def say(record: dict[str, Any], timings: dict[str, Any]) -> None:
        console.print(f"  {name}: epoch {record['epoch']}, test -ELBO {-record['test_elbo']:.2f} ± "
                      f"{record['test_elbo_stderr']:.2f} nats per datum, {timings['train_seconds']:.1f} s")

    start = time.perf_counter()
    records = tv.fit(net, data_set, on_epoch=say, seed=SEED, **settings)
    return records, time.perf_counter() - start


def _row(setting: str, record: dict[str, Any], seconds: float, target: str, reached: bool | None) -> dict[str, Any]:
    """A row of a results file for a test -ELBO, of which lower is better."""
    return {"setting": setting, "data": record["data"], "quantity": "test -ELBO, nats per datum, lower is better",
            "value": -record["test_elbo"], "stderr": record["test_elbo_stderr"], "count": record["test_data_count"],
            "target": target, "reached": reached, "passes": record["epoch"], "seed": SEED, "seconds": seconds}


def mnist_ten_epochs(quick: bool) -> list[dict[str, Any]]:
    """784-400-20 with ReLU, Adam at 1e-3 and batch 128, compared with the values that a public run printed."""
    published = {1: 125.92, 2: 113.35, 3: 109.06, 4: 106.91, 5: 105.40, 10: 102.29}
    records, seconds = _train("784-400-20", {"hidden": 400, "latent": 20}, "mnist-dynamic", quick, epochs=10, batch=128)
    rows = []
    for record in records:
        value, epoch = -record["test_elbo"], record["epoch"]
        if epoch == 10 or (quick and epoch == 2):
            rows.append(_row(f"epoch {epoch}", record, seconds, "102.5 ± 0.8", abs(value - 102.5) <= 0.8))
        elif epoch in published:  # earlier epochs are shown beside published values, without a target
            so_far = seconds * epoch / len(records)
            rows.append(_row(f"epoch {epoch}", record, so_far, f"a public run: {published[epoch]}", None))
    return rows


AEVB: dict[str, Any] = {"batch": 100, "optimizer": "adagrad", "lr": 0.02, "weight_prior": True, "on_nonfinite": "stop"}
AEVB_MODEL: dict[str, Any] = {"hidden": 500, "activation": "tanh", "init": "aevb"}


def aevb_latents(quick: bool) -> list[dict[str, Any]]:
    """AEVB section 5 on MNIST: more latent dimensions are better up to 20, and 200 do not overfit."""
    passes, found = 17, {}
    for latent in (3, 10, 20, 200):
        model = AEVB_MODEL | {"latent": latent}
        found[latent] = _train(f"latent {latent}", model, "mnist-dynamic", quick, epochs=passes, **AEVB)
    last = {latent: records[-1] for latent, (records, _) in found.items()}

    def better(a: int, b: int) -> bool:
        return last[a]["test_elbo"] > last[b]["test_elbo"]

    claims = {3: ("worse than 10", better(10, 3)), 10: ("better than 3", better(10, 3)),
              20: ("better than 10", better(20, 10)), 200: ("better than 10", better(200, 10))}
    return [_row(f"latent {latent}", last[latent], found[latent][1], *claims[latent]) for latent in found]


def aevb_step_size(quick: bool) -> list[dict[str, Any]]:
    """The largest step size that AEVB tried, 0.1: the run reports the divergence, and its checkpoint stays sound."""
    data = tv.data.load("digits" if quick else "mnist-dynamic")
    net = tv.VAE(data.dimensions, latent=20, seed=SEED, **AEVB_MODEL)
    start, fault = time.perf_counter(), ""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        try:
            tv.fit(net, data, out=out, seed=SEED, epochs=2, **(AEVB | {"lr": 0.1}))
        except TrainingError as error:
            fault = str(error)
        kept = tv.evaluate(tv.load(out), data)
    seconds = time.perf_counter() - start
    sound = bool(fault) and kept.elbo > -600  # the checkpoint is no worse than the untrained model
    row = _row("step size 0.1", {"data": data.name, "test_elbo": kept.elbo, "test_elbo_stderr": kept.elbo_stderr,
                                 "test_data_count": kept.data_count, "epoch": 0}, seconds,
               "divergence is reported, the last good checkpoint kept", sound)
    return [row | {"reported": fault or "nothing: the run stayed finite"}]


def iwae_five(quick: bool) -> list[dict[str, Any]]:
    """IWAE-5 compared with the VAE, 784-200-200-50 with tanh, 40 passes: -log p(x) by 5000 draws, and active units."""
    return reproduce_iwae.iwae(quick, console.print, SEED)


def iwae_snr(quick: bool) -> list[dict[str, Any]]:
    """The signal-to-noise ratio of IWAE's gradient by draws, without and with DReG (Rainforth et al. 2018)."""
    return reproduce_iwae.signal_to_noise(quick, console.print, SEED)


def gamma_def(quick: bool) -> list[dict[str, Any]]:
    """The sparse gamma deep exponential family on faces (G-REP, section 5.2): G-REP by one draw, BBVI by thirty."""
    return reproduce_grep.gamma_def(quick, console.print)


def gamma_def_settings(quick: bool) -> list[dict[str, Any]]:
    """The course of G-REP on the faces by the authors' settings, each alone and all together, beside their log."""
    return grep_settings.settings(quick, console.print)


def beta_gamma(quick: bool) -> list[dict[str, Any]]:
    """The beta-gamma matrix factorisation of binarised digits (G-REP, section 5.3): both estimators for equal time."""
    return reproduce_grep.beta_gamma(quick, console.print)


REPRODUCTIONS: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "mnist-ten-epochs": mnist_ten_epochs,
    "aevb-latents": aevb_latents,
    "aevb-step-size": aevb_step_size,
    "iwae-5": iwae_five,
    "iwae-snr": iwae_snr,
    "gamma-def": gamma_def,
    "gamma-def-settings": gamma_def_settings,
    "beta-gamma": beta_gamma,
}
NAMES = tuple(REPRODUCTIONS)


def run(name: str | None, quick: bool, out: Path) -> None:
    """Run one reproduction or all, print each row beside its target, and write the results files."""
    if name is not None and name not in REPRODUCTIONS:
        raise SystemExit(f"found {name!r}; expected one of {', '.join(NAMES)}")
    for chosen in [name] if name else NAMES:
        console.print(f"[bold]{chosen}[/bold]{' (quick: no claim)' if quick else ''}: {REPRODUCTIONS[chosen].__doc__}")
        rows = REPRODUCTIONS[chosen](quick)
        for row in rows:
            verdict = "" if quick or row["reached"] is None else "reached" if row["reached"] else "NOT reached"
            console.print(f"{row['setting']}: {row['value']:.2f} ± {row['stderr']:.2f} {row['quantity']}, "
                          f"{row['count']:,} data; target {row['target']} {verdict}", markup=False)
        console.print(f"written: {results.write(chosen, out, rows, quick=quick)}", markup=False)
