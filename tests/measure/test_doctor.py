"""The doctor before broken machines, which are made up: no fault may stop it, and each has its cure."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyvae.measure import doctor
from tinyvae.runs import environment


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CuPy, no driver, no variables: each test adds its own trouble."""
    for name in (*environment.VARIABLES, "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(doctor, "_wheels", list)
    monkeypatch.setattr(doctor, "_driver_state", lambda: (None, "no NVIDIA driver (libcuda.so.1)"))


def module(name: str, **content: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(content)
    return made


def fails(error: BaseException) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def install_cupy(
    monkeypatch: pytest.MonkeyPatch, wheel: str = "cupy-cuda13x", nvrtc: Any = lambda: (13, 0)
) -> Any:
    runtime = module("runtime", getDeviceProperties=lambda _: {"name": b"GPU X", "totalGlobalMem": 2**34})
    cuda = module("cupy.cuda", runtime=runtime, nvrtc=module("nvrtc", getVersion=nvrtc),
                  Stream=fails(AssertionError("no Stream may be made")))
    cupy = module("cupy", __version__="14.2.0", cuda=cuda, arange=lambda n: np.arange(n))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    monkeypatch.setattr(doctor, "_wheels", lambda: [wheel])
    return cupy


# ---- the whole report --------------------------------------------------------------------------------------


def test_the_report_of_this_machine() -> None:
    lines = doctor.report()
    assert list(lines) == list(doctor.PROBES)
    assert json.loads(json.dumps(lines)) == lines
    for line in lines.values():
        assert line["status"] in ("ok", "note", "fault")
        assert line["found"]
        assert line["status"] != "fault" or line["cure"]
    assert doctor.faults(lines) == [name for name in lines if lines[name]["status"] == "fault"]


def test_whatever_a_probe_raises_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(doctor.PROBES):
        error = [RuntimeError("two\nlines"), KeyError("k"), MemoryError(), RecursionError("deep")][number % 4]
        monkeypatch.setitem(doctor.PROBES, name, fails(error))
    lines = doctor.report()
    assert doctor.faults(lines) == list(doctor.PROBES)
    assert lines["Python"]["found"] == "the check failed: RuntimeError: two lines"


def test_a_warning_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    def probe() -> doctor.Line:
        warnings.warn("about something", UserWarning, stacklevel=1)
        return {"status": "ok", "found": "it"}

    monkeypatch.setitem(doctor.PROBES, "NumPy", probe)
    assert doctor.report()["NumPy"]["status"] == "ok"


def test_the_table_shows_brackets_and_every_line() -> None:
    from rich.console import Console

    lines = {
        "CuPy": {"status": "note", "found": "not installed", "cure": 'pip install "cupy-cuda13x[ctk]"'},
        "disk": {"status": "fault", "found": "[bold]0 GiB free", "cure": "make room"},
    }
    out = io.StringIO()
    doctor.show(lines, Console(file=out, width=100))
    for text in ("CuPy", "cupy-cuda13x[ctk]", "[bold]0 GiB free", "fault", "make room"):
        assert text in out.getvalue()


# ---- BLAS --------------------------------------------------------------------------------------------------


def blas_line(monkeypatch: pytest.MonkeyPatch, **change: Any) -> doctor.Line:
    found = {"library": "openblas", "version": "0.3.31", "kernel": "Haswell", "threads": 1, "pinned_by": None,
             "newer_kernel": None, **change}  # fmt: skip
    monkeypatch.setattr(environment, "blas", lambda: found)
    return doctor.report()["BLAS"]


def test_a_pinned_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    line = blas_line(monkeypatch, pinned_by="OPENBLAS_CORETYPE=Haswell", newer_kernel="SkylakeX")
    assert line["status"] == "note"
    assert "OPENBLAS_CORETYPE=Haswell pins the older one" in line["found"]
    assert "SkylakeX" in line["found"]
    assert line["cure"].startswith("unset OPENBLAS_CORETYPE")
    assert line["details"]["kernel"] == "Haswell"


def test_other_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blas_line(monkeypatch)["status"] == "ok"
    assert "1 thread" in blas_line(monkeypatch)["found"]
    assert "upgrade NumPy" in blas_line(monkeypatch, newer_kernel="SkylakeX")["cure"]
    assert "OPENBLAS_NUM_THREADS=" in blas_line(monkeypatch, threads=999)["cure"]
    nothing = dict.fromkeys(("library", "version", "kernel", "threads"))
    assert blas_line(monkeypatch, **nothing)["found"] == "unknown"


# ---- Numba -------------------------------------------------------------------------------------------------


def test_numba_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    line = doctor.report()["Numba"]
    assert (line["status"], line["found"]) == ("fault", "not installed")
    assert "numba>=0.60" in line["cure"]


@pytest.mark.parametrize(
    "error",
    [ImportError("Numba needs NumPy 2.0"), ModuleNotFoundError("No llvmlite", name="llvmlite"), OSError("x")],
)
def test_numba_broken(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib, "import_module", fails(error))
    line = doctor._numba()
    assert line["status"] == "fault"
    assert str(error) in line["found"]


def test_numba_that_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = lambda function: lambda a, b: 4
    for njit, words in [(fails(RuntimeError("LLVM")), "cannot compile"), (wrong, "1 + 2 = 4")]:
        monkeypatch.setitem(sys.modules, "numba", module("numba", __version__="0.1", njit=njit))
        line = doctor.report()["Numba"]
        assert line["status"] == "fault"
        assert words in line["found"]


def test_a_variable_of_numba_is_named_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba itself is whole where NUMBA_NUM_THREADS=0 makes its import fail."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "0")

    def broken(name: str) -> None:
        raise ValueError("Number of threads specified must be > 0.")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert doctor._numba()["cure"].startswith("unset NUMBA_NUM_THREADS=0; if that does not help: pip install")


def test_numba_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setitem(sys.modules, "numba", module("numba", __version__="0.1"))
    assert doctor.report()["Numba"]["cure"].startswith("unset NUMBA_DISABLE_JIT")


def test_the_kernel_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert doctor.report()["kernel cache"]["details"] == {"folder": str(tmp_path / "a" / "b")}
    assert not (tmp_path / "a").exists()  # looking makes nothing
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", fails(PermissionError()))
    line = doctor.report()["kernel cache"]
    assert line["status"] == "note"
    assert "NUMBA_CACHE_DIR" in line["cure"]


# ---- CuPy and the GPU --------------------------------------------------------------------------------------


def test_no_cupy_and_no_driver_is_no_fault() -> None:
    lines = doctor.report()
    assert not {"CuPy", "driver", "NVRTC", "GPU"} & set(doctor.faults(lines))
    assert 'pip install "cupy-cuda13x[ctk]"' in lines["CuPy"]["cure"]
    assert "no NVIDIA driver" in lines["driver"]["found"]


def test_a_driver_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_driver_state", lambda: (12040, ""))
    lines = doctor.report()
    assert lines["driver"]["found"] == "CUDA 12.4"
    assert 'pip install "cupy-cuda12x[ctk]"' in lines["CuPy"]["cure"]


def test_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    install_cupy(monkeypatch)
    monkeypatch.setattr(doctor, "_driver_state", lambda: (13010, ""))
    lines = doctor.report()
    assert [lines[name]["status"] for name in ("CuPy", "driver", "NVRTC", "GPU")] == ["ok"] * 4
    assert lines["CuPy"]["found"] == "cupy-cuda13x 14.2.0"
    assert lines["NVRTC"]["found"] == "NVRTC 13.0"
    assert lines["GPU"]["found"] == "GPU X, 16 GiB, runs kernels"


def test_cupy_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    install_cupy(monkeypatch)
    lines = doctor.report()
    assert lines["driver"]["status"] == "fault"
    assert "install the NVIDIA driver" in lines["driver"]["cure"]
    assert lines["GPU"]["status"] == "note"


def test_cupy_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.import_module
    for error in (ImportError("libcublas"), RuntimeError("odd"), ModuleNotFoundError("x", name="fastrlock")):
        broken = fails(error)
        monkeypatch.setattr(
            doctor.importlib, "import_module",
            lambda name, broken=broken: broken() if name.startswith("cupy") else real(name),
        )  # fmt: skip
        monkeypatch.setattr(doctor, "_wheels", lambda: ["cupy-cuda13x"])
        line = doctor.report()["CuPy"]
        assert line["status"] == "fault"
        assert f"installed (cupy-cuda13x), but broken: {type(error).__name__}: {error}" in line["found"]
        assert "pip uninstall cupy-cuda13x" in line["cure"]


def test_wheels_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    install_cupy(monkeypatch)
    monkeypatch.setattr(doctor, "_driver_state", lambda: (12080, ""))
    line = doctor.report()["CuPy"]
    assert line["status"] == "fault"
    assert 'pip uninstall cupy-cuda13x; pip install "cupy-cuda12x[ctk]"' in line["cure"]
    monkeypatch.setattr(doctor, "_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    line = doctor.report()["CuPy"]
    assert "overwrite each other" in line["found"]
    assert "pip uninstall cupy-cuda12x cupy-cuda13x" in line["cure"]


def test_nvrtc_missing_and_a_gpu_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = install_cupy(monkeypatch, wheel="cupy-cuda12x", nvrtc=fails(OSError("libnvrtc.so.12")))
    monkeypatch.setattr(doctor, "_driver_state", lambda: (13000, ""))
    lines = doctor.report()
    assert lines["NVRTC"]["status"] == "fault"
    assert lines["NVRTC"]["cure"] == 'pip install "cupy-cuda12x[ctk]"'
    cupy.arange = fails(RuntimeError("cudaErrorIllegalAddress"))
    assert "cudaErrorIllegalAddress" in doctor.report()["GPU"]["found"]
    cupy.arange = lambda n: np.zeros(n)
    assert doctor.report()["GPU"]["found"].endswith("= 0")


class FakeDriver:
    def __init__(self, code: int, version: int, count: int) -> None:
        self.code, self.version, self.count = code, version, count

    def cuInit(self, _: int) -> int:
        return self.code

    def cuDriverGetVersion(self, out: Any) -> None:
        out._obj.value = self.version

    def cuDeviceGetCount(self, out: Any) -> None:
        out._obj.value = self.count


def test_the_state_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real function, over a made-up library
    for driver, state in [
        (FakeDriver(0, 13000, 1), (13000, "")),
        (FakeDriver(0, 13000, 0), (13000, "the NVIDIA driver reports no GPU")),
        (FakeDriver(100, 0, 0), (None, "the NVIDIA driver reports no usable GPU (cuInit gives 100)")),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(doctor.ctypes, "CDLL", lambda _, driver=driver: driver)
            assert doctor._driver_state() == state
    monkeypatch.setattr(doctor.ctypes, "CDLL", fails(OSError("no such file")))
    assert doctor._driver_state()[0] is None


# ---- data, disk, terminal ----------------------------------------------------------------------------------


def records(**folders: Any) -> Any:
    def find(name: str, data_dir: Any = None) -> dict[str, Any]:
        found, folder, fetched = folders[name]
        return {"name": name, "found": found, "folder": folder, "fetched": fetched, "advice": "A"}

    return module("data", NAMES=tuple(folders), find=find)


def test_data(monkeypatch: pytest.MonkeyPatch) -> None:
    import tinyvae

    def line(**folders: Any) -> doctor.Line:
        monkeypatch.setattr(tinyvae, "data", records(**folders), raising=False)
        return doctor.report()["data"]

    assert line(digits=(True, None, False), mnist=(True, "/d", True))["found"] == "digits, mnist"
    assert line(digits=(True, None, False), mnist=(False, None, True))["status"] == "ok"
    absent = line(digits=(True, None, False), faces=(False, None, False))
    assert absent["status"] == "note"
    assert "not found: faces" in absent["found"]
    assert "TINYVAE_DATA" in absent["cure"]
    damaged = line(digits=(True, None, False), faces=(False, "/d", False))
    assert (damaged["status"], damaged["cure"]) == ("fault", "A")
    assert "damaged: faces" in damaged["found"]


def test_the_data_of_a_folder(tmp_path: Path) -> None:
    details = doctor.report(tmp_path)["data"]["details"]
    assert any(str(tmp_path) in str(record) for record in details)


@pytest.mark.parametrize(("free", "status"), [(2**20, "fault"), (2**28, "note"), (2**33, "ok")])
def test_disk(free: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))
    assert doctor._disk()["status"] == status
    monkeypatch.setattr(doctor, "_writable", lambda _: False)
    assert doctor._disk()["status"] == "fault"


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert doctor._terminal()["cure"].startswith("set PYTHONUTF8=1")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert doctor._terminal()["status"] == "ok"
