"""A GPU that cannot be used is one sentence: what is missing, and what to do. The faults come from a made-up CuPy."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import run_python

import tinyvae as tv
from tinyvae.cli.main import main
from tinyvae.engine import devices
from tinyvae.engine.devices import DeviceError, Namespace, namespace, require_cuda


def raises(fault):
    def call(*_):
        raise fault

    return call


def install(monkeypatch, driver=13000, count=lambda: 1, capability="90", nvrtc=lambda: (13, 0)):
    """A CuPy with these properties."""
    cupy, cuda = (types.ModuleType(name) for name in ("cupy", "cupy.cuda"))
    cuda.runtime = types.SimpleNamespace(driverGetVersion=lambda: driver, getDeviceCount=count)
    cuda.Device = lambda *_: types.SimpleNamespace(compute_capability=capability)
    cuda.nvrtc = types.SimpleNamespace(getVersion=nvrtc)  # an attribute, as in CuPy, and no module
    cupy.cuda, cupy.__version__ = cuda, "14.2.0"
    for name, module in (("cupy", cupy), ("cupy.cuda", cuda)):
        monkeypatch.setitem(sys.modules, name, module)
    return cupy


FAULTS = {
    "no CuPy": (None, r'needs CuPy.*pip install "cupy-cuda13x\[ctk\]"'),
    "no driver": ({"driver": 0}, r"CuPy 14.2.0 is installed, but no NVIDIA driver was found.*install the driver"),
    "no GPU": ({"count": lambda: 0}, r"reports no usable GPU.*CUDA_VISIBLE_DEVICES"),
    "a driver that fails": ({"count": raises(RuntimeError("cudaErrorNoDevice"))}, r"cudaErrorNoDevice.*nvidia-smi"),
    "too old": ({"capability": "61"}, r"compute capability 6.1.*need 7.0"),
    "no NVRTC": ({"nvrtc": raises(OSError("libnvrtc"))}, r'NVRTC.*not found.*pip install "cupy-cuda13x\[ctk\]"'),
    "no NVRTC for 12": ({"driver": 12080, "nvrtc": raises(OSError("libnvrtc"))}, r'pip install "cupy-cuda12x\[ctk\]"'),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_one_sentence(fault, monkeypatch, capsys, tmp_path):
    """From the function, from a model, and from the command line, which ends with 2 and leaves nothing behind."""
    properties, sentence = FAULTS[fault]
    if properties is None:
        monkeypatch.setitem(sys.modules, "cupy", None)
    else:
        install(monkeypatch, **properties)
    for ask in (require_cuda, lambda: namespace("cuda"), lambda: tv.VAE(4, 3, 2, device="cuda"),
                lambda: tv.load("nowhere", device="cuda")):  # fmt: skip
        with pytest.raises(DeviceError, match=sentence) as caught:
            ask()
        assert "\n" not in str(caught.value)
    command = ["tinyvae", "train", "digits", "--device", "cuda", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().err
    assert "CuPy" in said


def test_a_usable_gpu_is_taken(monkeypatch):
    cupy = install(monkeypatch)
    assert require_cuda() is cupy


@pytest.mark.parametrize(("place", "count", "taken"), [(0, 1, []), (1, 1, []), (6, 4, [2]), (4, 4, []), (1, 2, [1])])
def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch, place, count, taken):
    """In turns; the first one is CuPy's own choice."""
    cupy, used = install(monkeypatch, count=lambda: count), []
    cupy.cuda.Device = lambda *number: types.SimpleNamespace(compute_capability="90", use=lambda: used.append(*number))
    monkeypatch.setattr(devices, "_place", None)
    devices.take_gpu(place)
    assert require_cuda() is cupy
    assert used == taken


@pytest.mark.parametrize(("variables", "place"), [
    ({}, 0), ({"MPI_LOCALRANKID": "3"}, 3), ({"OMPI_COMM_WORLD_LOCAL_RANK": "2"}, 2), ({"SLURM_LOCALID": "1"}, 0),
    ({"SLURM_LOCALID": "1", "PMIX_RANK": "5"}, 1), ({"SLURM_LOCALID": "1", "PMI_RANK": "5"}, 1),
    ({"MPI_LOCALRANKID": "none"}, 0)])  # fmt: skip
def test_before_mpi_is_asked_the_launcher_says_the_place(monkeypatch, variables, place):
    """So a model that a program makes before its training lies on the GPU of its process."""
    monkeypatch.setattr(devices, "_place", None)
    for name in (*devices.PLACES, "SLURM_LOCALID", "PMIX_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert devices.own_place() == place
    devices.take_gpu(7)
    assert devices.own_place() == 7


def test_another_device_is_refused():
    with pytest.raises(DeviceError, match="expected cpu or cuda"):
        tv.VAE(4, 3, 2, device="tpu")


def test_nothing_imports_cupy_unasked():
    code = """
import sys, numpy as np, tinyvae as tv
tv.fit(tv.VAE(64, 5, 2), "digits", epochs=1)
print("cupy" in sys.modules)
"""
    assert run_python(code).stdout.split() == ["False"]


@given(rows=st.integers(1, 5), count=st.integers(0, 40), width=st.sampled_from([(), (2,), (2, 3)]),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_rows_of_a_gpu_add_up_as_numpys_do(rows, count, width, seed):
    """The same algorithm over NumPy's arrays, against `np.add.at`; what was there stays, and no row gets another's."""
    draw = np.random.default_rng(seed)
    index, values = draw.integers(-rows, rows, count), draw.integers(-9, 10, (count, *width)).astype(float)
    values[(index % rows == 0) & (draw.random(count) < 0.2)] = np.nan
    found = draw.integers(0, 9, (rows, *width)).astype(float)
    expected = found.copy()
    np.add.at(expected, index, values)
    Namespace("cuda", "numpy", "scipy.special").add_rows(found, index, values)
    assert np.array_equal(found, expected, equal_nan=True)
