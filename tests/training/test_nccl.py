"""The exchange by NCCL: the bits of the exchange by MPI and of one process, and no gradient on the host.

The ranks are threads over stand-ins for CuPy and NCCL (fake_nccl.py); no card takes part.
"""

import sys
import types

import numpy as np
import pytest
from cuda_on_cpu import card, fake_cupy, fake_nccl, host
from cuda_on_cpu.fake_nccl import DeadlockError, NcclError
from support import assert_same_bits

import tinyvae as tv
from tests.training.test_shards import by_levels, data_set, unequal
from tinyvae import runs
from tinyvae.engine.devices import CPU, DeviceError, namespace, to_host
from tinyvae.training import epochs
from tinyvae.training.epochs import Training
from tinyvae.training.settings import Settings
from tinyvae.training.shards import nccl as nccl_file
from tinyvae.training.shards import ranks as ranks_file
from tinyvae.training.shards import step as step_file
from tinyvae.training.shards.nccl import Nccl, check_exchange, mover
from tinyvae.training.shards.tree import total

pytestmark = pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: the stand-ins")


@pytest.fixture
def cupy(monkeypatch):
    return fake_cupy.install(monkeypatch, host.Driver())


@pytest.fixture
def nccl(monkeypatch, cupy):
    """The stand-in for NCCL; what is registered for the end of the process runs at the end of the test."""
    at_exit = []
    monkeypatch.setattr(nccl_file, "atexit", types.SimpleNamespace(register=at_exit.append))
    library = fake_nccl.install(monkeypatch, cupy)
    yield library
    for call in at_exit:
        call()
    assert not library.NcclCommunicator.alive


# ---- vectors ---------------------------------------------------------------------------------------------------------


def summed(size, shards, exchange, seed=0, dtype=np.float32, calls=None):
    """The sum of as many vectors as shards, of 7 numbers, on each rank: each adds its own first."""
    vectors, each = [vector.astype(dtype) for vector in unequal(shards, seed)], shards // size

    def work(team):
        xp, out = namespace("cuda"), np.empty(7, dtype)
        total([vector.copy() for vector in vectors[team.rank * each :][:each]], out)
        vector = xp.asarray(out)
        for _ in range(2):  # again, over the same buffers
            vector[...] = xp.asarray(out)
            team.add(vector, mover(exchange, team))
        return to_host(vector)

    return fake_nccl.run(size, work, calls)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shards", [4, 8])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_bits_are_those_of_mpi_and_of_the_tree(nccl, size, shards, dtype):
    for seed in range(10):
        found = summed(size, shards, "nccl", seed, dtype)
        for one, other in zip(found, summed(size, shards, "mpi", seed, dtype), strict=True):
            assert_same_bits(one, other)
            assert_same_bits(one, by_levels([vector.astype(dtype) for vector in unequal(shards, seed)]))


def test_nothing_goes_through_the_host(nccl):
    """But the name by which NCCL connects the ranks, and where their GPUs are."""
    calls = []
    summed(4, 4, "nccl", calls=calls)
    assert calls == ["MPI allgather", "MPI bcast", "NCCL init", *(2 * ["NCCL group", "NCCL allGather"])]
    calls.clear()
    summed(4, 4, "mpi", calls=calls)
    assert set(calls) == {"MPI Alltoall", "MPI Allgather"}


def test_a_vector_that_can_be_cut_is_sent_from_where_it_lies(nccl):
    def work(team):
        vectors = [namespace("cuda").asarray(np.arange(count) + 10.0 * team.rank) for count in (7, 8)]
        for vector in vectors:
            team.add(vector, mover("nccl", team))
        return [vector.hidden for vector in vectors]

    for odd, even in fake_nccl.run(2, work):
        addresses = [array.__array_interface__["data"][0] for array in (odd, even)]
        assert [address in fake_cupy.Pointer.given for address in addresses] == [False, True]
        assert (odd.tolist(), even.tolist()) == ((2 * np.arange(7.0) + 10).tolist(), (2 * np.arange(8.0) + 10).tolist())


def test_one_rank_by_itself(nccl):
    """What a single card can show: each method moves the bytes to where they belong, on the stream that is current."""
    def work(team):
        xp, alone = namespace("cuda"), Nccl(team)
        sent, received, whole = (xp.asarray(np.full((1, 5), float(n))) for n in range(3))
        with fake_cupy.Stream(non_blocking=True):
            alone.Alltoall(sent, received)
            alone.Allgather(received[0] + 4, whole)
        return to_host(received), to_host(whole)

    (received, whole), = fake_nccl.run(1, work)
    assert (received.tolist(), whole.tolist()) == ([[0.0] * 5], [[4.0] * 5])


class NextRows:
    """An array whose row r is the next one."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype

    def __getitem__(self, row):
        return self.array[(row + 1) % len(self.array)]


class Swapped(Nccl):
    """Sends each rank the piece of the next one."""

    def Alltoall(self, sent, received):
        super().Alltoall(NextRows(sent), received)


def in_sequence(vectors, out):
    out[...] = vectors[0]
    for vector in vectors[1:]:
        out += vector


def test_wrong_rules_are_found(nccl, monkeypatch):
    """Pieces that are swapped, another order of the additions, no group, another stream, and a rank that stays away."""
    def differs():
        return any(summed(4, 4, "nccl", seed)[0].tobytes() != by_levels(unequal(4, seed)).tobytes()
                   for seed in range(10))  # fmt: skip

    assert not differs()
    for file, name, wrong in ((nccl_file, "Nccl", Swapped), (ranks_file, "total", in_sequence)):
        with monkeypatch.context() as patch:
            patch.setattr(file, name, wrong)
            assert differs()
    other = types.SimpleNamespace(ptr=5)
    for place, name, wrong, fault, said in (
        (nccl, "groupStart", lambda: None, DeadlockError, "outside of a group"),
        (sys.modules["cupy"].cuda, "get_current_stream", lambda: other, DeviceError, "another stream"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(place, name, wrong)
            with pytest.raises(fault, match=said):
                summed(2, 4, "nccl")
    with pytest.raises(DeadlockError):
        fake_nccl.run(2, lambda team: team.rank or team.add(namespace("cuda").zeros(3), mover("nccl", team)))


# ---- trainings -------------------------------------------------------------------------------------------------------


def trained(monkeypatch, size, shards, exchange, calls=None):
    """The parameters after an epoch on each rank, and how many parameters there are."""
    monkeypatch.setattr(step_file, "ranks", lambda: fake_nccl.HERE.team)
    monkeypatch.setattr(epochs, "ranks", lambda: fake_nccl.HERE.team)

    def work(team):
        fake_nccl.HERE.team = team
        model = tv.models.model_for("vae", data_set(), device="cuda", hidden=5, latent=2)
        training = Training(model, data_set(), Settings(batch=10, seed=1, shards=shards), exchange)
        for _ in range(3):  # steps that are recorded, compared and replayed
            training.begin_epoch()
            for _ in range(training.batches.steps):
                training.step()
            training.counters[1:] = 0
        return to_host(model.parameters.flat)

    return fake_nccl.run(size, work, calls)


@pytest.mark.skipif(host.compiler() is None, reason=host.NO_COMPILER)
@pytest.mark.parametrize(("size", "shards"), [(2, 4), (4, 8)])
def test_a_training_has_the_bits_of_one_process(monkeypatch, nccl, size, shards):
    """With the kernels and graphs of a GPU: recorded, compared and replayed. Each gradient goes by NCCL, and a few sums
    by MPI."""
    calls = []
    alone = trained(monkeypatch, 1, shards, "mpi")[0]
    for parameters in trained(monkeypatch, size, shards, "nccl", calls):
        assert_same_bits(parameters, alone)
    assert calls.count("NCCL group") == calls.count("NCCL allGather") == calls.count("MPI Alltoall") == 9


def test_rank_0_tells_the_others_the_exchange(monkeypatch, nccl, tmp_path):
    """Of a run that began on one CPU, and records nothing of all this."""
    with tv.fused(False):
        tv.fit(tv.VAE(6, 5, 2), data_set(), shards=2, batch=10, epochs=1, out=tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_text()
    monkeypatch.setattr(step_file, "ranks", lambda: fake_nccl.HERE.team)
    monkeypatch.setattr(epochs, "ranks", lambda: fake_nccl.HERE.team)

    def work(team):
        fake_nccl.HERE.team = team
        with tv.fused(False):
            if team.rank:
                return runs.follow(team, data_set())
            run, training = runs.prepare(tmp_path / "run", data_set(), device="cuda", exchange="nccl", epochs=2)
            runs.lead(run, training, None, "cuda")
            return runs.train(run, training)

    calls = []
    fake_nccl.run(2, work, calls)
    assert calls.count("NCCL group") == 3
    assert (tmp_path / "run" / "config.json").read_text() == before.replace('"epochs": 1', '"epochs": 2')


def test_a_fault_of_nccl_is_one_sentence_and_ends_all(nccl, monkeypatch, capsys):
    def fails(self, *_):
        raise NcclError("NCCL_ERROR_SYSTEM_ERROR: unhandled system error")

    def work(team):
        try:
            team.add(namespace("cuda").zeros(3), mover("nccl", team))
        except DeviceError as fault:
            team.comm.Abort = ended.append
            team.end_by(type(fault), fault, fault.__traceback__)
            raise

    ended = []
    monkeypatch.setattr(nccl.NcclCommunicator, "allGather", fails)
    with pytest.raises(DeviceError, match=r"^NCCL failed on rank \d \(NCCL_ERROR_SYSTEM_ERROR: .* train --resume RUN"):
        fake_nccl.run(2, work)
    assert ended[0] == 1
    assert "of 2 ends all processes:\nTraceback" in capsys.readouterr().err


# ---- where it cannot be ----------------------------------------------------------------------------------------------


def test_an_exchange_of_another_name_or_on_the_cpu_is_refused(tmp_path):
    start = lambda exchange: tv.fit(tv.VAE(6, 5, 2), data_set(), shards=2, epochs=1, exchange=exchange)
    with pytest.raises(ValueError, match=r"^found exchange=gloo; expected mpi or nccl$"):
        start("gloo")
    said = r"^found exchange=nccl on the cpu; NCCL expects GPUs: take device=cuda, or leave exchange out$"
    with pytest.raises(ValueError, match=said):
        start("nccl")
    tv.fit(tv.VAE(6, 5, 2), data_set(), shards=2, epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match=said):
        tv.resume(tmp_path / "run", data_set(), epochs=2, exchange="nccl")
    check_exchange("mpi", CPU)


@pytest.mark.parametrize("there", [False, True])
def test_cupy_without_nccl_is_said(monkeypatch, cupy, there):
    """Whether CuPy has no such module, or one that found no library."""
    if there:
        monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", types.SimpleNamespace(available=False))
    with pytest.raises(DeviceError, match=r"^found exchange=nccl and CuPy without NCCL \(.*\): pip install nvidia-nccl-"
                                          "cu13, or leave exchange out$"):  # fmt: skip
        check_exchange("nccl", namespace("cuda"))


def test_ranks_that_share_a_gpu_are_named(monkeypatch, cupy):
    fake_nccl.install(monkeypatch, cupy, gpus=[3, 4, 3])
    with pytest.raises(DeviceError, match=r"ranks 0 and 2 on the same GPU \(0000:03:00.0 of .*\); NCCL expects a GPU"):
        summed(3, 6, "nccl")
