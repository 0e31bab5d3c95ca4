"""The command line, `tinyvae`: the commands put together, and what becomes of errors.

Results go to standard output, messages to standard error. A mistake of the user ends with one sentence and exit
code 2, a training that stopped being finite or a step that replay changes with 1, Ctrl-C with a sentence and 130. A
command that has ended is not interrupted any more. An error that nobody foresaw, as one in a user's own model, keeps
its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyvae.cli.options import opt

EXAMPLES = {
    "tinyvae train": "real 8x8 digits, in seconds",
    "tinyvae train mnist-dynamic --out runs/m": "MNIST, pixels drawn at each use",
    "tinyvae train photos/": "your own images, grey or in colour",
    "tinyvae train table.csv --label-column y": "a table of numbers",
    "tinyvae train --resume runs/m": "go on after any interruption",
    "tinyvae evaluate runs/m -k 500": "ELBO and log p(x), with errors",
    "tinyvae complete runs/m --missing left": "what a hidden half may be",
    "tinyvae manifold runs/m": "AEVB Figure 4",
    "tinyvae explore runs/m": "the run as a page in your browser",
    "tinyvae sample runs/c --condition x.png": "answers to a part of an image",
    "tinyvae doctor": "what is wrong with this machine",
    "tinyvae bench": "how fast it trains, and where the time goes",
}
PATIENCE = 1.0  # seconds in which rank 0 can end all processes by its own sentence
UNWRITTEN = (errno.ENOSPC, errno.EIO, errno.EFBIG)  # what a full or broken place says to a writer


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"tinyvae {sys.modules['tinyvae'].__version__}")
        raise typer.Exit


def program(
    version: Annotated[bool, opt("Show the version.", "--version", callback=show_version, is_eager=True)] = False,
) -> None:
    pass


def put_together(only: str = "") -> typer.Typer:
    """All commands as one program. Help texts name the choices that are registered by now.

    If `only` names a command, it alone is put in: to read the options of all takes longer than to read its own.
    """
    from tinyvae.cli import classify, commands, completing, conditional, lessons, train

    examples = EXAMPLES | lessons.EXAMPLES
    app = typer.Typer(
        add_completion=False, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="The variational auto-encoder, complete and from scratch.\n\n[bold]Examples[/bold]\n\n"
        + "\n\n".join(f"{command:<42}{what}" for command, what in examples.items()),
    )
    app.callback()(program)
    known: dict[str, tuple[Callable[..., Any], str | None]] = {
        "train": (train.train, None), "evaluate": (commands.evaluate, None), "compare": (commands.compare, None),
        "sample": (conditional.sample, None), "upscale": (conditional.upscale, None),
        **{name: (commands.picture(name), text) for name, text in commands.PICTURES.items()},
        "complete": (completing.complete, None), "classify": (classify.classify, None),
        "explore": (commands.explore, None), "doctor": (commands.doctor, None), "bench": (commands.bench, None),
        **{command.__name__: (command, None) for command in lessons.COMMANDS},
    }  # fmt: skip
    for name in [only] if only in known else known:
        function, text = known[name]
        app.command(name, help=text)(function)
    return app


def run_command() -> None:
    """Run the command that the arguments name."""
    put_together(sys.argv[1] if len(sys.argv) > 1 else "")(standalone_mode=True)


def use_files(arguments: list[str]) -> None:
    """Run the files that --use names, before any option is looked at: what they register is a choice then."""
    from tinyvae.models import use

    for i, argument in enumerate(arguments):
        if argument == "--use" and i + 1 < len(arguments):
            use(arguments[i + 1])
        elif argument.startswith("--use="):
            use(argument.removeprefix("--use="))


def answer_interrupts() -> bool:
    """From here on Ctrl-C raises KeyboardInterrupt; until then it ends the program (`tinyvae/__init__.py`).

    Returns whether this process is the program; of another one that calls `main`, what Ctrl-C does stays its own.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    if ours:
        sys.unraisablehook = end_if_interrupted
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return ours


def end_if_interrupted(fault: Any) -> None:
    """End where Ctrl-C came in a destructor or a callback, whose errors Python prints and then forgets."""
    if isinstance(fault.exc_value, KeyboardInterrupt):
        code = interrupted(fault.exc_value)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.__unraisablehook__(fault)


def is_meant(fault: Exception) -> bool:
    """Whether this package raised the error, by a sentence: a `raise` of its own is the last line that ran.

    A TypeError that Python itself raises is a fault of the program or of the user's own file, whose place matters.
    """
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return Path(__file__).parents[1] in Path(last.filename).parents and (last.line or "").startswith("raise ")


def place_of(fault: Exception) -> str:
    """" (mine.py, line 7)" where a file that --use names led to the error, else ""."""
    from tinyvae.models.extensions import PATHS

    files = {path.absolute() for path in PATHS.values()}
    own = [frame for frame in traceback.extract_tb(fault.__traceback__) if Path(frame.filename).absolute() in files]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def interrupted(stop: KeyboardInterrupt) -> int:
    """Say that Ctrl-C ended the command, and how it goes on if it can; returns the exit code."""
    print(f"tinyvae: {str(stop) or 'interrupted'}", file=sys.stderr)
    # Python remembers an interrupt in code that it ran from text, as a dataclass does, and would end by the signal at
    # last; the next text that it runs makes it forget.
    exec("")
    return 130


def main() -> None:
    """The entry point, also of each process that mpiexec starts."""
    from tinyvae.training.shards.ranks import launched, ranks

    if launched() == 1:
        answered(run_command)
        return
    try:
        answered(one_of_several)
    except SystemExit as end:
        if end.code not in (0, None, 130):  # the others would wait for this process
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            with contextlib.suppress(ValueError):  # without MPI there is none that waits
                ranks().end(end.code if isinstance(end.code, int) else 1)
        raise
    except Exception as fault:  # typer puts a hook of its own in the place of that of `ranks`
        ranks().end_by(type(fault), fault, fault.__traceback__)


def one_of_several() -> None:
    """What one of the processes of mpiexec does: rank 0 is the program, and the others train along with it."""
    from tinyvae import runs
    from tinyvae.training.shards.ranks import launched_as, ranks

    try:
        team = ranks()
    except ValueError:
        if launched_as():  # of this mistake the first process speaks for all
            sys.exit(2)
        raise
    try:
        if sys.argv[1:2] != ["train"]:
            raise ValueError(f"mpiexec started {team.size} processes, and only tinyvae train shares its work out: "
                             "start one")
        if team.rank:
            runs.follow(team)
            return
    except KeyboardInterrupt:  # of which rank 0 speaks
        sys.exit(130)
    except Exception:
        time.sleep(PATIENCE if team.rank else 0)  # what rank 0 found out, too, it says for all
        raise
    try:
        run_command()
    except SystemExit as end:
        if not team.led and not end.code:  # as after --help
            team.from_first(None)
        raise


def answered(program: Callable[[], Any]) -> None:
    """Run a program; errors that are the user's to mend become one sentence."""
    from tinyvae.engine.tape import TapeError
    from tinyvae.runs import CheckpointError
    from tinyvae.training.faults import TrainingError

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # A closed stream leaves its number to the next file, which C prints to.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show ± gets ? and not an end
            stream.reconfigure(errors="replace")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    ours = False
    try:
        try:
            ours = answer_interrupts()
            use_files(sys.argv[1:])
            program()
        finally:  # what is left, Python's own end, takes a moment, and would answer Ctrl-C by a traceback
            if ours:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except (TrainingError, TapeError) as fault:
        sys.exit(f"tinyvae: {fault}")
    except MemoryError as fault:
        print(f"tinyvae: out of memory ({fault}); make --hidden, --latent, --samples or --batch smaller",
              file=sys.stderr)
        sys.exit(2)
    except OSError as fault:  # what is raised where a file is named has a better sentence already
        place = "standard output" if fault.filename is None and fault.errno in UNWRITTEN else fault.filename
        print(f"tinyvae: {f'{place}: {fault.strerror}; choose another place' if place else fault}", file=sys.stderr)
        sys.exit(2)
    except (CheckpointError, ValueError) as fault:
        print(f"tinyvae: {fault}{place_of(fault)}", file=sys.stderr)
        sys.exit(2)
    except (TypeError, AttributeError, IndexError, RuntimeError) as fault:
        if not is_meant(fault):
            raise
        print(f"tinyvae: {fault}{place_of(fault)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        sys.exit(interrupted(stop))
    except SystemExit as end:  # into which the command framework turns Ctrl-C, without a word
        if isinstance(cause := getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            sys.exit(interrupted(cause))
        raise
