"""A log keeps its whole lines, whatever was cut short or damaged."""

import os
from pathlib import Path

import numpy as np
import pytest

from tinyvae.runs import log


def test_log(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert log.read_lines(file) == []
    log.cut_lines(file, lambda record: True)
    assert not file.exists()
    for epoch in range(5):
        elbo = float("nan") if epoch == 2 else np.float32(-100.5)
        log.append_line(file, {"epoch": epoch, "elbo": elbo})
    assert file.read_text().splitlines()[2] == '{"epoch": 2, "elbo": null}'
    assert [r["epoch"] for r in log.read_lines(file)] == list(range(5))


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for epoch in range(3):
        log.append_line(file, {"epoch": epoch})
    whole = file.read_bytes()
    for length in range(len(whole) - 13, len(whole)):
        file.write_bytes(whole[:length])
        log.append_line(file, {"epoch": 9})
        assert [r["epoch"] for r in log.read_lines(file)][-1] == 9
        assert [r["epoch"] for r in log.read_lines(file)][:2] == [0, 1]
        log.cut_lines(file, lambda record: record["epoch"] <= 1)
        assert file.read_bytes() == b'{"epoch": 0}\n{"epoch": 1}\n'
    file.write_bytes(whole + b"\xff\x00 {" + b"[" * 100_000)
    log.cut_lines(file, lambda record: True)
    assert file.read_bytes() == whole


def test_a_log_that_needs_no_cut_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log.append_line(file, {"epoch": 0})
    inode = file.stat().st_ino
    log.cut_lines(file, lambda record: True)
    assert file.stat().st_ino == inode


def test_a_damaged_log_is_kept(tmp_path: Path) -> None:
    """A line that ends and is no record was damaged; the file as it was stays beside the new one."""
    file, aside = tmp_path / "metrics.jsonl", tmp_path / "metrics.jsonl.damaged"
    for damage in (b"{\xff}\n", b"[1]\n", b"\0" * 20 + b"\n", b'{"epoch": "x"}\n'):
        whole = b'{"epoch": 0}\n' + damage + b'{"epoch": 1}\n'
        file.write_bytes(whole)
        found = log.cut_lines(file, lambda record: True, lambda record: isinstance(record.get("epoch"), int))
        assert found == aside
        assert aside.read_bytes() == whole
        assert file.read_bytes() == b'{"epoch": 0}\n{"epoch": 1}\n'


def test_a_line_without_an_end_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log.append_line(file, {"epoch": 0})
    with open(file, "ab") as opened:
        opened.truncate(2**40)  # a hole takes no room on the disk
    assert log.read_lines(file) == [{"epoch": 0}]
    assert log.cut_lines(file, lambda record: True) == tmp_path / "metrics.jsonl.damaged"
    assert file.read_bytes() == b'{"epoch": 0}\n'


def test_a_line_is_forced_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These very bytes, and each line before the next."""
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), fsync(file)))
    for _ in range(2):
        log.append_line(tmp_path / "log", {"b": 1, "a": float("nan")})
    assert synced == [20, 40]
    assert (tmp_path / "log").read_bytes() == 2 * b'{"b": 1, "a": null}\n'
