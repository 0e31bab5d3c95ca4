"""The commands on a run of a table: training by the label column, own units, files of rows, and comparisons."""

import json
from pathlib import Path

import numpy as np
import pytest

import tinyvae as tv
from tinyvae.cli import commands

SMALL = ["--hidden", "8", "--latent", "2", "--epochs", "2", "--no-pictures"]


@pytest.fixture
def made(run, tmp_path):
    """Two runs of one table, whose first column has the unit 1e-3 and whose last says the class."""
    rng = np.random.default_rng(0)
    rows = [f"{1e-3 * a!r},{b!r},{'yes' if a > 0 else 'no'}" for a, b in rng.normal(size=(200, 2)).tolist()]
    Path("a.csv").write_text("\n".join(["the width,b,kind", *rows]))
    for name, more in (("one", []), ("two", ["--likelihood", "student-t", "--seed", "3"])):
        code, out, err = run("train", "a.csv", "--label-column", "kind", "--out", name, *SMALL, *more)
        assert (code, err) == (0, "")
        assert "180 training, 20 test data of 2 columns" in out
        assert "higher is better, as densities of standardised columns" in out
    return run


def test_a_table_from_training_to_files(made):
    config = json.loads(Path("one/config.json").read_text())
    assert config["data"] == f"{Path('a.csv').absolute()}@kind-real"
    assert config["model"]["likelihood"] == "normal"
    code, out, err = made("evaluate", "one", "--json")
    assert (code, err) == (0, "")
    found, data = json.loads(out), tv.data.load(config["data"])
    assert found["elbo_own_units"] == pytest.approx(found["elbo"] - np.log(data.spread).sum())
    assert "ELBO, own units" in made("evaluate", "one")[1]
    code, out, _ = made("sample", "one", "--out", "s.csv", "--count", 30)
    assert (code, out.strip()) == (0, "s.csv")
    samples = tv.data.load("s.csv")
    assert samples.columns == ("the width", "b")
    assert 1e-4 < samples.spread[0] < 1e-2
    assert made("latents", "one", "--out", "z.csv")[0] == 0
    assert Path("z.csv").read_text().splitlines()[0] == "z0,z1,sd0,sd1,label"
    assert made("reconstruct", "one", "--out", "deep/r.npz")[0] == 0
    with np.load("deep/r.npz") as arrays:
        np.testing.assert_allclose(arrays["data"], data.own_units(data.test), rtol=1e-6)
        assert arrays["rows"].shape == (20, 2)
    code, out, _ = made("sample", "one")
    assert (code, [Path(line).name for line in out.split()]) == (0, ["pairs.png", "quantiles.png"])
    for arguments, said in ((("manifold", "one"), "a table, which has no images; expected one of sample, reconstruct"),
                            (("traverse", "one", "--out", "t.csv"), "draws pictures alone; expected a folder"),
                            (("sample", "one", "--out", "t.csv", "--count", 0), "found count 0"),
                            (("evaluate", "one", "--data", "z.csv@label"), "4 columns, z0, z1, sd0, sd1, real; exp")):
        code, _, err = made(*arguments)
        assert code == 2
        assert said in err


def test_runs_are_compared(made):
    code, out, err = made("compare", "one", "two")
    assert (code, err) == (0, "")
    assert "20 data; ELBO in nats per datum" in out
    differ = {line.split()[0] for line in out.split("what differs")[1].splitlines()[1:]}
    assert differ == {"likelihood", "seed"}
    code, out, _ = made("compare", "one", "two", "-k", 3, "--json", "--part", "train")
    told = json.loads(out)
    assert [run["run"] for run in told["runs"]] == ["one", "two"]
    assert (told["data_count"], told["importance_samples"]) == (180, 3)
    assert told["settings"] == {"likelihood": ["normal", "student-t"], "seed": [0, 3]}
    code, _, err = made("compare", "one")
    assert (code, "found 1 run to compare" in err) == (2, True)


def test_a_table_with_text_is_answered_by_the_option(made):
    code, _, err = made("train", "a.csv", "--out", "three", *SMALL)
    assert code == 2
    assert "text in the column kind, such as 'yes'; expected numbers: give it as --label-column kind" in err
    assert not Path("three").exists()


def test_a_table_is_classified(made):
    assert made("train", "a.csv@kind", "--model", "m2", "--out", "m2", *SMALL)[0] == 0
    Path("new.csv").write_text("b,the width,note\n0.5,1e-3,x\n-1,-2e-3,y\n")
    code, out, err = made("classify", "m2", "new.csv", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["classes"] == ["no", "yes"]
    data, model = tv.data.load("a.csv@kind"), tv.load("m2")
    x = (np.array([[1e-3, 0.5], [-2e-3, -1]]) - data.center) / data.spread
    expected = model.classify(tv.Batch(model.tensor(x, 2, "x"))).numpy()
    assert np.abs(np.array(told["probabilities"]) - expected).max() < 1e-6
    code, _, err = made("classify", "m2", "z.csv")
    assert (code, "there is no file z.csv" in err) == (2, True)


def test_explore_writes_a_page_and_opens_it_on_a_screen(run, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(commands.webbrowser, "open", opened.append)
    tv.fit(tv.VAE(64, 8, 2), "digits", out=tmp_path / "one", epochs=1)
    code, out, err = run("explore", "one")
    assert (code, out, err) == (0, f"{Path('one/explorer.html')}\n", "")
    assert not opened  # nobody sits before this test
    monkeypatch.setattr(commands, "has_window", lambda: True)
    assert run("explore", "one", "--out", "new/page.html")[1] == "new/page.html\n"
    assert opened == [(tmp_path / "new" / "page.html").as_uri()]
    code, out, err = run("explore", "one", "--out", "new")
    assert (code, out) == (2, "")
    assert err == "tinyvae: new is a folder; expected the name of a file, as new/explorer.html\n"
    (tmp_path / "plain").write_text("")
    code, _, err = run("explore", "one", "--out", "plain/page.html")
    assert code == 2
    assert err.count("\n") == 1
