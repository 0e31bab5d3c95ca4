"""A plugin of pytest that tells each outcome as soon as it is known: `pytest -p benchmarks.outcomes`.

The file descriptor $TINYVAE_OUTCOMES gets a JSON line when a test begins, and one when its outcome is known.
"""

from __future__ import annotations

import json
import os
from typing import Any

VARIABLE = "TINYVAE_OUTCOMES"
LONGEST = 2000  # characters of a message


def _tell(**line: Any) -> None:
    os.write(int(os.environ[VARIABLE]), (json.dumps(line) + "\n").encode())


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    _tell(test=nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":  # a test can also be skipped or fail before and after
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
        _tell(test=report.nodeid, outcome=report.outcome, seconds=report.duration, message=why[-LONGEST:])
