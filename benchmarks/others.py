"""How much of the machine other processes use while something is measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
BUSY = 0.1  # cores: where others use more than this on average, a row is marked
IDLE = 3, 4  # the columns of /proc/stat for idle time and for waiting on a disk
GUEST = 8  # from this column on, times are counted a second time


def machine_seconds() -> float | None:
    """The seconds that all cores together have worked since the start of the machine; None where it is not known.

    Time that the hypervisor gave to other machines ("steal") counts as work.
    """
    try:
        columns = STAT.read_text().split("\n", 1)[0].split()[1:]
        worked = sum(int(ticks) for i, ticks in enumerate(columns[:GUEST]) if i not in IDLE)
        return worked / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None


def own_seconds() -> float:
    """The seconds that this process and those of its children that have ended have worked."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Watch:
    """`with Watch() as watch: ...` stores the cores that others used on average in `watch.cores`, or None."""

    cores: float | None = None

    def __enter__(self) -> Watch:
        self._start = machine_seconds(), own_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        (machine, own, begin), now = self._start, machine_seconds()
        if machine is not None and now is not None:
            others = now - machine - (own_seconds() - own)
            self.cores = max(0.0, others / (time.perf_counter() - begin))

    @property
    def marks(self) -> dict[str, float | bool | None]:
        """What a measured row says about this: the cores, and whether they are so many that the row is doubtful."""
        return {"others_cores": self.cores, "busy": None if self.cores is None else self.cores > BUSY}
