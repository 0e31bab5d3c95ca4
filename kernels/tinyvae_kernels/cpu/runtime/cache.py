"""Machine code kept on disk: in the user's cache folder, and never that of other sources.

Numba keeps machine code beside the sources, where an uninstaller leaves it behind; here it lies in the user's cache
folder, or in NUMBA_CACHE_DIR where that is set. Numba compiles a kernel anew when the kernel's own file has changed,
but not when a helper in another file has. Beside the machine code therefore lies the digest of all sources of this
package, sub-folders included; where the sources have another digest now, the machine code is deleted.

Numba trusts what it finds: machine code of which a disk has lost a sector ends the interpreter, and two processes that
compile at once for different types can take each other's file. Here each signature has a file of its own, which begins
with the SHA-256 of the rest. A file that is not what was written is deleted, and its kernel is compiled again.
"""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import threading
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config
from numba.core import caching
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaWarning
from numba.core.runtime import rtsys
from numba.misc.appdirs import AppDirs

import tinyvae_kernels

FOLDER = Path(__file__).parents[2]  # of all sources
# The first of these folders that has a place: without a home they have none, and Numba chooses.
_HOMES = (AppDirs("tinyvae", appauthor=False).user_cache_dir, os.path.expanduser("~/.cache/tinyvae"))
CACHE = next((os.path.join(home, "kernels") for home in _HOMES if os.path.isabs(home)), "")
NOTICE = "compiling the CPU kernels, once: about 10 s"
SEAL = hashlib.sha256().digest_size
_checked: set[Path] = set()
_announced: list[str] = []
# One thread compiles at a time: what `keep` changes meanwhile (the garbage collector, Numba's options, the filters of
# warnings) belongs to the whole process, and two threads would restore each other's values.
COMPILING = threading.RLock()


class SealedFiles:
    """The machine code of one function, in the place of Numba's `IndexDataCacheFile`: a file for each signature.

    A file holds the SHA-256 of the rest, and a pickle of its key and of what Numba keeps. The key names the signature,
    the processor, and the code of the function; the stamp is the time and the size of its source file.
    """

    def __init__(self, cache_path: str, filename_base: str, source_stamp: Any) -> None:
        self.start, self.stamp = os.path.join(cache_path, filename_base), source_stamp

    def _path(self, key: Any) -> Path:
        name = hashlib.sha256(repr((numba.__version__, self.stamp, key)).encode()).hexdigest()
        return Path(f"{self.start}.{name[:16]}.nbi")

    def load(self, key: Any) -> Any:
        """What `save` was given for this key, or None."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content[SEAL:]).digest() == content[:SEAL]:
            found, data = pickle.loads(content[SEAL:])
            if found == key:
                return data
        path.unlink(missing_ok=True)
        return None

    def save(self, key: Any, data: Any) -> None:
        """Write the file in one step; OSError if that fails."""
        path, content = self._path(key), caching.dumps((key, data))
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
        try:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def flush(self) -> None:
        """Nothing of another source is ever loaded, so nothing needs to be forgotten."""


def keep(compile: Callable[..., Any], function: Callable) -> Any:
    """Compile with machine code kept on disk, or without where no folder for it can be written."""
    with COMPILING, global_compiler_lock:  # the second, so that no thread compiles a function of its own meanwhile
        return _keep(compile, function)


def _keep(compile: Callable[..., Any], function: Callable) -> Any:
    collecting, level, folder = gc.isenabled(), config.OPT, config.CACHE_DIR  # type: ignore[attr-defined]
    gc.disable()  # a compiler makes many objects and hardly any garbage: a tenth of its time
    # level 1 is as fast as level 3, with helpers that must be inlined
    config.OPT, config.CACHE_DIR = type(level)(1), folder or CACHE  # type: ignore[attr-defined]
    numba_caching: Any = caching
    numbas = caching.IndexDataCacheFile, caching.Cache.load_overload
    numba_caching.IndexDataCacheFile, numba_caching.Cache.load_overload = SealedFiles, _load
    try:
        if _sources() != LOADED:  # edited since: what is compiled now must not be kept as the new sources' code
            return compile()
        if not kept(function):
            announce()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaWarning)  # a cache that cannot be written is no news to a user
            return compile(cache=True)
    except Exception:  # a read-only installation and no home, a full disk, a broken file: whatever hinders keeping
        announce()
        return compile()
    finally:
        config.OPT, config.CACHE_DIR = level, folder  # type: ignore[attr-defined]
        numba_caching.IndexDataCacheFile, numba_caching.Cache.load_overload = numbas
        if collecting:
            gc.enable()


def _load(cache: Any, signature: Any, context: Any) -> Any:
    """Machine code that is kept, or None, which has it compiled.

    Before Numba looks, it loads all that a compiler needs, and SciPy's linear algebra too: 0.7 s of each process's
    start. Kept code needs Numba's memory functions alone; a compiler loads the rest when it begins.
    """
    rtsys.initialize(context)
    return cache._load_overload(signature, context)


def kept(function: Callable) -> bool:
    """Is there machine code of these sources for a function? That of other sources is deleted first."""
    folder = Path(caching.FunctionCache(function).cache_path)
    forget_stale(folder)
    return any(folder.glob(f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}-*.nbi"))


def announce() -> None:
    """Say once that a user has to wait."""
    if not _announced:
        _announced.append(NOTICE)
        tinyvae_kernels.notify(NOTICE)


def _sources() -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in FOLDER.rglob("*.py"))


def digest() -> bytes:
    """Of all sources of this package."""
    found = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*.py")):
        found.update(path.relative_to(FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest().encode()


LOADED = _sources()  # as this process has them


def forget_stale(folder: Path) -> None:
    """Delete from a cache folder the machine code of other sources, and what a power failure has emptied."""
    if folder in _checked:
        return
    stamp, now = folder / "tinyvae_kernels.digest", digest()
    modules, stale = {path.stem for path in FOLDER.rglob("*.py")}, not stamp.exists() or stamp.read_bytes() != now
    for index in (*folder.glob("*.nbi"), *folder.glob("*.nbc")):  # (earlier versions had two kinds of files)
        if index.name.split(".")[0].split("-")[0] in modules and (stale or not index.stat().st_size):
            index.unlink(missing_ok=True)
    if stale:
        folder.mkdir(parents=True, exist_ok=True)
        stamp.write_bytes(now)
    _checked.add(folder)
