"""What the tests of the benchmarks share."""

import pytest


@pytest.fixture
def small(driver, monkeypatch):
    """The benchmark of a GPU at sizes that the host can run; the peers are those that `small` is given."""
    from small_gpu import shrink

    return shrink(monkeypatch)
