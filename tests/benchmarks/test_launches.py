"""The list of the slowest launches: of every case, with the shares of its step."""

import json

import pytest

from benchmarks import launches, parts


def test_all_cases_are_measured(tmp_path):
    parts.measure([launches.table_of(True)], True, tmp_path, False)
    content = json.loads((tmp_path / "launches.json").read_text())
    assert [step["case"] for step in content["steps"]] == list(launches.CASES)
    for step in content["steps"]:
        rows = [row for row in content["rows"] if row["case"] == step["case"]]
        assert len(rows) == launches.SHOWN < step["launches"]
        assert rows == sorted(rows, key=lambda row: -row["microseconds"])
        for row in rows:
            assert row["share"] == pytest.approx(row["microseconds"] / step["microseconds"])
            assert row["to_mend"] == (row["share"] > 0.1 and "matmul" not in row["operation"])
