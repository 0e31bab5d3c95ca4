"""Whole files: what they hold, their permissions, and how much of them is read."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from tinyvae.runs import files


def test_write_json(tmp_path: Path) -> None:
    value = {"a": np.float32(0.5), "b": [1, float("nan")], "c": {"d": (np.int64(3), -np.inf)}, "e": "β"}
    files.write_json(tmp_path / "c.json", value)
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "a": 0.5, "b": [1, None], "c": {"d": [3, None]}, "e": "β"
    }  # fmt: skip


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    files.write_json(file, 1)
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask  # a new file has those of any new file
    file.chmod(mode)
    files.write_json(file, 2)
    assert file.stat().st_mode & 0o777 == mode
    assert files.read_json(file) == 2


def test_no_json_is_read_without_a_bound(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'"' + b"x" * (files.LONGEST_TEXT - 2) + b'"')
    assert len(files.read_json(file)) == files.LONGEST_TEXT - 2
    file.write_bytes(b'"' + b"x" * (files.LONGEST_TEXT - 1) + b'"')
    assert files.read_json(file) is None
    for content in (b"", b"[" * 100_000, b"\xff", b"{"):
        file.write_bytes(content)
        assert files.read_json(file) is None
    with pytest.raises(files.CheckpointError, match="is not a file"):
        files.read_json(tmp_path)
    with pytest.raises(files.CheckpointError, match="does not exist"):
        files.read_json(tmp_path / "b.json")


def test_content_is_forced_to_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then the name, in its folder."""
    calls: list[tuple[str, object]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        status = os.fstat(descriptor)
        calls.append(("fsync", "folder" if stat.S_ISDIR(status.st_mode) else status.st_size))
        fsync(descriptor)

    def replaced(old: str, new: str) -> None:
        calls.append(("replace", Path(new).name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    files.write_bytes(tmp_path / "a", b"12345")
    assert calls == [("fsync", 5), ("replace", "a"), ("fsync", "folder")]
