"""The stand-in for CuPy is no more generous than CuPy: it has no other names, and its functions no other parameters.

cupy.json says what CuPy has, and the stand-in obeys it. Where CuPy is installed, which needs no card, both are held
against it.
"""

import inspect
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import card, fake_cupy, host, signatures

from tests.engine import test_devices
from tests.measure import test_doctor
from tinyvae.engine.devices import namespace
from tinyvae.training.faults import GPU_FAULTS

pytestmark = pytest.mark.skipif(card.ON_A_CARD, reason="optional: on the host only: the stand-in")
MISSING = "CuPy is missing: pip install '.[cupy]', or let TINYVAE_CUPY name a folder that has it; it needs no card"


# Every stand-in of the tests, as a function that installs it; and what a function of CuPy's makes.
STAND_INS = {"the library's": lambda patch: fake_cupy.install(patch, host.Driver()),
             "of broken ones": test_devices.install, "the doctor's": test_doctor.install_cupy}
MADE = {"cupy.get_default_memory_pool": "cupy.cuda.MemoryPool", "cupy.cuda.Device": "cupy.cuda.Device"}


@pytest.fixture
def cupy(monkeypatch):
    return fake_cupy.install(monkeypatch, host.Driver())


def offered(cupy):
    """What a stand-in offers beside NumPy's functions, by its name in CuPy: every module, class and function."""
    found = {}

    def look(name, thing):
        found[name] = thing
        inside = vars(thing) if isinstance(thing, (types.ModuleType, types.SimpleNamespace, type)) else {}
        for word, value in inside.items():
            if not word.startswith("_") and not (isinstance(thing, type) and not callable(value)):
                look(f"{name}.{word}", value)

    for word, thing in vars(cupy).items():
        if word == "_core" or not word.startswith("_"):
            look(f"cupy.{word}", thing)
    for place, name in MADE.items():
        if place in found:
            found |= {f"{name}.{word}": value for word, value in vars(found[place]()).items()}
    if found.get("cupy.cuda.Stream") is fake_cupy.Stream:
        with fake_cupy.Stream() as stream:
            stream.begin_capture()
            found["cupy.cuda.Graph.launch"] = stream.end_capture().launch
    ours = {"cupy.cuda.Stream.default", "cupy.cuda.Stream.capturing", "cupy.cuda.Stream.current",
            "cupy.cuda.Stream.submit"}  # fmt: skip
    return {name: thing for name, thing in found.items() if name not in ours}


def test_the_table_is_obeyed(cupy):
    """No other names, keywords or positions than CuPy's; what NumPy alone has is refused."""
    a = cupy.asarray(np.ones((2, 3)))
    for use, refusal in (
        (lambda: cupy.trapezoid, None), (lambda: cupy.vecdot, AttributeError), (lambda: cupy.nonsense, AttributeError),
        (lambda: cupy.sum(a, where=a > 0), TypeError), (lambda: cupy.take(a, a, mode="wrap"), TypeError),
        (lambda: a.sum(initial=1.0), TypeError), (lambda: cupy.add(a, a, where=a > 0), TypeError),
        (lambda: cupy.searchsorted(a, a, "left", None, 3), TypeError), (lambda: cupy.sum(a, keepdims=True), None),
        (lambda: cupy.add(a, a, dtype="f4"), None),
        (lambda: namespace("cuda").special.hyperu, AttributeError),
        (lambda: namespace("cuda").special.gammaln(a, subok=True), TypeError),
    ):  # fmt: skip
        if refusal is None:
            use()
        else:
            with pytest.raises(refusal, match="CuPy"):
                use()


def test_an_array_has_no_other_methods():
    ours = {name for name in vars(fake_cupy.ndarray) if not name.startswith("_")} - {"hidden"}
    assert ours <= set(fake_cupy.TABLE["cupy.ndarray"])


INVENTED = "cupy.cuda.Stream.begin_recording", "cupy.cuda.nvrtc.version"  # names that CuPy does not have
IMPORTED = "cupy", "cupy.cuda", "cupyx", "cupyx.scipy", "cupyx.scipy.special"  # modules that the stand-in puts there


@pytest.fixture(scope="module")
def real():
    """What CuPy says of itself, in a process of its own: this one must not know it."""
    with pytest.MonkeyPatch.context() as patch:
        names = {name for install in STAND_INS.values() for name in offered(install(patch))} | {*INVENTED, *IMPORTED}
    path = os.pathsep.join(filter(None, (os.environ.get("TINYVAE_CUPY"), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, signatures.__file__, *names], env=os.environ | {"PYTHONPATH": path},
                          capture_output=True, text=True)  # fmt: skip
    if "No module named 'cupy'" in done.stderr:
        pytest.skip(MISSING)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_table_is_cupys(real):
    """Each name of the table is in CuPy, with these parameters."""
    for place in (*signatures.MODULES, signatures.ARRAY):
        for name, words in fake_cupy.TABLE[place].items():
            assert name in real[place], f"CuPy has no {place}.{name}; renew cupy.json"
            assert real[place][name] == words, f"{place}.{name} has other parameters in CuPy; renew cupy.json"


def positions(thing):
    """The parameters by position, without self."""
    return [p for p in inspect.signature(thing).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"]  # fmt: skip


@pytest.mark.parametrize("stand_in", STAND_INS)
def test_what_a_stand_in_offers_exists(real, monkeypatch, stand_in):
    """Every module, class and function under `cupy.cuda` and beside, with its parameters."""
    ours = offered(STAND_INS[stand_in](monkeypatch))
    assert len(ours) > 5
    assert not set(ours) - set(real[""]), f"CuPy has no {sorted(set(ours) - set(real['']))}"
    for name, thing in ours.items():
        if callable(thing) and name != "cupy.ndarray":
            check_parameters(name, thing, real[""][name])


def check_parameters(name, thing, words):
    """A function of the stand-in takes nothing that CuPy's, with these parameters, does not take."""
    there = words.partition("*")[0].split()
    for i, p in enumerate(positions(thing)):
        assert i < len(there), f"{name} takes ({words}) in CuPy, and more by position here"
        assert p.default is p.empty or p.name == there[i], f"{name} takes ({words}) in CuPy, {p.name} there here"
    for p in inspect.signature(thing).parameters.values():
        ours = p.kind is not p.KEYWORD_ONLY or p.name.startswith("_")
        assert ours or p.name in words.split(), f"{name} has no {p.name} in CuPy"


@pytest.mark.parametrize("thing", [lambda code, options=(): None, lambda nothing=0: None, lambda *, flags=0: None])
def test_other_parameters_are_found(thing):
    with pytest.raises(AssertionError, match="in CuPy"):
        check_parameters("made-up", thing, "code * path options")
    check_parameters("made-up", lambda text, *, options=(): None, "code * path options")


def test_invented_names_are_found(real):
    """The check above can fail."""
    assert not set(INVENTED) & set(real[""])


def test_modules_are_modules_there(real):
    """Whatever the stand-in lets import is a module of CuPy's; NVRTC is an attribute alone, and no module."""
    assert set(IMPORTED) <= set(real["modules"])
    assert "cupy.cuda.nvrtc" in real[""]
    assert "cupy.cuda.nvrtc" not in real["modules"]


def test_the_faults_of_a_gpu_are_cupys_errors(real):
    """Each is a class of CuPy's by that name, or one of ours; its libraries are compiled, so their bytes say it."""
    folder = Path(real["folder"]) / "cuda"
    text = b"".join(file.read_bytes() for place in ("api", "libs") for file in (folder / place).glob("*.so"))
    theirs = {name for name in GPU_FAULTS if name.encode() in text}
    assert theirs == {"CUDARuntimeError", "CUDADriverError", "CUBLASError"}
    assert set(GPU_FAULTS) - theirs == {"CublasError"}  # ours: tinyvae_kernels.cuda.runtime.cublas
