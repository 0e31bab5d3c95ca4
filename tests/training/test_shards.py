"""A batch in shards: the same draws and the same gradient as the whole batch, added in a tree that only their number
decides; and what mixes rows is refused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close, assert_same_bits

import tinyvae as tv
from tinyvae.data import DataSet
from tinyvae.engine.noise import Window
from tinyvae.training.batches import Shard
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings
from tinyvae.training.shards import ranks as ranks_file
from tinyvae.training.shards.ranks import Ranks, launched, launched_as, ranks
from tinyvae.training.shards.step import ShardedStep, shards_of, windows
from tinyvae.training.shards.tree import Tree, total

WIDTH = 6


def data_set(count=26):
    """26 images of 2 x 3 pixels: batches of 10 leave a last one of 6."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 17, (n, WIDTH)).astype(np.uint8) for n in (count, 10))
    return DataSet("made-dynamic", train, test, (2, 3), 16.0, "dynamic", "bernoulli", np.arange(count) % 3,
                   np.arange(10) % 3)  # fmt: skip


def start(shards=1, kind="vae", options=None, dtype="float64", **settings):
    data = data_set()
    options = {"hidden": 5} | ({} if kind == "classifier" else {"latent": 2}) | (options or {})
    model = tv.models.model_for(kind, data, dtype=dtype, **options)
    return Training(model, data, Settings(**{"batch": 10, "seed": 1, "shards": shards} | settings))


# ---- the tree ------------------------------------------------------------------------


def by_levels(vectors):
    """The sum as the documents say it: neighbours are added, level by level, and an odd last one passes up."""
    while len(vectors) > 1:
        pairs = [a + b for a, b in zip(vectors[::2], vectors[1::2], strict=False)]
        vectors = pairs + vectors[len(vectors) - len(vectors) % 2 :]
    return vectors[0]


def unequal(count, seed):
    """Vectors whose sum depends on the order."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=7) * 10.0 ** rng.integers(-4, 5, 7)).astype(np.float32) for _ in range(count)]


@given(st.integers(1, 40), st.integers(0, 99))
def test_the_tree_is_that_of_the_levels(count, seed):
    out, tree = np.empty(7, np.float32), Tree(np.empty(7, np.float32))
    for _ in range(2):  # it serves again
        for vector in unequal(count, seed):
            tree.add(vector)
        tree.take(out)
        assert_same_bits(out, by_levels(unequal(count, seed)))


@pytest.mark.parametrize(("size", "each"), [(2, 1), (2, 4), (3, 2), (4, 8), (5, 4)])
def test_branches_of_the_tree_give_the_same_bits(size, each):
    """Where each of `size` processes adds its `each` neighbours first."""
    for seed in range(20):
        branches = [np.empty(7, np.float32) for _ in range(size)]
        for i, branch in enumerate(branches):
            total(unequal(size * each, seed)[i * each : (i + 1) * each], branch)
        out = np.empty(7, np.float32)
        total(branches, out)
        assert_same_bits(out, by_levels(unequal(size * each, seed)))


def test_another_order_is_found():
    differing = sum(not np.array_equal(sum(unequal(8, seed)), by_levels(unequal(8, seed))) for seed in range(20))
    assert differing > 10


# ---- the rows ------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 20))
def test_shards_share_out_the_rows_in_order(size, shards):
    parts = windows(size, shards)
    assert [row for first, count, _ in parts for row in range(first, first + count)] == list(range(size))
    assert len(parts) == shards
    assert max(part.size for part in parts) - min(part.size for part in parts) <= 1


MODELS = [("vae", {}, {}), ("vae", {"posterior": "gamma"}, {}), ("vae", {"posterior": "log-normal"}, {}),
          ("vae", {"posterior": "iaf"}, {}), ("vae", {"prior": "vamp", "pseudo_inputs": 3}, {"bound": "elbo-a"}),
          ("vae", {}, {"bound": "iwae", "importance_samples": 3, "gradient": "dreg"}),
          ("vae", {"posterior": "beta"}, {"estimator": "grep", "samples": 2, "baseline": "leave-one-out"}),
          ("vae", {"learner": "full-vb"}, {}), ("vae", {"learner": "wake-sleep"}, {}),
          ("hierarchical", {"latent": (3, 2)}, {}), ("cvae", {"given": "label"}, {}),
          ("m2", {"alpha": 2.0}, {"labelled_batch": 11}), ("m2", {"posterior": "gamma"}, {"samples": 2}),
          ("m1m2", {"features": 3, "hidden2": 4, "first_epochs": 1}, {"labelled_batch": 11}),
          ("shot", {"interpolation": 0.0, "capacity_weight": 3.0}, {"labelled_batch": 12}), ("m1", {}, {}),
          ("classifier", {}, {"labelled_batch": 11})]  # fmt: skip


def found(training):
    """The loss and the gradient of the first two steps of each phase, and the totals after them."""
    training.epoch = training.model.config.get("first_epochs", 0)  # the last phase, where phases follow each other
    training.begin_epoch()
    seen = []
    for _ in range(training.batches.steps):  # the last batch is smaller
        step = training.step_now()
        training.step()
        seen += [step.gradient.copy(), step.totals.copy()]
    return seen


@pytest.mark.parametrize(("kind", "options", "settings"), MODELS)
def test_the_gradient_is_that_of_the_whole_batch(kind, options, settings):
    """Up to rounding, with the same pixels and the same noise; some of 16 shards are empty."""
    whole = found(start(1, kind, options, **settings))
    for shards in (2, 3, 16):
        for one, other in zip(found(start(shards, kind, options, **settings)), whole, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_wrong_rows_are_found(monkeypatch):
    """Noise of other rows, or a loss that is not the shard's part of the batch's, gives another gradient."""
    earlier = lambda rows: rows._replace(first=max(0, rows.first - 1))
    for kind, field, wrong in (("vae", "rows", earlier), ("vae", "rows", lambda rows: rows._replace(of=rows.of + 1)),
                               ("m2", "labelled", earlier)):
        whole = found(start(1, kind, labelled_batch=11 * (kind == "m2")))
        right = lambda size, kind=kind: shards_of(size, 11 * (kind == "m2"), 2)
        for change in (lambda rows: rows, wrong):
            monkeypatch.setattr(ShardedStep, "own", lambda self, size, change=change, field=field, right=right: [
                shard._replace(**{field: change(getattr(shard, field))}) for shard in right(size)])
            sharded = found(start(2, kind, labelled_batch=11 * (kind == "m2")))
            assert np.allclose(sharded[0], whole[0], rtol=1e-6) == (change is not wrong)


def test_labelled_rows_are_told_from_others_of_the_same_number(monkeypatch):
    """Where a shard has as many of both, and they are parts of batches of different sizes: 3 of 10, and 3 of 11."""
    whole, sharded = (found(start(shards, "m2", labelled_batch=11)) for shards in (1, 3))
    np.testing.assert_allclose(sharded[0], whole[0], rtol=1e-9)
    assert shards_of(10, 11, 3)[0] == Shard(Window(0, 3, 10), Window(0, 3, 11))
    monkeypatch.setattr(ShardedStep, "count", lambda self, name, shard: shard.rows.size)
    assert not np.allclose(found(start(3, "m2", labelled_batch=11))[0], whole[0], rtol=1e-6)


def test_the_sum_over_shards_is_the_trees(monkeypatch):
    """Bit for bit, of the gradients of the shards, each made by itself."""
    training = start(5, dtype="float32")
    training.begin_epoch()
    step, parts = training.step_now(), []
    for shard in shards_of(10, 0, 5):
        step.loss(10, shard)
        parts.append(step.gradient.copy())
    training.step()
    assert_same_bits(step.gradient, by_levels(parts))


def test_a_shard_draws_its_rows_pixels():
    batches = start().batches
    batches.begin(0)
    whole = batches.next(10)[0].x.data
    assert_same_bits(batches.next(10, Shard(Window(3, 4, 10), None))[0].x.data, whole[3:7])
    batches = start(kind="m2", labelled_batch=11).batches
    batches.begin(0)
    whole = batches.next(10)[0].labelled
    part = batches.next(10, Shard(Window(3, 4, 10), Window(5, 2, 11)))[0].labelled
    assert_same_bits(part.x.data, whole.x.data[5:7])
    assert_same_bits(part.y.data, whole.y.data[5:7])


def test_replay_is_eager_and_a_run_goes_on(tmp_path):
    """Also through a batch that is not finite and skipped."""
    one, two = start(4, dtype="float32", on_nonfinite="skip"), start(4, dtype="float32", on_nonfinite="skip")
    two.step = lambda: two.step_now().eager(two.batches.size_now())
    for training in (one, two):
        training.begin_epoch()
    for number in range(9):
        for training in (one, two):
            training.model.parameters["encoder.0.bias"].data[0] = np.nan if number == 5 else 0.1
            training.counters[1:] = 0
            training.step()
        for (name, a), b in zip(one.state().items(), two.state().values(), strict=True):
            assert_same_bits(a, b, f"{number}: {name}")
    assert one.step_now().skipped() == 1
    model = lambda: tv.models.model_for("vae", data_set(), hidden=5, latent=2)
    whole = tv.fit(model(), data_set(), shards=4, batch=10, epochs=3)
    tv.fit(model(), data_set(), shards=4, batch=10, epochs=2, out=tmp_path / "run")
    assert tv.resume(tmp_path / "run", data_set(), epochs=3) == whole
    assert_close(whole[-1]["train_elbo"], tv.fit(model(), data_set(), batch=10, epochs=3)[-1]["train_elbo"], 2**28)


@pytest.mark.parametrize(("kind", "options", "settings", "why"), [
    ("shot", {}, {}, "a shot with interpolation=10, which mixes each datum with the next one"),
    ("vae", {"learner": "mcem"}, {}, "the learner mcem"),
    ("vae", {}, {"free_bits": 0.5}, "free_bits=0.5"), ("vae", {}, {
        "estimator": "grep", "baseline": "fitted", "samples": 2}, "baseline=fitted")])  # fmt: skip
def test_what_mixes_rows_is_refused(kind, options, settings, why):
    with pytest.raises(ValueError, match=rf"^found shards=2 with {why}.*: leave shards out$"):
        start(2, kind, options, **settings)


def test_each_shard_needs_a_labelled_row():
    start(4, "m2", labelled_batch=4)
    said = "found shards={} with {} labelled data in a step, of which each shard needs one: {}take at most {} shards"
    with pytest.raises(ValueError, match=f"^{said.format(4, 3, 'take labelled_batch=4, or ', 3)}$"):
        start(4, "m2", labelled_batch=3)
    few = replace(data_set(), train_labels=np.where(np.arange(26) < 5, np.arange(26) % 3, -1))
    model = tv.models.model_for("m2", few, hidden=5, latent=2)
    with pytest.raises(ValueError, match=f"^{said.format(8, 5, '', 5)}$"):
        Training(model, few, Settings(batch=10, shards=8))


# ---- processes -----------------------------------------------------------------------


def test_who_computes_what():
    assert [list(Ranks(rank, 2).share(8)) for rank in (0, 1)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert list(Ranks(2, 3).share(6)) == [4, 5]
    assert list(Ranks().share(7)) == list(range(7))
    for size, shards in ((2, 3), (2, 6), (4, 2), (3, 9)):
        with pytest.raises(ValueError, match=rf"found shards={shards} and {size} processes .* take --shards {size}, "):
            Ranks(0, size).share(shards)


def test_an_evaluation_is_put_in_the_order_of_the_data():
    """Of five batches and three processes; of one batch and three, of which two found nothing."""
    for count in (5, 1):
        teams = [Ranks(rank, 3) for rank in range(3)]
        found = [{"x": [np.array([n]) for n in range(count) if team.computes(n)]} for team in teams]
        found = [columns if columns["x"] else {} for columns in found]
        for team, columns in zip(teams, found, strict=True):
            team.comm = SimpleNamespace(allgather=lambda mine, all_of_them=found: all_of_them)
            assert np.concatenate(team.in_order(columns)["x"]).tolist() == list(range(count))


def test_a_launcher_is_noticed(monkeypatch):
    for name in ranks_file.LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    assert launched() == 1
    assert ranks() is ranks_file.ALONE
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "5")  # of five programs that know nothing of each other
    assert launched() == 1
    monkeypatch.setenv("PMIX_RANK", "2")
    assert (launched(), launched_as()) == (5, 2)
    monkeypatch.delenv("PMIX_RANK")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    assert launched() == 3
    with pytest.raises(ValueError, match=r"mpiexec started 3 processes, and shards=1 .* take --shards 3, or 6 or 12"):
        start(1)
