"""The lock of a run folder: one process at a time changes a run, and the system frees the lock of a killed process.

POSIX systems lock the folder itself (flock). Windows cannot; there a byte of the file `.lock` in the folder is locked
(msvcrt.locking). On a network drive flock may hold for one machine only, and some file systems have no locks at all:
then the run goes on after one warning.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyvae.runs.files import CheckpointError

FILE = ".lock"  # in the folder, on Windows
# What a system says of a lock that another process holds; any other error means that this folder cannot be locked.
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def acquire(folder: Path) -> Callable[[], None]:
    """Lock an existing folder, and return the function that frees it; CheckpointError if another process has it."""
    try:
        descriptor = _lock(folder)
    except OSError as fault:
        if fault.errno in HELD:
            raise CheckpointError(f"{folder} is in use: another process is training there; wait for it or stop it "
                                  "first") from None
        warnings.warn(f"{folder} cannot be locked ({fault.strerror}): the run goes on, but nothing keeps a second "
                      "process out of it; start none on this folder", RuntimeWarning, stacklevel=2)
        return lambda: None

    def free() -> None:
        with contextlib.suppress(OSError):
            os.close(descriptor)

    return free


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock until it is closed; OSError if there is none to be had."""
    try:
        import fcntl
    except ImportError:
        return _lock_file(folder / FILE)
    descriptor = _opened(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            raise BlockingIOError(errno.EWOULDBLOCK, "removed by its owner a moment ago")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _lock_file(path: Path) -> int:
    import msvcrt

    windows: Any = msvcrt  # whose functions are not declared on other systems
    descriptor = _opened(path, os.O_RDWR | os.O_CREAT)
    try:
        windows.locking(descriptor, windows.LK_NBLCK, 1)  # the first byte, at once or not at all
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags)
    except OSError as fault:
        raise CheckpointError(f"{path} cannot be opened: {fault.strerror}; check its permissions") from None
