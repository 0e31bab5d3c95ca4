"""The reproductions of conditional models: which parts they have, and what of a row decides whether a target is met."""

import json

import pytest
from PIL import Image

from benchmarks import reproduce, reproduce_conditional
from tinyvae.tasks.generation.upscaling import Upscaled, Way


def test_they_are_tables_of_parts():
    parts = reproduce.REPRODUCTIONS["cvae-quadrants"](True)
    assert list(parts) == [f"{kind}, quadrants:{n}, {pixels}" for kind, pixels in (
        ("net", "dynamic"), ("cvae", "dynamic"), ("cvae", "threshold")) for n in (1, 2, 3)] + ["comparison"]
    assert list(reproduce.REPRODUCTIONS["super-resolution"](True)) == [
        f"{kind}, pooled:{factor}" for factor in (4, 2) for kind in ("net", "cvae")]


def row(setting, value, data="digits-dynamic"):
    return {"setting": setting, "data": data, "value": value, "stderr": 0.3, "target": "", "reached": None}


def test_the_comparison_of_quadrants():
    """A bound that is low enough, and a gain beside the net, each by itself; thresholded pixels have no target."""
    values = {1: (66.0, 99.0), 2: (45.0, 56.0), 3: (23.0, 28.0)}
    rows = [row(f"{kind}, quadrants:{n}", value) for n, pair in values.items()
            for kind, value in zip(("cvae", "net"), pair, strict=True)]
    rows += [row(f"cvae, quadrants:{n}", 1.0, "digits-threshold") for n in values]
    made = reproduce_conditional.quadrants(True, print)["comparison"]({"rows": rows})["rows"]
    reached = {r["setting"]: r["reached"] for r in rows if r["data"] == "digits-dynamic"}
    assert reached == {"cvae, quadrants:1": True, "net, quadrants:1": None, "cvae, quadrants:2": True,
                       "net, quadrants:2": None, "cvae, quadrants:3": False, "net, quadrants:3": None}
    assert [(r["value"], r["reached"]) for r in made] == [(33.0, True), (11.0, False), (5.0, True)]
    assert made[0]["stderr"] == pytest.approx(0.3 * 2**0.5)
    assert all(r["reached"] is None for r in rows[-3:])


def way(name, temperature, draws, psnr):
    return Way(name, temperature, draws, psnr, 0.1, 0.8, 0.01, 30.0, 0.1, 0.05 if draws == 1 else None, None)


WAYS = [way("bicubic", None, 0, 14.6), way("answer, T = 1", 1.0, 1, 18.0), way("mean of 32, T = 1", 1.0, 32, 19.9)]


@pytest.mark.parametrize(("kind", "least", "reached"), [("cvae", 19.8, True), ("cvae", 20.0, False), ("net", 1, None)])
def test_the_psnr_that_counts_is_that_of_the_mean_at_temperature_one(kind, least, reached):
    found = reproduce_conditional.psnr_row(row(f"{kind}, pooled:4", 80.0), Upscaled(4, 9, WAYS, {}, None, None), least,
                                           "bicubic 14.63")
    assert (found["value"], found["reached"], found["count"]) == (19.9, reached, 9)


def test_the_plot_lies_beside_the_file(tmp_path):
    file = tmp_path / "super-resolution.json"
    trade = [{"factor": factor, "model": kind, **vars(each)} for factor in (4, 2) for kind in ("net", "cvae")
             for each in WAYS]
    file.write_text(json.dumps({"trade": trade}))
    drawn = reproduce_conditional.plot({"trade": trade}, file)
    assert json.loads(file.read_text())["trade"] == trade
    with Image.open(drawn) as image:
        assert image.format == "PNG"
