"""python -m benchmarks: measure kernels and steps, reproduce published numbers, put figures into the README."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import figures, mutate, parts, pictures, reproduce, results

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path | None, typer.Option(
    help="Folder of the results files and plots.",
    show_default=f"{results.FOLDER.relative_to(results.ROOT)}; with --quick {results.QUICK.relative_to(results.ROOT)}")]
Quick = Annotated[bool, typer.Option("--quick", help="Run the smallest sizes in few rounds, to show that it works.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a stopped run was.")]
# The measurements of the CPU in their order; each is a file of this folder.
MEASUREMENTS = {
    "kernels": "Compare every fused kernel with its readable twin and with slower alternatives.",
    "step": "Time a whole training step: replayed and eager, with fused kernels and with readable twins.",
    "peers": 'Time the same step in JAX and PyTorch, if they are installed (the extra "peers").',
    "models": 'Time a pass of M2 and of conditional models, beside the VAE and in Pyro (the extra "peers").',
    "sweep": "Time the replayed step for several batch sizes and hidden widths.",
    "start": "Time the first step of a process: while the kernels are compiled, and when the cache has them.",
}


def measurements(quick: bool, *names: str) -> Iterator[parts.Table]:
    """The tables of files of this folder, which are imported only here: the other commands do not need them."""
    for name in names:
        yield importlib.import_module(f"benchmarks.{name}").table_of(quick)


@app.callback(invoke_without_command=True)
def _all(context: typer.Context, quick: Quick = False, out: Out = None, resume: Resume = False) -> None:
    """Run kernels, step, peers, models, sweep and start, if no command is given. Each part is checked before its
    time is taken."""
    if context.invoked_subcommand is not None:
        if any(context.params.values()):
            raise typer.BadParameter(f"options stand after the command: {context.invoked_subcommand} --quick")
        return
    parts.measure(measurements(quick, *MEASUREMENTS), quick, out, resume)


def _command(name: str, words: str) -> None:
    """Add the command of a measurement."""
    def command(quick: Quick = False, out: Out = None, resume: Resume = False) -> None:
        parts.measure(measurements(quick, name), quick, out, resume)

    app.command(name=name, help=words)(command)


for _name, _words in MEASUREMENTS.items():
    _command(_name, _words)


@app.command(name="mutate")
def _mutate(
    sample: Annotated[int, typer.Option(help="The number of mutants.", min=1)] = mutate.SAMPLE,
    seed: Annotated[int, typer.Option(help="Of the draw of the sample.")] = mutate.SEED,
    only: Annotated[str, typer.Option(help="Only mutants with this in their names, for instance a file.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Run only the tests of a mutant's room, not all.")] = False,
    after: Annotated[Path | None, typer.Option(help="Take the mutants of this results file first, and try each with "
                                                    "the test that noticed it then.", metavar="FILE")] = None,
    out: Out = None, resume: Resume = False,
) -> None:
    """Test the tests: run them against programs with one mistake each, and print the share that they notice."""
    quick = quick or bool(only)
    parts.measure([mutate.table_of(sample, seed, only, quick, after)], quick, out, resume)


@app.command(name="endure")
def _endure(quick: Quick = False, out: Out = None, resume: Resume = False) -> None:
    """Damage run folders, kill runs, replay a step a million times, start ten processes on an empty cache."""
    from benchmarks import endure

    parts.measure([endure.table_of(quick)], quick, out, resume)


@app.command(name="accuracy")
def _accuracy(quick: Quick = False, out: Out = results.FOLDER) -> None:
    """Measure the error of every family's density, entropy and divergence against mpmath; takes minutes."""
    from benchmarks import accuracy

    accuracy.run(quick, out)


@app.command(name="fingerprints")
def _fingerprints(out: Out = None) -> None:
    """Check that training and evaluation still give the recorded bits; takes a minute."""
    from benchmarks import fingerprints

    raise typer.Exit(0 if fingerprints.run(results.folder(False, out)) else 1)


@app.command(name="scale")
def _scale(
    quick: Quick = False, out: Out = None, resume: Resume = False,
    other: Annotated[str | None, typer.Option(help="The Python of another environment, whose mpi4py belongs to another "
                                                   "MPI; bits and exchange are measured with it, too.")] = None,
) -> None:
    """Train in several processes: equal bits, the exchange beside MPI's own, a step in one and two, and a model of
    many machines; needs an MPI (the extra "mpi-local" brings one)."""
    from benchmarks import scale

    parts.measure([scale.table_of(quick, other)], quick, out, resume)


@app.command(name="memory")
def _memory(quick: Quick = False, out: Out = None, resume: Resume = False) -> None:
    """Train on data in files: a step beside that of data in memory, and a training with less memory than data."""
    parts.measure(measurements(quick, "memory"), quick, out, resume)


@app.command(name="launches")
def _launches(quick: Quick = False, out: Out = None, resume: Resume = False) -> None:
    """The slowest launches of a step of several models and estimators, as a share of the step."""
    parts.measure(measurements(quick, "launches"), quick, out, resume)


@app.command(name="gpu")
def _gpu(
    quick: Quick = False, out: Out = None, resume: Resume = False,
    compare: Annotated[str | None, typer.Option(help="Data set for training on CPU and GPU; default: "
                                                     "digits-dynamic.")] = None,
) -> None:
    """Compare CPU and GPU: kernels, the whole step, the peers, training; needs an NVIDIA GPU and CuPy."""
    from benchmarks import gpu

    with _needing_a_gpu():
        parts.measure([gpu.table_of(quick, compare)], quick, out, resume)


@app.command(name="gpu-check")
def _gpu_check(out: Out = None, resume: Resume = False) -> None:
    """Run every check of the CUDA kernels on this machine's GPU; ends with PASSED or FAILED."""
    from benchmarks import gpu_check

    with _needing_a_gpu():
        passed = gpu_check.run(results.folder(False, out), resume)
    raise typer.Exit(0 if passed else 1)


@app.command(name="card")
def _card(out: Out = None, resume: Resume = False) -> None:
    """Everything about this machine's GPU in at most eight minutes, the most valuable first; says what to mend."""
    from benchmarks import card

    with _needing_a_gpu():
        good = card.run(out, resume)
    raise typer.Exit(0 if good else 1)


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
    out: Out = None, resume: Resume = False,
) -> None:
    """Train as published and compare with the published number; writes NAME.json."""
    parts.measure(reproduce.tables_of(name, quick), quick, out, resume)


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
