"""python -m benchmarks: measure kernels and steps, reproduce published numbers, put figures into the README."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import figures, pictures, reproduce, results

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="Folder of the results files and plots.")]
Quick = Annotated[bool, typer.Option("--quick", help="Run the smallest sizes in few rounds, to show that it works.")]
Measurement = Callable[[bool, Path], None]


def measurements() -> dict[str, Measurement]:
    """The measurements in their order. They are imported here, because the other commands do not need them."""
    from benchmarks import kernels, peers, start, step, sweep

    return {"kernels": kernels.run, "step": step.run, "peers": peers.run, "sweep": sweep.run,
            "start": start.run}


@app.callback(invoke_without_command=True)
def _all(context: typer.Context, quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Run kernels, step, peers, sweep and start, if no command is given. Each part is checked before it is timed."""
    if context.invoked_subcommand is not None:
        if context.params != {"quick": False, "out": results.FOLDER}:
            raise typer.BadParameter(f"--quick and --out stand after the command: {context.invoked_subcommand} --quick")
        return
    begin = time.perf_counter()
    for name, run in measurements().items():
        print(f"\n==== {name}", flush=True)
        run(quick, out)
    print(f"\n{time.perf_counter() - begin:.0f} s")


@app.command(name="kernels")
def _kernels(quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Compare every fused kernel with its readable twin and with slower alternatives."""
    measurements()["kernels"](quick, out)


@app.command(name="step")
def _step(quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Time a whole training step: replayed and eager, with fused kernels and with readable twins."""
    measurements()["step"](quick, out)


@app.command(name="peers")
def _peers(quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Time the same step in JAX and PyTorch, if they are installed (the extra "peers")."""
    measurements()["peers"](quick, out)


@app.command(name="sweep")
def _sweep(quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Time the replayed step for several batch sizes and hidden widths."""
    measurements()["sweep"](quick, out)


@app.command(name="start")
def _start(quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Time the first step of a process: while the kernels are compiled, and when they are loaded from the cache."""
    measurements()["start"](quick, out)


@app.command(name="accuracy")
def _accuracy(quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Measure the error of every family's density, entropy and divergence against mpmath; takes minutes."""
    from benchmarks import accuracy

    accuracy.run(quick, out)


@app.command(name="fingerprints")
def _fingerprints(out: Out = results.FOLDER) -> None:
    """Check that training and evaluation still give the recorded bits; takes a minute."""
    from benchmarks import fingerprints

    raise typer.Exit(0 if fingerprints.run(out) else 1)


@app.command(name="gpu")
def _gpu(
    quick: Quick = False, out: Out = results.FOLDER,
    compare: Annotated[str | None, typer.Option(help="Data set for training on CPU and GPU; default: "
                                                     "digits-dynamic.")] = None,
) -> None:
    """Compare CPU and GPU: kernels, the whole step, the peers, training; needs an NVIDIA GPU and CuPy."""
    from benchmarks import gpu

    with _needing_a_gpu():
        gpu.run(quick, out, compare)


@app.command(name="gpu-check")
def _gpu_check(out: Out = results.FOLDER) -> None:
    """Run every check of the CUDA kernels on this machine's GPU; ends with PASSED or FAILED."""
    from benchmarks import gpu_check

    with _needing_a_gpu():
        passed = gpu_check.run(out)
    raise typer.Exit(0 if passed else 1)


@contextmanager
def _needing_a_gpu() -> Iterator[None]:
    """Within this block a missing GPU or CuPy ends the program with one sentence and exit code 2."""
    from tinyvae.engine.devices import DeviceError

    try:
        yield
    except DeviceError as fault:
        print(f"benchmarks: {fault}", file=sys.stderr)
        raise typer.Exit(2) from None


@app.command(name="reproduce")
def _reproduce(
    name: Annotated[str | None, typer.Argument(help=f"One of {', '.join(reproduce.NAMES)}; default: all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Run the same code on little data.")] = False,
    out: Out = results.FOLDER,
) -> None:
    """Train as published and compare with the published number; writes benchmarks/results/NAME.json."""
    reproduce.run(name, quick, out)


@app.command(name="pictures")
def _pictures() -> None:
    """Train what the README shows and put its pictures into docs/pictures."""
    pictures.run()


@app.command(name="figures")
def _figures(
    check: Annotated[bool, typer.Option("--check", help="Only report whether they are up to date.")] = False,
) -> None:
    """Insert the figures of the committed results files into README.md and the docs."""
    figures.run(check)


if __name__ == "__main__":
    app()
