"""The kernels' benchmark: errors before times, a case for every kernel, alternatives that agree, a readable plot."""

import itertools
import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.text import Text
from support import make_wrong

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
pytest.importorskip("numba", reason="Numba is missing")
from benchmarks import alternatives, kernels, parts, roofline
from benchmarks.cases import cases
from tinyvae.engine.devices import CPU
from tinyvae.engine.fusion import kernel_of
from tinyvae.engine.rules import TABLE
from tinyvae.measure import hardware, timing
from tinyvae.measure.hardware import Level, Peaks

PEAKS = Peaks((Level(2**20, 100.0), Level(2**27, 20.0)), {"float32": 200.0, "float64": 100.0}, 2, 5)
EVERY = cases()


def case_of(operation):
    return next(case for case in EVERY if case.operation == operation)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the quick form writes, with peaks of this machine that took a moment."""
    out = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "peaks", lambda: hardware.measure(1, beyond=2**24, moved=10**7))
        parts.measure([kernels.table_of(True)], True, out)
    return out


# ---- what is written -----------------------------------------------------------------


def test_rows_have_errors_bounds_and_times(written):
    """Finite positive numbers; an error within the bound that stands beside it; a row for each way to run a case."""
    content = json.loads((written / "kernels.json").read_text())
    rows = content["rows"]
    for row in rows:
        assert all(0 < row[name] < math.inf for name in (
            "microseconds", "lower_quartile", "upper_quartile", "ns_per_element", "gigabytes_per_second", "gigaflops",
            "share_of_peak", "times_twin", "elements", "flops", "bytes", "rounds")), row
        assert row["lower_quartile"] <= row["microseconds"] <= row["upper_quartile"]
    for row in rows + content["errors"]:
        assert 0 <= row["error_mean_units"] <= row["error_max_units"] <= row["bound_units"] < math.inf
    expected = {(case.operation, case.label, alternative) for case in EVERY for alternative in kernels.forms(case)}
    assert {(row["operation"], row["case"], row["alternative"]) for row in rows} == expected
    assert {(e["operation"], e["case"], e["alternative"], e["dtype"]) for e in content["errors"]} == {
        (*form, dtype) for form in expected for dtype in ("float32", "float64")}
    assert content["quick"] is True
    assert content["peaks"]["product_gigaflops"]["float32"] > 0
    assert content["environment"]["blas"]["kernel"]


def test_the_plot_names_every_kernel(written):
    root = ElementTree.parse(written / "kernels.svg").getroot()
    assert root.tag.endswith("svg")
    assert "date" not in (written / "kernels.svg").read_text().lower()


# ---- completeness --------------------------------------------------------------------


def test_every_kernel_has_a_case_and_a_bound():
    assert kernels.unmeasured(EVERY) == []


def test_a_kernel_without_a_case_is_noticed(monkeypatch, tmp_path):
    """A new row with a kernel stops the benchmark, and its test, until it is measured."""
    make_wrong(monkeypatch, "exp", kernel="exp")
    assert kernels.unmeasured(EVERY) == ["exp"]
    with pytest.raises(SystemExit, match=r"exp: no case"):
        kernels.table_of(True)
    monkeypatch.undo()
    monkeypatch.delitem(kernels.BOUNDS, "adam")
    assert kernels.unmeasured(EVERY) == ["adam"]


def test_every_rung_belongs_to_a_case():
    """And says in its docstring what it taught."""
    found = {name: module for case in EVERY for name, module in alternatives.of(case.operation, case.label).items()}
    assert set(found) == set(alternatives.NAMES)
    for name, module in found.items():
        assert "Lesson:" in module.__doc__, name
        assert set(module.CASES) <= {case.label for case in EVERY if case.operation == module.OPERATION}, name


# ---- errors --------------------------------------------------------------------------


def test_rounding_units():
    """One unit is eps times the size of a number, or the typical size where it is smaller; NaN is infinitely wrong."""
    eps = np.float32(2.0**-23)
    exact = np.array([1.0, 1.0, -2.0, 1e-9])
    found = np.array([1 + eps, 1.0, -2 - 4 * eps, 0.0], np.float32)
    units, typical = kernels.units(found, exact), math.sqrt(6 / 4)
    assert units == pytest.approx([1 / typical, 0, 2, 1e-9 / typical / eps])
    assert kernels.units(np.array([np.nan, np.inf, 1], np.float32), np.ones(3)).tolist() == [math.inf, math.inf, 0]
    assert kernels.units(np.zeros(2), np.zeros(2)).tolist() == [0, 0]
    assert np.isinf(kernels.units(np.ones(2), np.array([1, np.nan]))).all()


def wrong_kernels():
    """A sign; some rounding units too many; one element that is off; a NaN; a result that is not written into `out`."""
    right = kernel_of(TABLE["scale_rows"], CPU)

    def changed(change):
        return lambda xp, g, a, out=None: change(right(xp, g, a, out=out))

    def lose(y):
        y.reshape(-1)[-1] = np.nan
        return y

    def skip(y):
        y[..., -1, -1] += np.float32(1e-3)
        return y

    return [changed(lambda y: np.negative(y, out=y)), changed(lambda y: np.multiply(y, y.dtype.type(1 + 1e-6), out=y)),
            changed(skip), changed(lose), changed(lambda y: np.full_like(y, 7))]


@pytest.mark.parametrize("wrong", range(5))
def test_a_wrong_kernel_is_refused_and_nothing_is_timed(wrong, monkeypatch):
    make_wrong(monkeypatch, "scale_rows", kernels={"cpu": wrong_kernels()[wrong]})
    monkeypatch.setattr(timing, "measure", lambda *_, **__: pytest.fail("was timed"))
    with pytest.raises(SystemExit, match=r"scale_rows, kernel, float\d\d: .*(allowed 1;|other bits).*nothing was"):
        kernels.part(case_of("scale_rows"), True, PEAKS.as_dict())


def test_a_wrong_rung_is_refused(monkeypatch):
    module = alternatives.of("bernoulli_log_prob", "")["numpy_only"]
    right = module.value
    monkeypatch.setattr(module, "value", lambda *a, **k: tuple(np.multiply(y, 2, out=y) for y in right(*a, **k)))
    with pytest.raises(SystemExit, match=r"bernoulli_log_prob, numpy_only, float32: wrong"):
        kernels.check(case_of("bernoulli_log_prob"))


def test_a_kernel_that_does_not_run_is_noticed(monkeypatch):
    """Where the twin steps in, its error would be fine and its time would be called the kernel's."""
    make_wrong(monkeypatch, "gaussian_sample_kl", accepts=lambda *shapes: False)
    with pytest.raises(SystemExit, match=r"gaussian_sample_kl: its kernel did not run"):
        kernels.check(case_of("gaussian_sample_kl"))


def test_a_product_by_numpy_is_not_called_a_kernel(monkeypatch):
    """Where the row's own value steps in, which has the operation's name, too."""
    make_wrong(monkeypatch, "matmul", kernel=None)
    with pytest.raises(SystemExit, match=r"matmul.*: its kernel did not run"):
        kernels.check(case_of("matmul"))


def test_a_processor_without_a_kernel_is_no_fault(monkeypatch):
    """Products have kernels on some processors only."""
    make_wrong(monkeypatch, "matmul", accepts=lambda *arrays: False)
    case = case_of("matmul")
    assert kernels.forms(case) == [kernels.TWIN]
    assert [error.alternative for error in kernels.check(case)] == [kernels.TWIN] * 2
    row, = kernels.measure(case, kernels.TYPES[0], PEAKS, 2, 0)
    assert row["flops"] == 2 * 100 * 784 * 500


def test_forms_leave_the_table_as_it_was():
    row = TABLE["adam"]
    with pytest.raises(KeyError), kernels.form(case_of("adam"), "nonsense"):
        pass
    with kernels.form(case_of("adam"), "zero_check"):
        assert TABLE["adam"] is not row
    assert TABLE["adam"] is row


# ---- the plot ------------------------------------------------------------------------


def points():
    """As many as there are kernels, and many in one place."""
    return [{"operation": case.operation, "case": case.label, "flops": 1000 + 200 * (i % 5), "bytes": 4000,
             "gigaflops": 1 + i // 2} for i, case in enumerate(EVERY)]


def overlapping(figure):
    """Pairs of labels that cover each other, and labels beyond the edge of the picture."""
    axes = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    boxes = {text.get_text(): Text.get_window_extent(text, renderer) for text in axes.texts}  # without the lines
    assert len(boxes) == len(axes.texts) > 0
    width, height = figure.canvas.get_width_height()
    beyond = [name for name, box in boxes.items() if not (0 <= box.x0 and box.x1 <= width and 0 <= box.y0
                                                          and box.y1 <= height)]
    return beyond + [(a, b) for a, b in itertools.combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]


def test_no_label_covers_another():
    figure = roofline.draw(points(), PEAKS)
    assert overlapping(figure) == []
    texts = figure.axes[0].texts
    assert len(texts) == len(EVERY)
    texts[1].set_position(texts[0].get_position())
    assert overlapping(figure), "the check above can fail"


def test_every_point_is_in_the_picture():
    """Also one far above the roofs: the machine may have been busier when they were measured."""
    rows = points()
    rows[0]["gigaflops"], rows[1]["gigaflops"], rows[2]["flops"] = 1e4, 1e-4, 1e7
    axes = roofline.draw(rows, PEAKS).axes[0]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert len(marks) == len(rows)
    assert all(left < x < right and bottom < y < top for x, y in marks)


def test_the_plot_is_reproducible(tmp_path):
    """The same rows give the same bytes: no date, no random identifiers."""
    first, second = (roofline.plot(points(), PEAKS, tmp_path / name / "k.svg").read_bytes() for name in "ab")
    assert first == second
