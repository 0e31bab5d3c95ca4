"""Checkpoints against truncation, flipped bytes, full disks, kills and hostile files."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyvae.runs import checkpoint, files, log
from tinyvae.runs.files import CheckpointError
from tinyvae.training.fingerprint import fingerprint

ARRAYS: dict[str, Any] = {
    "encoder.0.weight": np.arange(60, dtype=np.float32).reshape(12, 5) / 7,
    "encoder.0.bias": np.linspace(-1, 1, 5),
    "step": np.array(41, dtype=np.int64),
    "pixels": np.arange(256, dtype=np.uint8),
    "none": np.zeros((0, 3), dtype=np.float32),
}
META = {"seed": 3, "best": -float("inf"), "names": ["α", "b"], "deep": {"rate": 1e-3, "flag": None}}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes() for k in a
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "last.safetensors"
    checkpoint.save(file, ARRAYS, META)
    return file


# ---- what goes in comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", checkpoint.DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (7,), (2, 3, 4)])
def test_round_trip(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 128, size=shape).astype(dtype)
    checkpoint.save(tmp_path / "a", {"x": array}, {"k": 1})
    arrays, meta = checkpoint.load(tmp_path / "a")
    assert equal(arrays, {"x": array})
    assert meta == {"k": 1}
    assert arrays["x"].flags.writeable
    assert arrays["x"].flags.owndata


def test_round_trip_of_everything(path: Path) -> None:
    arrays, meta = checkpoint.load(path)
    assert equal(arrays, ARRAYS)
    assert list(arrays) == sorted(ARRAYS)
    assert meta == META


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.arange(6, dtype=">f4"),
        np.array([np.nan, -0.0]),
    ],
    ids=["transposed", "strided", "big-endian", "nan"],
)
def test_layouts_are_stored_by_value(array: np.ndarray, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", {"x": array}, {})
    loaded = checkpoint.load(tmp_path / "a")[0]["x"]
    np.testing.assert_array_equal(loaded, array)
    assert fingerprint(loaded) == fingerprint(array)


def test_the_bytes_depend_on_the_content_only(path: Path, tmp_path: Path) -> None:
    backwards = {name: ARRAYS[name] for name in reversed(ARRAYS)}
    for _ in range(5):
        checkpoint.save(tmp_path / "again", backwards, dict(reversed(META.items())))
        assert (tmp_path / "again").read_bytes() == path.read_bytes()
    # Another process hashes strings differently, which must not show.
    program = "import sys; from tinyvae.runs import checkpoint as c; c.save(sys.argv[2], *c.load(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "other")]
    subprocess.run(command, check=True, env=environment)
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_other_programs_can_read_the_weights(path: Path) -> None:
    assert equal(safetensors.numpy.load_file(path), ARRAYS)


def test_wrong_types_are_refused_before_anything_is_written(path: Path) -> None:
    before = path.read_bytes()
    for arrays, meta in [
        ({"x": np.array([{}], dtype=object)}, {}),
        ({"x": np.array(["a"])}, {}),
        ({"x": [1.0]}, {}),
        ({"__metadata__": np.zeros(2)}, {}),
        ({"x": np.zeros(2)}, {"f": print}),
    ]:
        with pytest.raises(TypeError):
            checkpoint.save(path, arrays, meta)  # type: ignore[arg-type]
    assert path.read_bytes() == before


# ---- what is refused ---------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_truncation(path: Path) -> None:
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        assert "truncated" in refusal(path) or (length == 0 and "empty" in refusal(path))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_changes_nothing(data: st.DataObject, path: Path) -> None:
    arrays, meta = {"w": np.arange(6, dtype=np.float32), "n": np.array(3)}, {"seed": 1, "best": -float("inf")}
    checkpoint.save(path, arrays, meta)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded, found = checkpoint.load(path)
    except CheckpointError:
        return
    assert equal(loaded, arrays)
    assert found == meta


def test_every_byte_of_the_numbers_counts(path: Path) -> None:
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for at in range(begin, len(content), 13):
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert "checksum" in refusal(path)


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "text": b"hello, this is not a checkpoint at all\n" * 3,
    "zeros": bytes(64),
    "huge header": (2**63).to_bytes(8, "little") + b"{}",
    "large header": (2**31).to_bytes(8, "little") + b"{" * 100,
    "overlap": file_of({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, bytes(12)),
    "hole": file_of({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 8, 12)}, bytes(12)),
    "outside": file_of({"a": tensor("F32", [2], 0, 8)}, bytes(4)),
    "backwards": file_of({"a": tensor("F32", [2], 8, 0)}, bytes(8)),
    "negative": file_of({"a": tensor("F32", [-2], 0, 8)}, bytes(8)),
    "overflow": file_of({"a": tensor("F32", [2**62, 2**62], 0, 8)}, bytes(8)),
    "wrong size": file_of({"a": tensor("F32", [3], 0, 8)}, bytes(8)),
    "unknown type": file_of({"a": tensor("OBJ", [1], 0, 8)}, bytes(8)),
    "no NumPy type": file_of({"a": tensor("BF16", [4], 0, 8)}, bytes(8)),
    "nested": file_of(b"[" * 100_000 + b"]" * 100_000),
    "list": file_of([1, 2]),
    "trailing": file_of({"a": tensor("F32", [2], 0, 8)}, bytes(80)),
    "nested meta": file_of({"__metadata__": {"tinyvae": "[" * 100_000}}),
    "meta no text": file_of({"__metadata__": {"tinyvae": {"format": "tinyvae"}}}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(HOSTILE[kind])
    refusal(tmp_path / "x")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_never_run(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    assert "pickle" in refusal(tmp_path / "x")
    np.savez(tmp_path / "x.npz", a=np.array([Bomb()], dtype=object))
    assert "zip" in refusal(tmp_path / "x.npz")
    assert not (tmp_path / "exploded").exists()


def test_files_of_others(path: Path, tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing")
    assert "is not a file" in refusal(tmp_path)
    safetensors.numpy.save_file(ARRAYS, path)
    assert "another program" in refusal(path)
    safetensors.numpy.save_file(ARRAYS, path, {"format": "pt"})
    assert "another program" in refusal(path)
    safetensors.numpy.save_file(ARRAYS, path, {"tinyvae": json.dumps({"format": "tinyvae", "version": 2})})
    assert "upgrade tinyvae" in refusal(path)
    for version in (0, True, "1", None):
        header = json.dumps({"format": "tinyvae", "version": version, "meta": {}})
        safetensors.numpy.save_file(ARRAYS, path, {"tinyvae": header})
        assert "damaged" in refusal(path)


def test_check_shapes_names_the_first_difference() -> None:
    arrays: dict[str, Any] = {"b": np.zeros((2, 3), np.float32), "c": np.zeros(4)}
    expected: dict[str, Any] = {"b": ((2, 3), "float32"), "c": ((4,), np.float64)}
    found = checkpoint.shapes_of(arrays)
    checkpoint.check_shapes(found, expected, "run/last")
    changes: list[tuple[dict[str, Any], list[str]]] = [
        ({"a": ((1,), "float32")}, ["lacks 'a'", "float32 (1,)"]),
        ({"b": ((2, 4), "float32")}, ["'b'", "float32 (2, 3)", "float32 (2, 4)"]),
        ({"c": ((4,), "float32")}, ["'c'", "float64 (4,)", "float32 (4,)"]),
    ]
    for change, words in changes:
        with pytest.raises(CheckpointError) as caught:
            checkpoint.check_shapes(found, expected | change, "run/last")
        assert all(word in str(caught.value) for word in ["run/last", *words])
    with pytest.raises(CheckpointError, match="does not have"):
        checkpoint.check_shapes(found, {"b": expected["b"]}, "run/last")


# ---- full disks and kills ----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_failing_call_leaves_the_old_file(
    call: str, number: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(CheckpointError, match="could not be written") as caught:
            checkpoint.save(path, {"x": np.ones(1000)}, {})
    assert os.strerror(number) in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_an_interrupt_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(path, {"x": np.ones(1000)}, {})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def in_another_process(program: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="resource limits and SIGKILL exist on POSIX systems only")
def test_a_full_disk_and_a_kill_for_real(path: Path) -> None:
    before = path.read_bytes()
    lines = path.parent / "metrics.jsonl"
    log.append_line(lines, {"epoch": 1})
    full = in_another_process(
        """
        import resource, sys
        import numpy as np
        from tinyvae.runs import checkpoint, files, log, log
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        for attempt in (
            lambda: checkpoint.save(sys.argv[1], {"x": np.ones(5000)}, {}),
            lambda: log.append_line(sys.argv[2], {"text": "x" * 9000}),
        ):
            try:
                attempt()
            except checkpoint.CheckpointError as error:
                print(error)
        """, path, lines,
    )  # fmt: skip
    assert full.stdout.count("could not be written") == 2, full.stderr
    assert full.stdout.count("ulimit -f") == 2
    assert path.read_bytes() == before
    assert log.read_lines(lines) == [{"epoch": 1}]
    assert lines.read_bytes().endswith(b"}\n")
    assert sorted(os.listdir(path.parent)) == [path.name, lines.name]

    killed = in_another_process(
        """
        import os, signal, sys
        import numpy as np
        from tinyvae.runs import checkpoint, files, log, log
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.save(sys.argv[1], {"x": np.ones(5000)}, {})
        """, path,
    )  # fmt: skip
    assert killed.returncode == -9
    assert path.read_bytes() == before
    assert len(os.listdir(path.parent)) == 3  # the temporary file is left, whole and ignored
    checkpoint.save(path, {"x": np.ones(3)}, {})
    assert equal(checkpoint.load(path)[0], {"x": np.ones(3)})
    assert len(files.sweep(path.parent)) == 1
    assert sorted(os.listdir(path.parent)) == [path.name, lines.name]


def test_missing_folder_and_link(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="make the folder"):
        checkpoint.save(tmp_path / "no" / "x", {}, {})
    link = tmp_path / "link"
    link.symlink_to(path)
    checkpoint.save(link, {"x": np.ones(2)}, {})
    assert link.is_symlink()
    assert equal(checkpoint.load(path)[0], {"x": np.ones(2)})
