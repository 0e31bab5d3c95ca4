"""CUDA C on the host: a driver for tinyvae_kernels.cuda that runs kernels over NumPy arrays.

A source is compiled as C++ with cuda_on_cpu.h, which has a fiber for each CUDA thread. A launch checks its arguments
against the C++ signature, copies each array between a red zone and a page that may not be touched, and looks
afterwards that nothing was written that should not be. What can go wrong raises `KernelError`.
"""

import ctypes
import functools
import hashlib
import importlib.util
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-strict-aliasing",
         "-U_FORTIFY_SOURCE", "-w")
CODES = {"f": np.float32, "d": np.float64, "i": np.int32, "I": np.uint32, "q": np.int64, "Q": np.uint64,
         "b": np.int8, "B": np.uint8, "h": np.int16, "H": np.uint16, "?": np.bool_}  # fmt: skip
SCHEDULES = (0, 1, 2, 3)  # threads forward, backward, shuffled in two ways
RED, FILL, PAGE = 64, 0xA5, mmap.PAGESIZE
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<[^>]*>", re.M)


NO_COMPILER = "found no C++ compiler: install g++ or clang++, or pip install '.[compiler]', or set CXX"


class KernelError(RuntimeError):
    """A kernel did what it must not do, or could not be compiled."""


@functools.cache
def compiler():
    """The command of a C++ compiler: $CXX, g++, clang++, c++, else the one of the extra `compiler`; or None."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and shutil.which(name):
            return (name,)
    return (sys.executable, "-m", "ziglang", "c++") if importlib.util.find_spec("ziglang") else None


def host_source(text):
    """The source in an unnamed namespace, with an export a kernel, and the kernels' names.

    The namespace gives every function internal linkage: a static local of a template would otherwise be shared between
    objects, which the section for shared memory may not be. Dynamic shared memory becomes a pointer.
    """
    names = KERNEL.findall(text)
    dynamic = r"static \1* const \2 = reinterpret_cast<\1*>(coc::dyn);"
    text = re.sub(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;", dynamic, text)
    exports = "\n".join(f"CUDA_ON_CPU_EXPORT({name})" for name in names)
    return f"namespace {{\n{INCLUDE.sub('', text)}\n}}\n{exports}\n", names


class Guarded:
    """A copy of an array that ends at a page which may not be touched, with a red zone before it."""

    def __init__(self, array):
        self.bytes = array.nbytes
        pages = -(-(self.bytes + RED) // PAGE) + 1
        self.memory = mmap.mmap(-1, pages * PAGE)
        whole = np.frombuffer(self.memory, np.uint8)
        base = whole.__array_interface__["data"][0]
        end = (pages - 1) * PAGE
        # arrays of pieces of 16 bytes must begin on one; what is left before the forbidden page is red, too
        aligned = array.__array_interface__["data"][0] % 16 == 0
        self.start = end - (-(-self.bytes // 16) * 16 if aligned else self.bytes)
        self.address, self.forbidden = base + self.start, base + end
        self.head, self.tail = whole[: self.start], whole[self.start + self.bytes : end]
        self.body = whole[self.start : self.start + self.bytes]
        self.head[-RED:], self.tail[...] = FILL, FILL
        self.body[...] = array.reshape(-1).view(np.uint8)
        _protect(self.forbidden, False)

    def release(self):
        """Let the memory go."""
        _protect(self.forbidden, True)

    def torn(self):
        """Was anything beside the array written?"""
        return bool((self.head[-RED:] != FILL).any() or (self.tail != FILL).any())


_libc = ctypes.CDLL(None, use_errno=True)


def _protect(address, allowed):
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 3 if allowed else 0):
        raise OSError(ctypes.get_errno(), "mprotect")


class Function:
    """A kernel, called as CuPy's are."""

    def __init__(self, library, name, driver):
        self.name, self._driver = name, driver
        self._launch, self._fault = getattr(library, f"coc_launch_{name}"), library.coc_error
        signature = getattr(library, f"coc_signature_{name}")
        signature.restype = self._fault.restype = ctypes.c_char_p
        self.signature = signature().decode().split()

    def __call__(self, grid, block, arguments, *, shared_mem=0):
        if len(arguments) != len(self.signature):
            raise TypeError(f"{self.name}: {len(arguments)} arguments for {len(self.signature)} parameters")
        arrays, slots = {}, (ctypes.c_void_p * len(arguments))()
        values = []  # alive until the launch is over
        for i, (value, code) in enumerate(zip(arguments, self.signature, strict=True)):
            wanted = CODES.get(code[-1])
            if code[0] in "pP":
                values.append(ctypes.c_void_p(self._array(i, value, wanted, code[0] == "p", arrays)))
                slots[i] = ctypes.addressof(values[-1])
            elif not isinstance(value, np.generic) or value.dtype != wanted:
                raise TypeError(f"{self.name}: argument {i} is of type {type(value).__name__}; the kernel takes a "
                                f"NumPy number of type {np.dtype(wanted)}")
            else:
                values.append(np.array(value))
                slots[i] = values[-1].ctypes.data
        sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        try:
            self._driver.launches.append(self.name)
            if self._launch(sizes, ctypes.c_size_t(shared_mem), self._driver.schedule, slots):
                raise KernelError(f"{self.name}: {self._fault().decode()}")
            for i, array, copy, constant in arrays.values():
                self._collect(i, array, copy, constant)
        finally:
            for _, _, copy, _ in arrays.values():
                copy.release()

    def _array(self, i, array, wanted, constant, arrays):
        if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
            raise TypeError(f"{self.name}: argument {i} must be a C-contiguous array")
        if wanted is not None and array.dtype != wanted:
            raise TypeError(f"{self.name}: argument {i} is an array of {array.dtype}; the kernel takes "
                            f"{np.dtype(wanted)}")
        place = (array.__array_interface__["data"][0], array.nbytes)
        if place not in arrays:  # one array given twice stays one
            arrays[place] = [i, array, Guarded(array), True]
        arrays[place][3] &= constant
        return arrays[place][2].address

    def _collect(self, i, array, copy, constant):
        if copy.torn():
            raise KernelError(f"{self.name}: argument {i} was written out of bounds")
        if constant and copy.body.tobytes() != array.tobytes():
            raise KernelError(f"{self.name}: argument {i} is const and was written")
        if not constant:
            array.reshape(-1).view(np.uint8)[...] = copy.body


class Module:
    """A compiled source."""

    def __init__(self, library, names, driver):
        self.library, self.names, self.driver = library, names, driver

    def get_function(self, name):
        return Function(self.library, name, self.driver)


class Driver:
    """Compiles on the host, once a source, and runs threads in the order of `schedule`; `launches` names what ran."""

    def __init__(self, schedule=0, folder=None):
        self.schedule, self.launches = schedule, []
        self.folder = Path(folder or Path(tempfile.gettempdir()) / f"tinyvae-cuda-on-cpu-{os.getuid()}")

    blas = None  # over NumPy's arrays there are no products; the stand-in for CuPy has them

    def cublas(self):
        """The stand-in for cuBLAS."""
        library = ctypes.CDLL(str(self._library((HERE / "cublas_on_cpu.cpp").read_text(), ())))
        library.coc_stream.restype = library.coc_workspace.restype = ctypes.c_size_t
        return library

    def module(self, code, options=()):
        text, names = host_source(code)
        return Module(ctypes.CDLL(str(self._library(text, options))), names, self)

    def _library(self, text, options):
        header, command = HERE / "cuda_on_cpu.h", compiler()
        if command is None:
            raise KernelError(NO_COMPILER)
        flags = [*FLAGS, *(option for option in options if not option.startswith("-std"))]
        if len(command) == 1:  # not ziglang, which does not know this flag
            flags.append("-fno-gnu-unique")
        digest = hashlib.sha256("\0".join([text, header.read_text(), *command, *flags]).encode()).hexdigest()[:24]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        library = self.folder / f"{digest}.so"
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=self.folder) as work:  # two processes may compile the same at once
                source, made = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
                source.write_text(text)
                done = subprocess.run([*command, *flags, "-include", str(header), str(source), "-o", str(made)],
                                      capture_output=True, text=True, check=False)  # fmt: skip
                if done.returncode:
                    raise KernelError(done.stderr)
                made.replace(library)
        return library
