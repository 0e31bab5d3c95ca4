"""The endurance run finds what does not hold, and leaves nothing out."""

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks import damage, endure


def test_damaged_folders_are_counted():
    found = endure.damaged(0, 2)["files"]
    assert found == [{"first": 0, "count": 2, "refused": found[0]["refused"]}]
    assert 0 <= found[0]["refused"] <= 2


def test_an_error_of_another_kind_ends_the_part(monkeypatch, capsys):
    """It names the seed, by which the folder can be made again."""

    def refusals(out, data):
        raise TypeError("'NoneType' object is not iterable")

    monkeypatch.setattr(damage, "refusals", refusals)
    with pytest.raises(SystemExit, match=r"the folder of seed 7 \(.*\) ended with TypeError: 'NoneType'"):
        endure.damaged(7, 1)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", endure.ENDS)
def test_one_bit_is_a_difference(name, tmp_path):
    for out in ("run", "whole"):
        (tmp_path / out).mkdir()
        for file in endure.ENDS:
            (tmp_path / out / file).write_bytes(b"the same")
    endure.compare(tmp_path / "run", tmp_path / "whole", "seed 0")
    (tmp_path / "run" / name).write_bytes(b"the samd")
    with pytest.raises(SystemExit, match=f"{name} differs from that of an undisturbed run"):
        endure.compare(tmp_path / "run", tmp_path / "whole", "seed 0")


def test_memory_that_grows_is_found(monkeypatch):
    monkeypatch.setattr(endure, "GROWTH", -1.0)
    with pytest.raises(SystemExit, match=r"the memory grew by .* MB over 1,000 steps, allowed -1\.0"):
        endure.replayed(1000)


@pytest.mark.parametrize("quick", [False, True])
def test_all_is_tried(quick, monkeypatch):
    """The parts together make the numbers that are promised, a hundredth of them in the quick run."""
    monkeypatch.setattr(endure, "damaged", lambda first, count: {"files": [{"count": count, "refused": 0}]})
    monkeypatch.setattr(endure, "killed", lambda seed, count: {"kills": [{"count": count}]})
    monkeypatch.setattr(endure, "killed_ranks", lambda seed, count: {"kills of ranks": [{"count": count}]})
    monkeypatch.setattr(endure, "replayed", lambda count: {"steps": [{"count": count, "growth_megabytes": 0.0}]})
    monkeypatch.setattr(endure, "started", lambda count: {"starts": [{"count": count}]})
    table, content = endure.table_of(quick), {}
    for part in table.parts.values():
        for name, rows in part(content).items():
            content[name] = content.get(name, []) + rows
    counts = [row["count"] for row in table.close(content)["rows"]]
    assert counts == ([100, 2, 2, 10_000, 2] if quick else [10_000, 100, 20, 1_000_000, 10])
