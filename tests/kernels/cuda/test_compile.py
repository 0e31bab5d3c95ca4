"""Every CUDA source compiled by NVRTC, as CuPy compiles it, for three generations of cards; no GPU is needed for that.

A kernel that spills registers into memory, or takes more than lets four of its blocks share a multiprocessor, fails.
"""

import ctypes
import functools
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu.host import KERNEL
from support import DTYPES
from tinyvae_kernels.cuda.runtime import driver
from tinyvae_kernels.cuda.runtime.jobs import THREADS

CARDS = ("sm_80", "sm_90", "sm_100")  # A100, H100 and H200, B200
REGISTERS = 65536 // (4 * THREADS)


@functools.cache
def nvrtc():
    """The compiler's library, from the wheel of the extra `nvrtc`; None without."""
    found = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    for pattern in ("**/libnvrtc-builtins.so*", "**/libnvrtc.so*"):  # the first must be there before the second
        files = sorted(file for place in places for file in place.glob(pattern))
        if not files:
            return None
        library = ctypes.CDLL(str(files[-1]), mode=ctypes.RTLD_GLOBAL)
    return library


pytestmark = pytest.mark.skipif(nvrtc() is None, reason="NVRTC is missing: pip install '.[nvrtc]'")


def compiled(source, card, *options):
    """Whether NVRTC takes a source, and what it says."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    # -ftz=true is what CuPy adds to every module
    words = [f"-arch={card}", "-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v",
             *options]  # fmt: skip
    array = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
    failed = library.nvrtcCompileProgram(program, len(words), array)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return not failed, log.value.decode()


def check(source, card, *options, registers=REGISTERS):
    """It compiles, each kernel is reported, none spills, none takes too many registers."""
    fine, log = compiled(source, card, *options)
    assert fine, log
    names = KERNEL.findall(source)
    reports = dict(re.findall(r"entry function '(\w+)'.*?\n(.*?Used \d+ registers)", log, re.S))
    assert set(reports) == set(names), log
    for name, report in reports.items():
        spilled = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", report)]
        assert spilled == [0, 0], f"{name} on {card} spills {spilled} bytes"
        used = int(re.search(r"Used (\d+) registers", report)[1])
        assert used <= registers, f"{name} on {card} takes {used} registers, allowed {registers}"


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file", driver.FILES)
def test_nvrtc_takes_every_source(file, dtype, card):
    check(driver.source(file), card, *driver.options(dtype))


def test_what_is_wrong_is_found():
    """A source that is no C++, a header that NVRTC has not, a kernel that needs more registers than it may have."""
    right, options = driver.source("steps"), driver.options(np.float32)
    for wrong in (right + "nonsense", "#include <cstdint>\n" + right):
        with pytest.raises(AssertionError):
            check(wrong, "sm_90", *options)
    live = "; ".join(f"float v{i} = x[{i} * n]" for i in range(200))
    total = " + ".join(f"v{i} * v{(i * 7 + 3) % 200}" for i in range(200))
    greedy = ('extern "C" __global__ void greedy(const volatile float* x, float* out, int n) '
              f"{{ {live}; out[0] = {total}; }}")  # fmt: skip
    with pytest.raises(AssertionError, match=r"registers|spills"):
        check(greedy, "sm_90", *options)
