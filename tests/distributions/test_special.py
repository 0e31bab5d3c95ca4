"""The derivative of a Gamma draw by its shape: readable form and kernel against exact values and identities.

The exact values are mpmath's, to 16 digits: the power series of F and its derivative by the shape, in 50 digits and
more, which has nothing in common with the integral that tinyvae computes.
"""

import inspect
import math
import re

import numpy as np
import pytest
import scipy.special
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close

from tinyvae.engine.devices import CPU
from tinyvae.engine.rules import TABLE

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = tinyvae_kernels.kernels_for("cpu")
from tinyvae_kernels.cpu import special  # noqa: E402

# ---- exact values --------------------------------------------------------------------
# The arguments are the float32 numbers nearest to those that stand here, so they are the same in both types.

# w = log z, a, dw/da: z drawn from Gamma(a, 1), its quantiles and log a spread evenly, a from 1e-2 to 1e3
DRAWS = [
    (-189.76384, 0.01154782, 16384.5180771054), (-285.1254, 0.015399265, 18479.66307336854),
    (-17.067492, 0.020535251, 804.6435785827214), (-24.96522, 0.027384195, 892.1996372820472),
    (-7.972671, 0.03651741, 204.19773537993177), (-28.004068, 0.048696753, 564.8061330714485),
    (-18.437092, 0.064938165, 276.6001362450082), (-2.8542738, 0.08659643, 29.948347656396336),
    (-6.707755, 0.115478195, 54.67574224690606), (-9.794561, 0.15399265, 61.34118721855268),
    (-5.3607054, 0.2053525, 24.842679096785623), (-2.409023, 0.27384198, 8.877316997664606),
    (-1.1184059, 0.3651741, 4.165138809646588), (0.7560554, 0.48696753, 1.228964355271885),
    (-3.901421, 0.64938164, 6.35495986327795), (-0.22997403, 0.86596435, 1.4449524176265969),
    (1.5520755, 1.1547819, 0.4537068627059402), (0.550478, 1.5399265, 0.6806225552141486),
    (0.21905792, 2.053525, 0.6697459688451189), (0.77926433, 2.7384195, 0.43380413086118585),
    (1.1496565, 3.6517413, 0.3079500956348655), (2.0860212, 4.869675, 0.16350533517165344),
    (2.2690113, 6.4938164, 0.1286198793927892), (2.606818, 8.659643, 0.09330205724450887),
    (2.170012, 11.54782, 0.10055547201818375), (2.475424, 15.399265, 0.07450679150536614),
    (2.5824578, 20.53525, 0.06067144272626418), (3.481025, 27.384197, 0.033687477394295555),
    (3.5407743, 36.517414, 0.028301168103387484), (3.9687347, 48.69675, 0.01976113253201857),
    (4.043349, 64.93816, 0.016464780542881887), (4.4335103, 86.596436, 0.011731336888387579),
    (4.7667236, 115.478195, 0.008595880722245746), (5.062979, 153.99265, 0.006416464854848855),
    (5.2458954, 205.35251, 0.005068252701765965), (5.517124, 273.84195, 0.0038310798118350114),
    (5.940936, 365.17413, 0.002684482376492077), (6.23659, 486.96753, 0.0020049242272128266),
    (6.4792, 649.38165, 0.0015378745060524717), (6.744341, 865.9643, 0.0011663038065913157),
]  # fmt: skip
# and far from where draws fall, at the border of the two integrals, at the smallest and largest shapes
FAR = [
    (-20000.0, 0.001, 19999423.478146624), (-20000.0, 10.0, 2000.2351752589066), (-500.0, 0.001, 499424.4043468814),
    (0.5, 0.001, 418.8149117772838), (3.5, 0.001, 29.457348693500652), (-0.6, 0.001, 874.631161265586),
    (5.0, 0.001, 6.730553890719366), (2.5, 0.01, 7.868975331325413), (-0.5, 0.01, 83.26447228838862),
    (0.3, 1.0, 1.0082818064372432), (0.43, 1.0, 0.9416045636105771), (4.0, 1.0, 0.08416416118432671),
    (-30.0, 1.0, 30.422784335099912), (1.9, 5.0, 0.17819558898852983), (3.0, 5.0, 0.09514946625506641),
    (-3.0, 5.0, 0.9493698375492587), (4.0, 30.0, 0.02447760321765357), (2.5, 30.0, 0.05085335283153991),
    (6.9, 1000.0, 0.0010040499337970524), (7.1, 1000.0, 0.0009071066145654779), (6.6, 1000.0, 0.001161951070148438),
    (11.5129, 100000.0, 1.000014222987914e-05), (11.525, 100000.0, 9.939767285745446e-06),
    (11.5, 100000.0, 1.0064783322034892e-05), (12.0, 100000.0, 7.761564168125464e-06),
    (11.0, 100000.0, 1.2782936847824933e-05),
]  # fmt: skip


def read_table(rows):
    """Arguments in float64, and values."""
    rows = np.array(rows)
    return rows[:, :2].astype(np.float32).astype(np.float64).T, rows[:, 2]


# ---- the derivative of a draw --------------------------------------------------------


def readable(w, a):
    """The row's value, in NumPy."""
    return TABLE["gamma_log_sample_grad"].value(CPU, w, a, None)


def kernel(w, a):
    return cpu.gamma_log_sample_grad(w, a, None)


FORMS = {"readable": readable, "kernel": kernel}
PUBLISHED = {np.float32: 2e-6, np.float64: 1.5e-12}  # mean relative errors (Figurnov et al. 2018)
UNITS = {np.float32: 2, np.float64: 8192}  # the largest error, in rounding units; in float64 at a shape of 1e5
UNITS_OF_DRAWS = {np.float32: 2, np.float64: 512}  # and at shapes up to 1e3


def relative_errors(function, rows, dtype):
    (w, a), exact = read_table(rows)
    with np.errstate(all="ignore"):
        found = function(w.astype(dtype), a.astype(dtype))
    assert (found.dtype, found.shape) == (dtype, exact.shape)
    return np.abs(found.astype(np.float64) - exact) / exact


def check_published(function, dtype):
    """Over draws, the mean relative error."""
    mean = float(relative_errors(function, DRAWS, dtype).mean())
    print(f"mean relative error {mean:.2g}, published {PUBLISHED[dtype]:.2g}")
    assert mean <= PUBLISHED[dtype], f"mean relative error {mean:.2g}"  # NaN fails


def check_everywhere(function, dtype):
    """Every single value, far out too."""
    for rows, units in ((DRAWS, UNITS_OF_DRAWS[dtype]), (FAR, UNITS[dtype])):
        worst = float(np.max(relative_errors(function, rows, dtype) / np.finfo(dtype).eps))
        print(f"at most {worst:.3g} rounding units, allowed {units}")
        assert worst <= units, f"{worst:.3g} rounding units, allowed {units}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_the_published_accuracy(form, dtype):
    check_published(FORMS[form], dtype)
    check_everywhere(FORMS[form], dtype)


log_shapes = st.floats(-3, 5)


def place(log_shape, deviations):
    """A shape, and the logarithm of a number so many standard deviations of log z from its mean."""
    a = 10.0**log_shape
    w = scipy.special.digamma(a) + deviations * math.sqrt(scipy.special.polygamma(1, a))
    return min(w, math.log(a + 12 * math.sqrt(a) + 40)), a


def check_recurrence(function, log_shape, deviations):
    """a dw/da (a) = psi(a + 1) - w + z dw/da (a + 1): exact, and both integrals occur in it."""
    w, a = place(log_shape, deviations)
    here, above = (float(function(np.array([w]), np.array([shape]))[0]) for shape in (a, a + 1))
    terms = [a * here, w - scipy.special.digamma(a + 1), -math.exp(w) * above]
    assert here > 0
    assert above > 0
    assert abs(sum(terms)) <= 4e-12 * max(map(abs, terms)), f"{terms} sum to {sum(terms)}, not to 0"


@pytest.mark.parametrize("form", FORMS)
@given(log_shape=log_shapes, deviations=st.floats(-9, 9))
def test_the_recurrence_between_shapes(form, log_shape, deviations):
    check_recurrence(FORMS[form], log_shape, deviations)


def check_moments(function, a):
    """E[log z] = psi(a) and E[z] = a: so the mean of dw/da is psi'(a), and that of z dw/da is 1.

    The trapezoidal rule over all w, which is exact to rounding for functions as smooth as these.
    """
    w = np.linspace(scipy.special.digamma(a) - 45 / min(a, math.sqrt(a)), math.log(a + 12 * math.sqrt(a) + 40), 20_001)
    z = np.exp(w)
    weight = np.exp(a * w - z - scipy.special.gammaln(a)) * (w[1] - w[0])
    found = weight * function(w, np.full_like(w, a))
    assert weight.sum() == pytest.approx(1, rel=1e-10)
    assert found.sum() == pytest.approx(float(scipy.special.polygamma(1, a)), rel=1e-10)
    assert (z * found).sum() == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("a", [0.05, 0.3, 1.0, 2.5, 20.0, 1000.0])
def test_moments_move_as_they_should(form, a):
    check_moments(FORMS[form], a)


@pytest.mark.parametrize("dtype", DTYPES)
@given(log_shape=log_shapes, deviations=st.floats(-9, 9))
def test_both_forms_agree(dtype, log_shape, deviations):
    w, a = (np.array([v], dtype) for v in place(log_shape, deviations))
    expected = readable(w, a)
    assert_close(kernel(w, a), expected, UNITS[dtype], "kernel", np.abs(expected))


def check_limit(function, dtype, a):
    """For z -> 0, F = z^a / Gamma(a + 1) and dw/da = (psi(a + 1) - w) / a: also where z itself is 0 in either type."""
    w = -np.array([1e2, 1e3, 2e4], dtype)
    exact = (scipy.special.digamma(np.float64(dtype(a)) + 1) - w.astype(np.float64)) / np.float64(dtype(a))
    assert_close(function(w, np.full_like(w, a)), exact, 4, "the limit", exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("a", [1e-3, 0.5, 7.0, 1e5])
def test_numbers_that_underflow(form, dtype, a):
    check_limit(FORMS[form], dtype, a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_far_out(form, dtype):
    """(w - psi(a)) / (z - a) for large z, down to 0; NaN where a NaN goes in or the shape is no shape."""
    w = np.array([40, 60, 80], dtype)
    expected = (w.astype(np.float64) - scipy.special.digamma(2.5)) / np.exp(w.astype(np.float64))
    assert_close(FORMS[form](w, np.full_like(w, 2.5)), expected, 128, form, expected)
    for log_z in (800.0, 1e30):
        assert 0 <= FORMS[form](np.array([log_z], dtype), np.ones(1, dtype))[0] < 1e-37
    bad = [(math.nan, 1.0), (0.5, math.nan), (0.5, -1.5), (-3.0, -0.5)]
    assert np.isnan(FORMS[form](*np.array(bad, dtype).T.copy())).all()


def test_forms_share_no_code():
    assert "tinyvae" not in "".join(re.findall(r"^(?:from|import) .*", inspect.getsource(special), re.M)).replace(
        "tinyvae_kernels", "")  # fmt: skip


# ---- the checks notice ---------------------------------------------------------------


def by_differences(w, a):
    """The quantile held by SciPy's inverse, and the shape moved a little."""
    h, u = 1e-5 * a, scipy.special.gammainc(a, np.exp(w))
    return (np.log(scipy.special.gammaincinv(a + h, u)) - np.log(scipy.special.gammaincinv(a - h, u))) / (2 * h)


def by_power_series(w, a):
    """All from the lower tail: (1 / a) sum of z^n / (a + 1)_n (psi(a + n + 1) - w), which cancels for large z."""
    z, term, total = np.exp(w), np.ones_like(w), np.zeros_like(w)
    for n in range(400):
        total += term * (scipy.special.digamma(a + n + 1) - w)
        term *= z / (a + n + 1)
    return total / a


WRONG = {
    "differences": by_differences, "power series": by_power_series,
    "the other sign": lambda w, a: -kernel(w, a), "no number": lambda w, a: kernel(w, a) * math.nan,
    "four digits": lambda w, a: kernel(w, a) * w.dtype.type(1.0001),
    "by z": lambda w, a: kernel(w, a) * np.exp(w), "for a small z": lambda w, a: (scipy.special.digamma(a + 1) - w) / a,
    "through z": lambda w, a: kernel(np.log(np.exp(w)), a), "a rounded shape": lambda w, a: kernel(w, np.round(a, 4)),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_derivative_is_found(wrong):
    for dtype in DTYPES:
        with pytest.raises(AssertionError):
            check_everywhere(WRONG[wrong], dtype)
    if wrong not in ("through z", "power series"):  # wrong far out only
        with pytest.raises(AssertionError):
            check_published(WRONG[wrong], np.float64)


def test_wrong_identities_are_found():
    off = lambda w, a: kernel(w, a) * (1 + 1e-9 * a)
    with pytest.raises(AssertionError, match="sum to"):
        check_recurrence(off, 0.5, 0.5)
    with pytest.raises(AssertionError):
        check_moments(off, 2.5)
    for dtype in DTYPES:
        with pytest.raises(AssertionError, match="the limit"), np.errstate(all="ignore"):
            check_limit(WRONG["through z"], dtype, 0.5)
