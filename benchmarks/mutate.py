"""Testing the tests: each mutant of a sample runs against them, and the share that they notice is the score.

A mutant runs in a copy of the tree, first against the tests that have the name of its file. If these pass, the tests of
its room follow, and then the whole suite. A mutant that an earlier run judged begins with the test that noticed it
then. Each stops at the first failure, and has three times the seconds of the right program and half a minute; a mutant
that takes longer has been noticed. The examples of property tests are the same in every run. As many mutants run at a
time as there are processors. Mutants that no test can notice, because they do what the program does, are listed with a
reason in equivalent_mutants.toml and do not count.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import weakref
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import parts, results
from benchmarks.mutants import Mutant, mutants_of
from benchmarks.parts import Content

KERNELS = "kernels/tinyvae_kernels/cpu"
# The rooms whose tests are tested; those that do not exist are left out.
ROOMS = ("tinyvae/engine", "tinyvae/inference", "tinyvae/distributions", "tinyvae/training", "tinyvae/runs", KERNELS)
SAMPLE, SEED = 300, 0
SUITE = ("tests",)
EQUIVALENT = results.ROOT / "benchmarks" / "equivalent_mutants.toml"
SURVIVED, HUNG, SAME = "survived", "hung", "equivalent"
TIMES, MORE = 3, 30.0  # a mutant may take so many times the right program's seconds, and so many seconds more
FAILED = 1  # the exit code of pytest if tests failed
AHEAD = 40  # so many mutants wait at most while one meets the whole suite
RIGHT = threading.Lock()  # held while a copy looks whether another one measures the right program


class Outcome(NamedTuple):
    """How pytest ended."""

    code: int | None  # None: it was stopped, because it took too long
    seconds: float
    output: str

    @property
    def noticed(self) -> bool:
        return self.code != 0

    @property
    def failures(self) -> list[str]:
        """The names of the tests that failed."""
        lines = [line for line in self.output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return [line.split(" ", 1)[1].split(" - ")[0] for line in lines]


class Copy:
    """A copy of the tree in which one file at a time is changed.

    right: the seconds and faults of the right program in some tests, which several copies can share.
    """

    def __init__(self, right: dict[tuple[str, ...], Future[Outcome]] | None = None) -> None:
        self._work = Path(tempfile.mkdtemp(prefix="tinyvae-mutants-"))
        weakref.finalize(self, shutil.rmtree, self._work, ignore_errors=True)  # also at the end of the process
        self.folder = self._work / "tree"
        listed = results.git("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        for name in listed:
            if (results.ROOT / name).is_file():  # one that was deleted is still listed
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(results.ROOT / name, self.folder / name)
        self._right = {} if right is None else right
        self._process: subprocess.Popen | None = None
        self._seconds = itertools.count(1)

    @contextlib.contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """Within this block the file of the mutant is changed."""
        file = self.folder / mutant.file
        right = file.read_bytes()
        self._write(file, mutant.apply(right))
        try:
            yield
        finally:
            self._write(file, right)

    def _write(self, file: Path, content: bytes) -> None:
        """Write a source. To Python it is one of old byte code if size and second are the same: each has its own."""
        file.write_bytes(content)
        second = next(self._seconds)
        os.utime(file, (second, second))

    def right(self, tests: tuple[str, ...]) -> tuple[float, list[str]]:
        """The seconds of the right program in these tests, and the tests that fail for it, which no mutant meets."""
        with RIGHT:
            first = tests not in self._right
            known = self._right.setdefault(tests, Future())
        if first:
            told = " ".join(tests) if len(tests) < 5 else f"{len(tests)} tests"
            parts.say(f"the right program in {told}")
            try:
                known.set_result(self._pytest(tests, math.inf, "--tb=no", "-rfE"))
            except BaseException as fault:
                known.set_exception(fault)
                raise
        found = known.result()
        if found.code not in (0, FAILED):
            raise SystemExit(f"{' '.join(tests)}: pytest ended with {found.code} for the right program: "
                             f"{found.output.strip()[-300:]}")
        return found.seconds, found.failures

    def passing(self, tests: Iterable[str]) -> set[str]:
        """Those of these tests that exist and that the right program passes; one run of all of them finds out."""
        listed = self._pytest(SUITE, math.inf, "--collect-only").output.splitlines()
        exist = {line for line in listed if "::" in line}
        names = tuple(sorted(exist.intersection(tests)))
        return set(names).difference(self.right(names)[1]) if names else set()

    def forget(self, kernels: str) -> None:
        """Remove machine code."""
        shutil.rmtree(self._work / kernels, ignore_errors=True)

    def run(self, tests: tuple[str, ...], seconds: float, failed: list[str], kernels: str = "kernels") -> Outcome:
        """The outcome of these tests without those in `failed`, up to the first failure."""
        return self._pytest(tests, TIMES * seconds + MORE, "-x", *(f"--deselect={test}" for test in failed),
                            kernels=kernels)

    def stop(self) -> None:
        """Kill the tests that run, and whatever they have started."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _pytest(self, tests: tuple[str, ...], limit: float, *options: str, kernels: str = "kernels") -> Outcome:
        """Run pytest in the copy. The machine code of right and of changed kernels lies in folders of their own."""
        home = self._work / "home"
        home.mkdir(exist_ok=True)
        names = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(home), "CI": "true",
                 "TINYVAE_FIRST_FAILURE": "true", "PYTHONDONTWRITEBYTECODE": "",
                 "NUMBA_CACHE_DIR": str(self._work / kernels),
                 "PYTHONPATH": os.pathsep.join([str(self.folder), str(self.folder / "kernels")])}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
        begin = time.perf_counter()
        with open(self._work / "output", "w+b") as output:
            process = self._process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | names, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True)
            code: int | None = None
            try:
                code = process.wait(None if limit == math.inf else limit)
            except subprocess.TimeoutExpired:
                pass
            finally:
                self.stop()
                process.wait()
            output.seek(0)
            return Outcome(code, time.perf_counter() - begin, output.read().decode(errors="replace"))


def mirrored(file: str) -> tuple[str, ...]:
    """The tests that have the name of a file; for a kernel without such tests those of all kernels."""
    folder = results.ROOT / room_tests(file)[0]
    found = sorted(folder.glob(f"test_{Path(file).stem}*.py"))
    if not found and file.startswith(KERNELS):
        found = [folder / "test_kernels.py"]
    return tuple(path.relative_to(results.ROOT).as_posix() for path in found)


def room_tests(file: str) -> tuple[str, ...]:
    """The tests of a file's room: a folder, and what is left out of it."""
    if file.startswith(KERNELS):
        return "tests/kernels", "--ignore=tests/kernels/cuda"  # of the other device
    return (f"tests/{Path(file).parts[1]}",)


def stages(file: str, quick: bool) -> list[tuple[str, tuple[str, ...]]]:
    """The tests that a mutant meets one after the other, with a name for each; a quick run leaves out the suite."""
    found = [("its own tests", mirrored(file)), ("its room's tests", room_tests(file))]
    return [(name, tests) for name, tests in found if tests] + [("the whole suite", SUITE)] * (not quick)


def verdict(copy: Copy, mutant: Mutant, quick: bool, known: str = "") -> dict[str, Any]:
    """Which tests notice a mutant, and how.

    known: the test that noticed it in an earlier run, and that the right program passes, or "".
    """
    kernels = "mutant" if mutant.file.startswith("kernels") else "kernels"
    first = [("the test of an earlier run", (known,))] * bool(known)
    for name, tests in [*first, *stages(mutant.file, quick)]:
        seconds, failed = copy.right(tests) if tests != (known,) else (MORE, [])  # before the file is changed
        with copy.changed(mutant):
            found = copy.run(tests, seconds, failed, kernels)
        copy.forget("mutant")
        if found.noticed:
            test, *_ = *found.failures, f"pytest ended with {found.code}"
            return {"verdict": HUNG if found.code is None else f"noticed by {name}", "test": test}
    return {"verdict": SURVIVED, "test": ""}


class Crew:
    """Judges several mutants at a time, each in a copy of its own, in the order of their list.

    judge: gets a copy and a mutant.
    """

    def __init__(self, mutants: list[Mutant], judge: Callable[[Copy, Mutant], dict[str, Any]],
                 size: int = os.cpu_count() or 1) -> None:
        self._mutants, self._judge, self._size = mutants, judge, size
        self._pool = ThreadPoolExecutor(size)
        self._begun: dict[Mutant, Future[dict[str, Any]]] = {}
        self._here, self._copies = threading.local(), list[Copy]()
        self._right: dict[tuple[str, ...], Future[Outcome]] = {}

    def _work(self, mutant: Mutant) -> dict[str, Any]:
        if not hasattr(self._here, "copy"):
            self._here.copy = Copy(self._right)
            self._copies.append(self._here.copy)
        return self._judge(self._here.copy, mutant)

    def verdict(self, mutant: Mutant, judged: Container[str]) -> dict[str, Any]:
        """The verdict on a mutant. Meanwhile the next ones begin whose names are not in `judged`."""
        for other in self._mutants[self._mutants.index(mutant):]:
            if len(self._begun) >= AHEAD:
                break
            if other.name not in judged and other not in self._begun:
                self._begun[other] = self._pool.submit(self._work, other)
        try:
            return self._begun.pop(mutant).result()
        except KeyboardInterrupt:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for copy in self._copies:
                copy.stop()
            raise


def row(mutant: Mutant, found: dict[str, Any]) -> dict[str, Any]:
    """The row of the results file."""
    return {"name": mutant.name, "file": mutant.file, "line": mutant.line, "function": mutant.function,
            "kind": mutant.kind, "before": mutant.before, "after": mutant.after, **found}


def every() -> list[Mutant]:
    """All mutants of the rooms."""
    files = [path for room in ROOMS for path in sorted((results.ROOT / room).rglob("*.py"))]
    return [mutant for path in files
            for mutant in mutants_of(path.relative_to(results.ROOT).as_posix(), path.read_text())]


def earlier(path: Path) -> dict[str, str]:
    """The test that noticed each mutant of an earlier run, "" for a survivor, by the mutant's name."""
    return {row["name"]: row["test"] for row in json.loads(path.read_text())["rows"]}


def equivalent() -> dict[str, str]:
    """The reason why no test can notice a mutant, by its name."""
    return {entry["name"]: entry["reason"] for entry in tomllib.loads(EQUIVALENT.read_text()).get("mutant", [])}


def score(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The share of the mutants that were noticed, with its standard error; equivalent ones do not count."""
    counts = Counter(row["verdict"] for row in rows)
    count = len(rows) - counts[SAME]
    share = 1 - counts[SURVIVED] / count if count else math.nan
    return {"count": count, "equivalent": counts[SAME], "survived": counts[SURVIVED], "hung": counts[HUNG],
            "score": share, "standard_error": math.sqrt(share * (1 - share) / count) if count else math.nan}


def show(content: Content) -> None:
    """Print the survivors, and the score of each room and of all."""
    rows = content["rows"]
    for found in rows:
        if found["verdict"] == SURVIVED:
            print(f"{found['file']}:{found['line']}: {found['kind']} in {found['function'] or 'the module'}: "
                  f"{found['before']} -> {found['after']}")
    for room in (*ROOMS, ""):
        if here := [found for found in rows if found["file"].startswith(room)]:
            s = score(here)
            print(f"{room or 'together'}: {s['score']:.1%} (standard error {s['standard_error']:.1%}) of {s['count']} "
                  f"mutants are noticed, {s['hung']} of them because they hang; {s['equivalent']} equivalent ones do "
                  "not count")


def table_of(sample: int = SAMPLE, seed: int = SEED, only: str = "", quick: bool = False,
             after: Path | None = None) -> parts.Table:
    """A part for each mutant of the sample: the first `sample` with `only` in the name, in the order of their digests
    with `seed`, so that a change of the program leaves the others in the sample.

    A quick run leaves out the whole suite, and so finds survivors that other rooms' tests would notice. The mutants of
    the results file `after` of an earlier run come first.
    """
    chosen, reasons = [mutant for mutant in every() if only in mutant.name], equivalent()
    total = len(chosen)
    if not total:
        raise SystemExit(f"found no mutant with {only!r} in its name; expected a part of one, such as {ROOMS[1]}")
    known = earlier(after) if after else {}

    def place(mutant: Mutant) -> tuple[bool, bytes]:
        return mutant.name not in known, hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()

    sampled = sorted(chosen, key=place)[:sample]
    passing = functools.cache(lambda: Copy().passing(known.values()) if known else set())

    def judge(copy: Copy, mutant: Mutant) -> dict[str, Any]:
        test = known.get(mutant.name, "")
        return verdict(copy, mutant, quick, test if test in passing() else "")

    crew = Crew([mutant for mutant in sampled if mutant.name not in reasons], judge)

    def part(content: Content, mutant: Mutant) -> Content:
        passing()  # before the crew begins, whose threads would each find it out
        found = ({"verdict": SAME, "test": reasons[mutant.name]} if mutant.name in reasons else
                 crew.verdict(mutant, content["parts"]))
        parts.say(f"{found['verdict']}  {found['test']}")
        return {"rows": [row(mutant, found)]}

    found = {mutant.name: lambda content, mutant=mutant: part(content, mutant) for mutant in sampled}
    return parts.Table("mutants", found, show, close=lambda content: score(content["rows"]),
                       head={"seed": seed, "of": total, "only": only})
