"""Values with eighty digits, by mpmath: what a density, a divergence or a derivative is at just these inputs."""

import mpmath
import numpy as np


def exactly(function, *arrays):
    """function(*numbers) for each place of the arrays, as an object array of mpmath's numbers."""
    with mpmath.workdps(80):
        return np.vectorize(lambda *numbers: function(*map(mpmath.mpf, map(float, numbers))), otypes=[object])(*arrays)


def check_relative(what, found, expected, units, least=None):
    """Within so many rounding units of each expected value by itself; what overflows must be infinite, or nearly.

    An expected value below `least`, by default the square root of the smallest normal number, may have an error of so
    many units of that.
    """
    found, limits = np.asarray(found), np.finfo(np.asarray(found).dtype)
    least = float(limits.tiny) ** 0.5 if least is None else least
    assert found.shape == expected.shape, what
    worst = 0.0
    for value, right in zip(found.ravel().tolist(), expected.ravel(), strict=True):
        if abs(right) > limits.max / 4:
            assert abs(value) > limits.max / 8, f"{what}: found {value}, expected {mpmath.nstr(right)}"
            assert (value > 0) == (right > 0), f"{what}: found {value}, expected {mpmath.nstr(right)}"
            continue
        error = abs(mpmath.mpf(value) - right) / (max(abs(right), least) * float(limits.eps))
        assert error <= units, f"{what}: found {value}, expected {mpmath.nstr(right, 17)}: {float(error):.3g} units"
        worst = max(worst, float(error))
    print(f"{what}: {worst:.2f} rounding units of each value, allowed {units}")
