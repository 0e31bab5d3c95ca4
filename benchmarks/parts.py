"""Measuring a table part by part: what is measured is kept at once, and a stopped run goes on where it was.

A table consists of parts, which are measured one after the other. After each part the rows so far are written into
NAME.unfinished.json. When every part is there, the file becomes NAME.json, so that this name stands for a whole table.
A part that fails (a wrong result, an error) is recorded with its reason, and the others are measured; then the file
stays unfinished. Each row says how many cores other processes used meanwhile.
"""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import others, results
from benchmarks.tables import say
from tinyvae.runs import environment, files

Content = dict[str, Any]  # of a results file
Part = Callable[[Content], Content]  # gets what is there so far, and returns what it adds


def _nothing(content: Content) -> Content:
    return {}


@dataclass(frozen=True)
class Table:
    """What is measured under one name, and how it is shown."""

    name: str
    parts: Mapping[str, Part]  # in their order
    show: Callable[[Content], None]  # prints what is there
    plot: Callable[[Content, Path], Any] | None = None  # draws a plot of the file at this path, and returns its path
    close: Part = _nothing  # what follows from all parts together
    head: Content = field(default_factory=dict)  # what the file says about them all


class Sheet:
    """The results file of a table while it grows."""

    def __init__(self, table: Table, quick: bool, out: Path | None = None, resume: bool = False) -> None:
        self.table, self.folder = table, results.folder(quick, out)
        self.path, self.unfinished = (self.folder / f"{table.name}{end}" for end in (".json", ".unfinished.json"))
        self.content: Content = {"name": table.name, **results.source(), "quick": quick,
                                 "environment": environment.environment(), **table.head}
        self.content |= {"parts": {}, "faults": {}}
        if resume:
            self._take_up()
        elif self.unfinished.exists():
            raise SystemExit(f"found {self.unfinished} of a run that was stopped: --resume goes on with it; to measure "
                             "everything again, remove it")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise SystemExit(f"the folder of the results, {self.folder}, cannot be made ({fault.strerror}): choose "
                             "another one with --out") from None

    def _take_up(self) -> None:
        """Go on with what is there, if it was measured with the same code on the same machine."""
        for path in (self.unfinished, self.path):
            if not path.exists():
                continue
            found = json.loads(path.read_text())
            for what in ("commit", "changes", "quick", "environment"):
                if found.get(what) != self.content[what]:
                    if path == self.path:
                        return  # a whole table of before; this run measures another
                    raise SystemExit(f"found {path} with {what} {found.get(what)!r}; expected {self.content[what]!r}, "
                                     "as it is now: rows of two kinds do not belong in one table; remove the file to "
                                     "measure everything again")
            self.content = found | {"faults": {}}
            return

    def has(self, part: str) -> bool:
        return part in self.content["parts"]

    def keep(self, part: str, found: Content, seconds: float, **marks: Any) -> None:
        """Add what a part found, mark its rows, and write everything."""
        for name, value in found.items():
            if isinstance(value, list):
                value = [row | marks if isinstance(row, dict) else row for row in value]
                self.content[name] = [*self.content.get(name, []), *value]
            elif isinstance(value, dict):
                self.content[name] = {**self.content.get(name, {}), **value}
            else:
                self.content[name] = value
        self.content["parts"][part] = {"seconds": seconds, **marks}
        self.write()

    def refuse(self, part: str, reason: str) -> None:
        """Record why a part was not measured."""
        self.content["faults"][part] = reason
        self.write()

    def write(self) -> None:
        files.write_json(self.unfinished, self.content)

    def finish(self) -> None:
        """Give the file its name, because every part is there."""
        files.write_json(self.path, self.content | self.table.close(self.content))
        self.content = json.loads(self.path.read_text())
        self.unfinished.unlink(missing_ok=True)

    def measure(self) -> None:
        """Measure all parts that are not there yet. SystemExit if it is stopped by Ctrl-C."""
        waiting = [name for name in self.table.parts if not self.has(name)]
        begin = time.perf_counter()
        for number, name in enumerate(waiting):
            rest = (time.perf_counter() - begin) / number * (len(waiting) - number) if number else 0
            about = f", about {rest:,.0f} s to go" if rest else ""
            say(f"{self.table.name} {len(self.table.parts) - len(waiting) + number + 1} of {len(self.table.parts)}: "
                f"{name}{about}")
            try:
                self._measure(name)
            except KeyboardInterrupt:
                kept = f"{self._count()} are in {self.unfinished}; --resume goes on from there"
                print(f"stopped in {name}: {kept if self.content['parts'] else 'no part was whole, so none is kept'}")
                raise SystemExit(130) from None
        if not self.content["faults"]:
            self.finish()

    def _count(self) -> str:
        return f"{len(self.content['parts'])} of {len(self.table.parts)} parts"

    def _measure(self, name: str) -> None:
        begin = time.perf_counter()
        try:
            with others.Watch() as watch:
                found = results.as_json(self.table.parts[name](self.content))
        except SystemExit as fault:  # the sentence of a check
            self.refuse(name, str(fault))
        except Exception as fault:
            traceback.print_exc()
            self.refuse(name, f"{name}: {type(fault).__name__}: {fault}")
        else:
            self.keep(name, found, time.perf_counter() - begin, **watch.marks)
            if watch.marks["busy"]:
                say(f"other processes used {watch.cores:.1f} cores meanwhile; the rows are marked")
            return
        say(f"NOT measured: {self.content['faults'][name]}")

    def tell(self) -> str:
        """Print the table, and say where it is; the reasons if parts are missing, else ""."""
        if self.content.get("rows") or not self.content["faults"]:
            self.table.show(self.content)
        busy = [name for name, part in self.content["parts"].items() if part.get("busy")]
        if busy:
            print(f"other processes used more than {others.BUSY:g} cores beside {len(busy)} of "
                  f"{len(self.content['parts'])} parts, whose rows are marked")
        if faults := self.content["faults"]:
            return "\n".join([f"{self.table.name} stays unfinished: {self._count()} are in {self.unfinished}",
                              *faults.values()])
        plotted = f", {self.table.plot(self.content, self.path)}" if self.table.plot else ""
        print(f"written: {self.path}{plotted}")
        return ""


def measure(tables: Iterable[Table], quick: bool, out: Path | None = None, resume: bool = False) -> None:
    """Measure tables, print them, and write each NAME.json into `out`, or into the folder of all results of its kind.

    SystemExit after the last table with all reasons, if parts could not be measured; and at once after Ctrl-C.
    """
    reasons = []
    # SIGTERM stops as Ctrl-C does, so that processes which a part has started are ended
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for table in tables:
            sheet = Sheet(table, quick, out, resume)
            sheet.measure()
            if reason := sheet.tell():
                reasons.append(reason)
    finally:
        signal.signal(signal.SIGTERM, before)
    if reasons:
        raise SystemExit("\n".join(reasons))
