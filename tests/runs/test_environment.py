"""What is said of the machine and of the BLAS, from made-up ones and from this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyvae.runs import environment


def test_environment_is_json_and_names_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment.environment()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["numpy"] == np.__version__
    assert found["variables"]["OMP_NUM_THREADS"] == "3"
    assert found["cores"] >= 1
    assert str(Path.home()) not in json.dumps(found)
    assert environment.installed("no-such-package") is None


def test_what_is_installed_is_found_without_import() -> None:
    program = (
        "import sys; from tinyvae.runs import environment; environment.environment()\n"
        "heavy = {'numba', 'scipy', 'cupy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})


AVX512 = frozenset("avx avx2 fma avx512f avx512cd avx512bw avx512dq avx512vl".split())
AVX2 = frozenset("avx avx2 fma".split())


@pytest.mark.parametrize(
    ("kernel", "flags", "newer"),
    [
        ("Haswell", AVX512, "SkylakeX"),
        ("Zen", AVX512, "SkylakeX"),
        ("Prescott", AVX2, "Haswell"),
        ("Nehalem", frozenset({"avx"}), "Sandybridge"),
        ("SkylakeX", AVX512, None),
        ("Cooperlake", AVX512, None),
        ("Zen", AVX2, None),
        ("Prescott", frozenset(), None),
        (None, AVX512, None),
        ("Haswell", None, None),
        ("Haswell", AVX512 - {"avx512bw"}, None),
    ],
)
def test_newer_kernel(kernel: str | None, flags: frozenset[str] | None, newer: str | None) -> None:
    assert environment.newer_kernel(kernel, flags) == newer


def pool(**change: Any) -> dict[str, Any]:
    return {"user_api": "blas", "internal_api": "openblas", "num_threads": 2, "version": "0.3.31",
            "filepath": "/lib/numpy.libs/openblas.so", "architecture": "Haswell", **change}  # fmt: skip


def test_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    import threadpoolctl

    other = pool(filepath="/lib/scipy.libs/openblas.so", architecture="Zen")
    pools = [other, pool(user_api="openmp"), pool()]
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: pools)
    monkeypatch.setattr(environment, "cpu_flags", lambda: AVX512)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert environment.blas() == {
        "library": "openblas", "version": "0.3.31", "kernel": "Haswell", "threads": 2,
        "pinned_by": "OPENBLAS_CORETYPE=Haswell", "newer_kernel": "SkylakeX",
    }  # fmt: skip
    pools[:] = [pool(internal_api="mkl")]
    assert environment.blas()["newer_kernel"] is None
    pools.clear()
    assert environment.blas()["kernel"] is None
    assert environment.blas()["library"]


def test_the_flags_of_other_systems(tmp_path: Path) -> None:
    assert environment.cpu_flags(str(tmp_path / "missing")) is None
    (tmp_path / "arm").write_text("processor : 0\nFeatures : fp asimd\n")
    assert environment.cpu_flags(str(tmp_path / "arm")) is None
    (tmp_path / "x86").write_text("processor\t: 0\nflags\t\t: fpu avx\n\nprocessor\t: 1\nflags\t\t: none\n")
    assert environment.cpu_flags(str(tmp_path / "x86")) == {"fpu", "avx"}


def test_other_variables_of_numba_are_a_difference(monkeypatch):
    """Numba compiles other instructions for them, whose bits differ."""
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    before = environment.environment()
    assert environment.differing(before) == ""
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert environment.differing(before) == "NUMBA_CPU_NAME= then, NUMBA_CPU_NAME=generic now"
    threads = before["blas"] | {"threads": 77}
    assert "threads 77 then" in environment.differing({"blas": threads})
    assert environment.differing({"blas": threads}, shared=True) == ""  # processes share the processors
    assert environment.differing({"blas": before["blas"]}) == ""  # a run of version 0.1.0 tells no variables
    assert environment.differing({"blas": before["blas"], "variables": [3]}) == ""  # edited
