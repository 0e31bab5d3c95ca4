"""Recorded programs as tables: what is counted."""

import numpy as np

import tinyvae as tv
from tinyvae.engine import table
from tinyvae.engine.tensor import Tensor, apply


def floats(*shape):
    return Tensor(np.ones(shape, np.float32))


def recorded(name, *inputs, **attributes):
    with tv.Tape() as tape:
        apply(name, *inputs, **attributes)
    return tape.launches[-1]


def test_bytes_that_are_picked_or_changed():
    """Rows picked from a store count as rows; what is changed in place is read and written; a view moves nothing."""
    store, index = Tensor(np.zeros((1000, 8), np.uint8)), Tensor(np.arange(5))
    grey = recorded("grey_rows", store, index, scale=255.0, dtype=np.dtype(np.float32))
    assert table.traffic(grey) == table.footprint(grey) == 5 * 8 + 5 * 8 + 5 * 8 * 4
    assert table.flops(grey) == 40
    home = recorded("store", floats(3, 4), floats(3, 4))
    assert table.traffic(home) == table.footprint(home) == 2 * 48
    prior = recorded("weight_prior", floats(100), floats(100), factor=0.1)
    assert (table.traffic(prior), table.footprint(prior)) == (3 * 400, 2 * 400)
    view = recorded("reshape", floats(3, 4), shape=(12,))
    assert table.traffic(view) == table.footprint(view) == table.flops(view) == 0


def test_operations_of_fused_launches():
    """By hand for two: tanh(pre + bias) is two an element, a product 2 m k n."""
    assert table.flops(recorded("bias_activation", floats(5, 7), floats(7), kind="tanh")) == 2 * 35
    assert table.flops(recorded("matmul", floats(5, 7), floats(7, 3))) == 2 * 5 * 7 * 3
    x = np.zeros((4, 50), np.float32)
    x[1, 3] = x[2, 40] = x[2, 41] = 1
    assert table.flops(recorded("sparse_matmul", Tensor(x), floats(50, 7))) == 2 * 3 * 7, "zeros are left out"
