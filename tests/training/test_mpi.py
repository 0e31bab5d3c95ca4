"""A training in several processes of MPI: the bits of one process, kills and faults that leave no process waiting.

Marked `mpi`, so that only `pytest -m mpi` runs it; it needs the extra `mpi-local`, or another MPI with mpi4py.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="optional: no /proc")]
TRAIN = ("-m", "tinyvae", "train", "digits", "--shards", "4", "--hidden", "30", "--latent", "3", "--no-pictures")
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",  # as in a container
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # more processes than processors
MOST = 5.0  # seconds until the fault of one process has ended all


@pytest.fixture(scope="module")
def mpiexec():
    """The launcher beside this Python, or the first one on the path."""
    pytest.importorskip("mpi4py", reason='no mpi4py: pip install ".[mpi-local]"')
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip('no mpiexec: pip install ".[mpi-local]"')
    return found


@pytest.fixture
def start(mpiexec, tmp_path):
    """A function that starts so many processes with these arguments of Python, in a folder of their own."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": path} | OPEN_MPI
    started = []

    def begin(count, *arguments, **variables):
        launch = [mpiexec, "-n", str(count)] if count else []
        begun = subprocess.Popen([*launch, sys.executable, *map(str, arguments)], cwd=tmp_path, text=True,
                                 env=env | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        started.append(begun)
        return begun

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    def finished(*arguments, **variables):
        process = start(*arguments, **variables)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return finished


@pytest.fixture
def script(tmp_path):
    """A function that writes a program, and returns its path."""

    def write(text):
        path = tmp_path / "program.py"
        path.write_text(text)
        return path

    return write


def children(process):
    """The processes with Python that the launcher started, by their ranks (they are started in that order)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    below, found = [process.pid], []
    while below:
        below = [pid for pid, parent in parents.items() if parent in below]
        found += [pid for pid in below if "python" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]]
    return sorted(found)


def wait_for(path, lines, process):
    """Until a file has so many lines."""
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, f"{path} never had {lines} lines"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_one_two_and_four_processes_train_the_same_bits(run, tmp_path):
    """Without a launcher, with mpiexec and one process, and where the launcher shares the shards out."""
    records = []
    for count in (None, 1, 2, 4):
        code, out, err = run(count, *TRAIN, "--epochs", 2, "--out", f"r{count}")
        assert (code, err) == (0, "")
        assert out.count("epoch   1/2") == 1, out  # rank 0 alone speaks
        records.append((tmp_path / f"r{count}" / "metrics.jsonl").read_text())
    assert records == records[:1] * 4
    assert run(None, *TRAIN, "--epochs", 2, "--out", "other", "--shards", 2)[0] == 0
    assert (tmp_path / "other" / "metrics.jsonl").read_text() != records[0]  # the bits depend on the shards


def test_a_step_with_a_second_batch_of_labelled_data_is_shared_out(run, tmp_path):
    for count in (None, 2):
        few = ("--model", "m2", "--labels", "100", "--batch", "64", "--labelled-batch", "10")
        code, _, err = run(count, *TRAIN, *few, "--epochs", 2, "--out", f"r{count}")
        assert (code, err) == (0, "")
    assert (tmp_path / "r2/metrics.jsonl").read_text() == (tmp_path / "rNone/metrics.jsonl").read_text()


@pytest.mark.parametrize(("killed", "with_", "then"), [(0, 2, 4), (1, 2, 1)])
def test_a_run_of_which_a_process_was_killed_goes_on_with_another_number(start, run, tmp_path, killed, with_, then):
    code, _, err = run(None, *TRAIN, "--epochs", 8, "--out", "whole")
    assert code == 0, err
    process, metrics = start(with_, *TRAIN, "--epochs", 8, "--out", "cut"), tmp_path / "cut" / "metrics.jsonl"
    wait_for(metrics, 2 + killed, process)
    ranks = children(process)
    assert len(ranks) == with_, ranks
    os.kill(ranks[killed], signal.SIGKILL)
    begun = time.monotonic()
    process.communicate(timeout=60)
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        assert time.monotonic() - begun < MOST, "a process waits for the one that was killed"
        time.sleep(0.01)
    assert process.returncode != 0
    assert len(metrics.read_text().splitlines()) < 8
    code, _, err = run(then, "-m", "tinyvae", "train", "--resume", "cut", "--no-pictures")
    assert code == 0, err
    assert metrics.read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_an_interrupt_leaves_one_checkpoint(start, run, tmp_path):
    """Also one that a single process gets: all stop after the same step."""
    assert run(None, *TRAIN, "--epochs", 9, "--out", "whole")[0] == 0
    process, metrics = start(2, *TRAIN, "--epochs", 9, "--out", "cut"), tmp_path / "cut" / "metrics.jsonl"
    wait_for(metrics, 1, process)
    os.kill(children(process)[1], signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "tinyvae: interrupted; the state is saved, go on with: tinyvae train --resume cut" in err
    assert err.count("tinyvae: interrupted") == 1
    assert run(2, "-m", "tinyvae", "train", "--resume", "cut", "--no-pictures")[0] == 0
    assert metrics.read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("arguments", "sentence"), [
    ((*TRAIN, "--shards", "3"), "tinyvae: found shards=3 and 2 processes of mpiexec; "),
    ((*TRAIN, "--shards", "1"), "tinyvae: mpiexec started 2 processes, and shards=1 gives each of them the same work"),
    ((*TRAIN, "--lr", "0"), "tinyvae: found lr=0.0; "),
    ((*TRAIN, "--exchange", "nccl"), "tinyvae: found exchange=nccl on the cpu; NCCL expects GPUs"),
    (("-m", "tinyvae", "doctor"), "tinyvae: mpiexec started 2 processes, and only tinyvae train shares its work out")])
def test_a_mistake_is_one_sentence(run, tmp_path, arguments, sentence):
    code, out, err = run(2, *arguments)
    said = [line for line in (out + err).splitlines() if line.startswith("tinyvae: ")]
    assert code == 2
    assert len(said) == 1, said
    assert said[0].startswith(sentence)
    assert not list(tmp_path.glob("runs/*"))


def test_a_launcher_of_another_mpi_is_named(run, tmp_path):
    """Of the processes that it started each counts itself alone, and the first one speaks for all."""
    for rank, lines in ((0, 1), (1, 0)):
        code, _, err = run(None, *TRAIN, **{"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": str(rank)})
        said = [line for line in err.splitlines() if line.startswith("tinyvae: the launcher started 4 processes, and ")]
        assert (code, len(said)) == (2, lines), err
    assert not list(tmp_path.glob("runs/*"))


def test_the_benchmark_of_processes_runs_in_its_quick_form(run, tmp_path):
    """All parts are there, the fingerprints are equal, and no number is NaN."""
    code, out, err = run(None, "-m", "benchmarks", "scale", "--quick", "--out", tmp_path)
    assert code == 0, out + err
    content = json.loads((tmp_path / "scale.json").read_text())
    same, ours, theirs, *others = content["rows"]
    assert (same["reached"], same["value"]) == (True, 1)
    assert ours["value"] / theirs["value"] == pytest.approx(ours["times_allreduce"])
    assert all(0 < row["value"] < 1e9 for row in others)
    assert all(points[0] == [1, 1.0] for points in content["curves"].values())
    assert (tmp_path / "scale.svg").stat().st_size > 2000


def test_help_ends(run):
    assert run(2, "-m", "tinyvae", "train", "--help")[0] == 0


API = """
import sys
import tinyvae as tv
from tinyvae.training.shards.ranks import ranks

data = tv.data.load("digits")
model = tv.VAE(data.dimensions, hidden=30, latent=3)
{before}
records = tv.fit(model, data, shards={shards}, epochs=2, batch=101, quiet=True, out={out!r}{more})
records += tv.resume({out!r}, data, epochs=3, quiet=True)
print(f"\\n{{ranks().rank}} {{[record['fingerprint'] for record in records]}}", flush=True)
"""


def test_in_python(run, script, tmp_path):
    """Also with a number of processes that is no power of two, and a gradient that it does not divide."""
    program = script(API.format(before="", shards=6, out="r", more=""))
    code, out, err = run(None, program)
    assert code == 0, err
    alone = out.split(" ", 1)[1].strip()
    shutil.rmtree(tmp_path / "r")
    code, out, err = run(3, program)
    assert code == 0, err
    found = sorted(line for line in out.splitlines() if line)
    assert found == [f"{rank} {alone}" for rank in range(3)]


@pytest.mark.parametrize(("before", "more", "said"), [
    ("", ", on_epoch=lambda record, _: 1 / (1 - ranks().rank)", "rank 1 of 2 ends all processes"),
    ("model.parameters.flat[...] += 1e-3 * ranks().rank", "", "the parameters of rank 1 are not those of rank 0")])
def test_a_fault_of_one_process_ends_all(start, script, before, more, said):
    """An error that nobody caught, and a machine that computes something else."""
    process = start(2, script(API.format(before=before, shards=4, out="r", more=more)))
    _, err = process.communicate(timeout=MOST + 15)  # the start and two epochs take the rest
    assert process.returncode != 0
    assert said in err


OWN = """
import tinyvae as tv
from tinyvae.training.shards.ranks import ranks


class Own(tv.VAE, kind="own"):
    def learn(self, data):
        if ranks().rank == 0:
            raise RuntimeError("a fault of its own")
"""


def test_a_fault_of_the_command_line_ends_all(start, script):
    """Though its library puts a hook of its own in the place of the one that ends all."""
    process = start(2, *TRAIN, "--epochs", 1, "--use", script(OWN), "--model", "own")
    _, err = process.communicate(timeout=MOST + 15)
    assert process.returncode != 0
    assert "rank 0 of 2 ends all processes:\nTraceback" in err
    assert "RuntimeError: a fault of its own" in err
