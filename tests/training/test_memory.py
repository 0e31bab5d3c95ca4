"""The memory of the machine, by what each system tells; Windows' function stands in."""

import ctypes
import math
import os
import types

import pytest

from tinyvae.engine import devices
from tinyvae.training import faults


def test_linux_tells_its_pages():
    with open("/proc/meminfo") as lines:
        kilobytes = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
    assert 0.9 <= devices.physical_memory() / (1024 * kilobytes) <= 1.1


def test_windows_fills_a_structure(monkeypatch):
    """MEMORYSTATUSEX has 64 bytes, the first four of which hold its length, and the total at offset 8."""

    def fill(pointer):
        raw = (ctypes.c_uint8 * 64).from_address(ctypes.addressof(pointer._obj))
        assert int.from_bytes(bytes(raw[:4]), "little") == 64
        raw[8:16] = (3 * 2**30).to_bytes(8, "little")
        return 1

    monkeypatch.delattr(os, "sysconf")
    kernel32 = types.SimpleNamespace(GlobalMemoryStatusEx=fill)
    monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=kernel32), raising=False)
    assert devices.physical_memory() == 3 * 2**30
    kernel32.GlobalMemoryStatusEx = lambda pointer: 0  # it failed
    assert devices.physical_memory() == math.inf


def test_a_system_that_does_not_tell_refuses_nothing(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert devices.physical_memory() == math.inf


def test_a_step_beyond_the_memory_is_refused(monkeypatch):
    from run_folders import vae

    from tinyvae.training.settings import Settings

    monkeypatch.setattr(faults, "physical_memory", lambda: 2**20)
    faults.check_memory(vae(), Settings(batch=100))
    with pytest.raises(ValueError, match=r"a step of 10,000,000 draws needs about .* make --batch"):
        faults.check_memory(vae(), Settings(batch=10**7))


def test_a_sum_over_classes_needs_memory_for_each_of_them(monkeypatch):
    from tinyvae.models import VAE
    from tinyvae.models.m2 import M2
    from tinyvae.training.settings import Settings

    monkeypatch.setattr(faults, "physical_memory", lambda: 2**20)
    faults.check_memory(VAE(20, hidden=10, latent=2), Settings(batch=200))
    with pytest.raises(ValueError, match="a step of 20,000 draws needs"):
        faults.check_memory(M2(20, classes=100, hidden=10, latent=2), Settings(batch=200))
