"""Reproducing published numbers: each setting is trained as its source says and compared with a target."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

import tinyvae as tv
from benchmarks import (
    grep_settings,
    parts,
    reproduce_aevb,
    reproduce_completion,
    reproduce_conditional,
    reproduce_grep,
    reproduce_imputation,
    reproduce_iwae,
    reproduce_posteriors,
    reproduce_semi,
)
from benchmarks.parts import Content
from tinyvae.training.faults import TrainingError

console = Console(highlight=False, soft_wrap=True)
SEED = 0


Records = list[dict[str, Any]]
Parts = dict[str, parts.Part]


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


def mnist_ten_epochs(quick: bool) -> Parts:
    """784-400-20 with ReLU, Adam at 1e-3 and batch 128, compared with the values that a public run printed."""
    published = {1: 125.92, 2: 113.35, 3: 109.06, 4: 106.91, 5: 105.40, 10: 102.29}

    def part(content: Content) -> Content:
        net = {"hidden": 400, "latent": 20}
        records, seconds = _train("784-400-20", net, "mnist-dynamic", quick, epochs=10, batch=128)
        rows = []
        for record in records:
            value, epoch = -record["test_elbo"], record["epoch"]
            if epoch == 10 or (quick and epoch == 2):
                rows.append(_row(f"epoch {epoch}", record, seconds, "102.5 ± 0.8", abs(value - 102.5) <= 0.8))
            elif epoch in published:  # earlier epochs are shown beside published values, without a target
                so_far = seconds * epoch / len(records)
                rows.append(_row(f"epoch {epoch}", record, so_far, f"a public run: {published[epoch]}", None))
        return {"rows": rows}

    return {"784-400-20": part}


AEVB: dict[str, Any] = {"batch": 100, "optimizer": "adagrad", "lr": 0.02, "weight_prior": True, "on_nonfinite": "stop"}
AEVB_MODEL: dict[str, Any] = {"hidden": 500, "activation": "tanh", "init": "aevb"}


def aevb_latents(quick: bool) -> Parts:
    """AEVB section 5 on MNIST: more latent dimensions are better up to 20, and 200 do not overfit."""
    rivals = {3: (10, "worse than 10"), 10: (3, "better than 3"), 20: (10, "better than 10"),
              200: (10, "better than 10")}

    def part(latent: int) -> Content:
        net = AEVB_MODEL | {"latent": latent}
        records, seconds = _train(f"latent {latent}", net, "mnist-dynamic", quick, epochs=17, **AEVB)
        return {"rows": [_row(f"latent {latent}", records[-1], seconds, rivals[latent][1], None)]}

    def close(content: Content) -> Content:
        value = {row["setting"]: row["value"] for row in content["rows"]}
        for row, (latent, (rival, _)) in zip(content["rows"], rivals.items(), strict=True):
            fewer, more = sorted((latent, rival))  # of each pair the one with more latents has the lower -ELBO
            row["reached"] = value[f"latent {more}"] < value[f"latent {fewer}"]
        return {}

    return {f"latent {latent}": lambda _, latent=latent: part(latent) for latent in rivals} | {"claims": close}


def aevb_step_size(quick: bool) -> Parts:
    """The largest step size that AEVB tried, 0.1: the run reports the divergence, and its checkpoint stays sound."""
    def part(content: Content) -> Content:
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
        return {"rows": [row | {"reported": fault or "nothing: the run stayed finite"}]}

    return {"step size 0.1": part}


def aevb_figure_two(quick: bool) -> Parts:
    """AEVB figure 2: bounds by training data seen, of AEVB and of wake-sleep, for several numbers of latents."""
    return reproduce_aevb.figure_two(quick, console.print, SEED)


def aevb_figure_two_frey(quick: bool) -> Parts:
    """AEVB figure 2 on Frey faces again, whose frames are parted into training and test data at random."""
    return reproduce_aevb.figure_two(quick, console.print, SEED, at_random=True)


def aevb_figure_three(quick: bool) -> Parts:
    """AEVB figure 3: log p(x) by data seen, of AEVB, wake-sleep and Monte Carlo EM, with 1,000 and 50,000 digits."""
    return reproduce_aevb.figure_three(quick, console.print, SEED)


def iwae_five(quick: bool) -> Parts:
    """IWAE-5 compared with the VAE, 784-200-200-50 with tanh, 40 passes: -log p(x) by 5000 draws, and active units."""
    return reproduce_iwae.iwae(quick, console.print, SEED)


def iwae_snr(quick: bool) -> Parts:
    """The signal-to-noise ratio of IWAE's gradient by draws, without and with DReG (Rainforth et al. 2018)."""
    return reproduce_iwae.signal_to_noise(quick, console.print, SEED)


def completion(quick: bool) -> Parts:
    """784-400-20 on MNIST, a random half of each image's pixels hidden: -log p(hidden | observed) by each method."""
    return reproduce_completion.completion(quick, console.print, SEED)


def imputation(quick: bool) -> Parts:
    """Tables of which half of the cells were removed: MIWAE beside scikit-learn's imputers, on the same cells."""
    return reproduce_imputation.imputation(quick, console.print)


def semi_supervised(quick: bool) -> Parts:
    """M2 on MNIST with 600, 1000 and 3000 labels (Kingma et al. 2014, table 1) beside the supervised net."""
    return reproduce_semi.semi_supervised(quick, console.print)


def few_labels(quick: bool) -> Parts:
    """M2, M1+M2 and SHOT with each of its ideas, on MNIST with 100 labels beside the supervised net."""
    return reproduce_semi.few_labels(quick, console.print)


def gamma_def(quick: bool) -> Parts:
    """The sparse gamma deep exponential family on faces (G-REP, section 5.2): G-REP by one draw, BBVI by thirty."""
    return reproduce_grep.gamma_def(quick, console.print)


def gamma_def_settings(quick: bool) -> Parts:
    """The course of G-REP on the faces by the authors' settings, each alone and all together, beside their log."""
    return grep_settings.settings(quick, console.print)


def beta_gamma(quick: bool) -> Parts:
    """The beta-gamma matrix factorisation of binarised digits (G-REP, section 5.3): both estimators for equal time."""
    return reproduce_grep.beta_gamma(quick, console.print)


def cvae_quadrants(quick: bool) -> Parts:
    """Quarters of a digit given (Sohn et al. 2015): -log p of the rest by a CVAE and by a net of the same size."""
    return reproduce_conditional.quadrants(quick, console.print, SEED)


def super_resolution(quick: bool) -> Parts:
    """Digits averaged over 4 x 4 and 2 x 2 pixels: PSNR, KL and -log p of a CVAE, beside a net of the same size."""
    return reproduce_conditional.super_resolution(quick, console.print, SEED)


def iaf(quick: bool) -> Parts:
    """An inverse autoregressive flow of two steps beside the mean-field posterior, 784-256-256-128."""
    return reproduce_posteriors.contest(reproduce_posteriors.IAF, quick, console.print)


def planar(quick: bool) -> Parts:
    """Ten planar maps beside the diagonal posterior (Rezende & Mohamed 2015), 784-200-200-40, three seeds."""
    return reproduce_posteriors.contest(reproduce_posteriors.PLANAR, quick, console.print)


def two_layers(quick: bool) -> Parts:
    """Two stochastic layers beside one (Burda et al. 2016, table 1), in the first 121 of their 3,280 passes."""
    return reproduce_posteriors.contest(reproduce_posteriors.LAYERS, quick, console.print)


def vamp_prior(quick: bool) -> Parts:
    """A VampPrior beside the standard prior (Tomczak & Welling 2018), 784-300-300-40."""
    return reproduce_posteriors.contest(reproduce_posteriors.VAMP, quick, console.print)


REPRODUCTIONS: dict[str, Callable[[bool], Parts]] = {
    "mnist-ten-epochs": mnist_ten_epochs,
    "aevb-latents": aevb_latents,
    "aevb-step-size": aevb_step_size,
    "aevb-figure-2": aevb_figure_two,
    "aevb-figure-2-frey": aevb_figure_two_frey,
    "aevb-figure-3": aevb_figure_three,
    "iwae-5": iwae_five,
    "iwae-snr": iwae_snr,
    "iaf": iaf,
    "planar": planar,
    "two-layers": two_layers,
    "vamp-prior": vamp_prior,
    "completion": completion,
    "imputation": imputation,
    "semi-supervised": semi_supervised,
    "few-labels": few_labels,
    "gamma-def": gamma_def,
    "gamma-def-settings": gamma_def_settings,
    "beta-gamma": beta_gamma,
    "cvae-quadrants": cvae_quadrants,
    "super-resolution": super_resolution,
}
PLOTS = {"super-resolution": reproduce_conditional.plot,
         "aevb-figure-2": functools.partial(reproduce_aevb.plot, quantity="bound"),
         "aevb-figure-2-frey": functools.partial(reproduce_aevb.plot, quantity="bound"),
         "aevb-figure-3": functools.partial(reproduce_aevb.plot, quantity="log p(x)")}
NAMES = tuple(REPRODUCTIONS)


def show(content: Content) -> None:
    """Print each row beside its target."""
    for row in content["rows"]:
        quick = content["quick"] or row["reached"] is None
        verdict = "" if quick else "reached" if row["reached"] else "NOT reached"
        digits = row.get("digits", 2)
        console.print(f"{row['setting']}: {row['value']:.{digits}f} ± {row['stderr']:.{digits}f} {row['quantity']}, "
                      f"{row['count']:,} data; target {row['target']} {verdict}", markup=False)


def tables_of(name: str | None, quick: bool) -> Iterator[parts.Table]:
    """The table of one reproduction, or of all."""
    if name is not None and name not in REPRODUCTIONS:
        raise SystemExit(f"found {name!r}; expected one of {', '.join(NAMES)}")
    for chosen in [name] if name else NAMES:
        console.print(f"[bold]{chosen}[/bold]{' (quick: no claim)' if quick else ''}: {REPRODUCTIONS[chosen].__doc__}")
        yield parts.Table(chosen, REPRODUCTIONS[chosen](quick), show, PLOTS.get(chosen))
