"""The kernels of special functions: log Gamma and its derivatives against exact values, and the rows that run them.

The exact values are mpmath's, to 16 digits. What the derivative of a Gamma draw gives: distributions/test_special.py.
"""

import math
import re

import numpy as np
import pytest
import scipy.special
import tinyvae_kernels
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, assert_close, assert_same_bits, make_wrong, run_parts

import tinyvae as tv
from tinyvae.engine.devices import CPU
from tinyvae.engine.fusion import kernel_of
from tinyvae.engine.rules import TABLE

pytest.importorskip("tinyvae_kernels.cpu", reason="Numba is missing", exc_type=ImportError)
cpu = tinyvae_kernels.kernels_for("cpu")
import llvmlite.binding as llvm  # noqa: E402 - comes with Numba
from tinyvae_kernels.cpu import special  # noqa: E402
from tinyvae_kernels.cpu.runtime import cache, compiled, helpers, team  # noqa: E402

UNITS = {np.float32: 2, np.float64: 8192}  # of the derivative of a draw, as in distributions/test_special.py

# x, log Gamma(x), digamma and its derivatives up to the third
EXACT = [
    (1e-09, 20.72326586465113, -1000000028.8591479, 1.0000000565638653e+18, -2.0000001696915985e+27,
     6.000000678766403e+36),
    (0.001, 6.907178837859066, -1000.5755244342832, 1000001.5475382999, -1999999717.4129515, 5999998860067.773),
    (0.02, 3.9008045386936576, -50.54479042875771, 2501.5982299515995, -250002.29581801503, 37500009.372456454),
    (0.4, 0.7966778024347423, -2.561384501220612, 7.2753563983694205, -32.23912721574495, 236.19524503525275),
    (0.75, 0.20328095143129538, -1.0858608797864722, 2.5418796476716063, -5.3026332163376395, 19.7633125348506),
    (0.99999905, 5.504765026737053e-07, -0.5772172336339979, 1.6449363595927704, -2.4041199994337257,
     6.493963135715179),
    (1.0, 0.0, -0.5772156649015329, 1.6449340668482264, -2.4041138063191885, 6.493939402266829),
    (1.000001, -5.504750066148867e-07, -0.5772140961712544, 1.6449317741095888, -2.404107613227285, 6.493915668929512),
    (1.4616321, -0.12148629053584953, -1.203605254910667e-08, 0.9676722564619307, -0.8855263572587372,
     1.5509986146733619),
    (1.5, -0.12078223763524522, 0.03648997397857652, 0.9348022005446793, -0.82879664423432, 1.4090910340024372),
    (1.999999, -4.0319826848018475e-07, 0.42278372004122805, 0.644934452241409, -0.4041142773769134, 0.493940247477015),
    (2.0, 0.0, 0.42278433509846713, 0.6449340668482264, -0.4041138063191886, 0.49393940226682914),
    (2.000001, 4.0319885504430156e-07, 0.4227849501553387, 0.644933681455493, -0.4041133352622698, 0.4939385570585361),
    (2.5, 0.2846828704729192, 0.7031566406452432, 0.49035775610023485, -0.2362040516417274, 0.22390584881725206),
    (3.0, 0.6931471805599453, 0.9227843350984671, 0.39493406684822646, -0.15411380631918858, 0.11893940226682916),
    (5.3, 3.639636368598804, 1.5704109712196275, 0.20759088083172936, -0.042943215875672125, 0.017706063552244862),
    (7.49, 7.514903350846954, 1.945330276364665, 0.14281924291480855, -0.02036310133673566, 0.0057970818520476875),
    (7.5, 7.534364236758733, 1.9467574842460869, 0.1426158966967038, -0.020305252536644666, 0.005772436656578694),
    (12.0, 17.502307845873887, 2.442661679975812, 0.08690187287176838, -0.007547205368998912, 0.001310093231070826),
    (30.0, 71.25703896716801, 3.384438132685525, 0.033895060357739946, -0.0011487652037286, 7.78600366473613e-05),
    (1000.0, 5905.220423209181, 6.907255195648812, 0.0010005001666666333, -1.0010004999998333e-06, 2.003001999999e-09),
    (100000.0, 1051287.7089736569, 11.512920464961896, 1.0000050000166667e-05, -1.00001000005e-10, 2.0000300002e-15),
    (1e+09, 19723265827.503716, 20.723265836446412, 1.0000000005e-09, -1.000000001e-18, 2.000000003e-27),
]  # fmt: skip


# ---- log Gamma and its derivatives ---------------------------------------------------

def primitives(kernels):
    """log Gamma and its derivatives, by name."""
    return {"lgamma": lambda x: kernels.lgamma(x, None),
            **{f"polygamma {n}": lambda x, n=n: kernels.polygamma(x, None, order=n) for n in range(4)}}


PRIMITIVES = primitives(cpu)
EXACT_UNITS = {np.float32: 1, np.float64: 6}


def check_primitive(name, function, dtype):
    """Relative rounding units, also near 1 and 2, where lgamma is 0; but where digamma is nearly 0 those of 1."""
    rows = np.array(EXACT)
    x, exact = rows[:, 0].astype(np.float32).astype(dtype), rows[:, 1 + list(PRIMITIVES).index(name)]
    scale = np.where(exact == 0, 1, np.abs(exact))
    assert_close(function(x), exact, EXACT_UNITS[dtype], name, np.maximum(1, scale) if name[-1] == "0" else scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_exact_values(name, dtype):
    check_primitive(name, PRIMITIVES[name], dtype)


def scipy_polygamma(order, x):
    return scipy.special.polygamma(order, x) if order else scipy.special.digamma(x)


def check_any_order(kernels, dtype, exponents, order):
    x = (10.0 ** np.array(exponents)).astype(dtype)
    wide = x.astype(np.float64)
    assert_close(kernels.lgamma(x, None), scipy.special.gammaln(wide), 24, "lgamma")
    expected = scipy_polygamma(order, wide)
    fits, least = np.abs(expected) <= np.finfo(dtype).max, 1 if order == 0 else np.finfo(dtype).tiny
    with np.errstate(all="ignore"):
        found = kernels.polygamma(x, None, order=order)
    assert_close(found[fits], expected[fits], 24, f"order {order}", np.maximum(least, np.abs(expected))[fits])


@pytest.mark.parametrize("dtype", DTYPES)
@given(exponents=st.lists(st.floats(-4, 8), min_size=1, max_size=150), order=st.integers(0, 7))
def test_any_order_as_scipy_has_it(dtype, exponents, order):
    """Over all magnitudes, in blocks that are full and blocks that are not."""
    check_any_order(cpu, dtype, exponents, order)


def check_numbers_that_are_not_positive(kernels, dtype):
    x = np.array([0.0, -0.5, -1.25, -30.75, math.inf, math.nan, 2.0], dtype)
    assert_close(kernels.lgamma(x, None), scipy.special.gammaln(x.astype(np.float64)), 8, "lgamma")
    for order in range(4):
        expected = scipy_polygamma(order, x.astype(np.float64))
        assert_close(kernels.polygamma(x, None, order=order), expected, 64, str(order))
    assert np.isnan(kernels.polygamma(np.array([-math.inf, -1e30], dtype), None, order=1)).all()
    tiny = np.array([1e-310, 5e-324])  # denormal
    for lgamma in (lambda a: kernels.lgamma(a, None), lambda a: TABLE["lgamma"].value(CPU, a, None)):
        assert_close(lgamma(tiny), -np.log(tiny), 2, "lgamma")


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_not_positive(dtype):
    """As SciPy has them: infinite at 0, by steps below it; infinity and NaN go through."""
    check_numbers_that_are_not_positive(cpu, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("on", [True, False], ids=["kernel", "twin"])
def test_poles(on, dtype):
    """polygamma at 0, of either sign, is the limit from above; at negative whole numbers and below -1e6 it is NaN."""
    x = np.array([0.0, -0.0, -1.0, -2.0, -1e6, -2e6 - 0.5, -math.inf], dtype)
    tiny = -np.finfo(dtype).smallest_subnormal
    for order in range(4):
        with tv.fused(on), np.errstate(all="ignore"):
            found = tv.Tensor(np.append(x, tiny)).polygamma(order).data
            remainder = tv.Tensor(np.append(x, tiny)).apply("stirling", order=order).data
        limit = -math.inf if order % 2 == 0 else math.inf
        assert_close(found[:2], [limit] * 2, 0, f"order {order}")
        assert np.isnan(found[2:-1]).all()
        # 1 / x has another sign below 0, its square has not; 1 / 5e-324 overflows, 1 / 1e-45 does not in float64
        if dtype == np.float64 or order > 0:
            assert found[-1] == math.inf
        assert_close(remainder[:2], [math.inf if order % 2 == 0 else -math.inf] * 2, 0, f"remainder of order {order}")
        assert np.isnan(remainder[2:]).all()


# ---- Stirling's remainder ------------------------------------------------------------

# x, mu(x) and its derivatives up to the third
REMAINDERS = [
    (1e-09, 9.442694406414583, -499999979.8539498, 4.9999999899999994e+17, -9.999999989999998e+26),
    (0.001, 2.5422704679670947, -493.66781665282815, 499001.64253319585, -999000002.3976322),
    (0.4, 0.18611021130969552, -0.39509381271096106, 1.6503565905295972, -10.364128623578354),
    (1.0, 0.08106146679532726, -0.07721566490153287, 0.14493406684822643, -0.4041138063191886),
    (2.5, 0.03316287351993629, -0.013134091228911878, 0.010357756100234865, -0.012204051641727403),
    (7.49, 0.011119368164444676, -0.0014828142434233354, 0.0003952497050246709, -0.00015794264894632525),
    (7.5, 0.011104559758206917, -0.0014788696295113019, 0.00039367447448157756, -0.00015710438849651591),
    (9.99, 0.00833889679773433, -0.0008341697792110009, 0.0001668350281166566, -5.0034481395970554e-05),
    (10.5, 0.00793411456431402, -0.0007551752467436927, 0.00014371342874124567, -4.1011864603194335e-05),
    (12.5, 0.006665247032707682, -0.0005329930333433917, 8.522460157837045e-05, -2.043658578824079e-05),
    (30.0, 0.0027776749297526936, -9.258230996383218e-05, 6.171468851055325e-06, -6.170555804516959e-07),
    (1000.0, 8.333333055555635e-05, -8.333332500000397e-08, 1.6666663333335714e-10, -4.999998333335e-13),
    (100000.0, 8.333333333305556e-07, -8.33333333325e-12, 1.6666666666333332e-16, -4.999999999833333e-21),
    (1000000000.0, 8.333333333333333e-11, -8.333333333333334e-20, 1.6666666666666667e-28, -5e-37),
]  # fmt: skip


def check_remainder(function, order):
    """In units of the term before it in Stirling's formula, (n - 1)! / (2 x^n); far out, of itself."""
    x, exact = (np.array(REMAINDERS)[:, column].copy() for column in (0, 1 + order))
    before = np.maximum(1, np.abs(np.log(x))) if order == 0 else 0.5 * math.factorial(order - 1) / x**order
    found = function(x, order)
    assert_close(found, exact, 64, "the remainder", before)
    assert_close(found[x > 13], exact[x > 13], 64, "the remainder", np.abs(exact)[x > 13])
    single = function(x.astype(np.float32), order)
    fits = (np.abs(exact) > 1e-37) & (np.abs(exact) < 1e38) & (x.astype(np.float32) == x)
    assert_close(single[fits], exact[fits], 1, "in float32", np.abs(exact)[fits])


REMAINDER_ROADS = {"kernel": lambda x, order: cpu.stirling(x, None, order=order),
                   "twin": lambda x, order: TABLE["stirling"].value(CPU, x, None, order=order)}  # fmt: skip


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("road", REMAINDER_ROADS)
def test_the_remainder_keeps_its_digits(road, order):
    check_remainder(REMAINDER_ROADS[road], order)


def test_a_difference_of_large_terms_is_found():
    """What the remainder is for: log Gamma less Stirling's terms has no digit of it at 1e9."""
    def lost(x, order):
        return np.asarray(scipy.special.gammaln(x) - (x - 0.5) * np.log(x) + x - 0.5 * np.log(2 * np.pi), x.dtype)

    with pytest.raises(AssertionError, match="the remainder"):
        check_remainder(lost, 0)
    for order in (1, 2, 3):
        with pytest.raises(AssertionError, match="the remainder"):
            check_remainder(lambda x, order: (1 + 1e-13) * cpu.stirling(x, None, order=order), order)


# ---- launchers and rows --------------------------------------------------------------


def inputs(name, size, dtype, seed=0):
    rng = np.random.default_rng(seed)
    a, b, c = (10 ** rng.uniform(-2, 3, size) for _ in range(3))
    near = a * (1 + 10 ** rng.uniform(-9, 1, size))
    arrays = {"gamma_log_sample_grad": (np.log(rng.gamma(a + 1)) + np.log(rng.random(size)) / a, a),
              "log_ratio": (a, near, np.log(a)), "deviance": (a, near, np.log(near)), "gamma_kl": (a, b, near, c),
              "dirichlet_kl": (a, near)}.get(name, (a,))  # fmt: skip
    attributes = {"polygamma": {"order": 1}, "stirling": {"order": 0}}.get(name, {})
    return [array.astype(dtype) for array in arrays], attributes


LAUNCHERS = ["deviance", "gamma_kl", "gamma_log_sample_grad", "lgamma", "log_ratio", "polygamma", "stirling",
             "student_constant", "student_constant_slope"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers(name, dtype):
    """Any shape; new and given memory, one part and many: the same bits; the inputs stay; each number by itself."""
    launcher = getattr(cpu, name)
    for shape in ((), (0,), (2, 3, 5), (63,), (64,), (65,), (1000,)):
        arrays, attributes = inputs(name, shape, dtype)
        before = [a.copy() for a in arrays]
        found, given_memory = launcher(*arrays, out=None, **attributes), np.full(shape, np.nan, dtype)
        assert (found.dtype, found.shape) == (dtype, shape)
        assert launcher(*arrays, out=given_memory, **attributes) is given_memory
        assert_same_bits(given_memory, found, f"{name} with out=")
        for a, b in zip(arrays, before, strict=True):
            assert_same_bits(a, b, f"{name} changed its input")
    backwards = launcher(*(a[::-1].copy() for a in arrays), out=None, **attributes)
    assert_same_bits(backwards[::-1].copy(), found, f"{name} depends on a number's place")
    for parts in range(2, team.team.most + 1):
        given_memory[...] = np.nan
        run_parts(launcher.bind(*arrays, out=given_memory, **attributes), parts)
        assert_same_bits(given_memory, found, f"{name} in {parts} parts")


def ran(name, *tensors, **attributes):
    """The call that served a row, and its result."""
    with tv.Tape() as tape:
        found = tv.apply(name, *tensors, **attributes)
    return tape.launches[-1].call, found, tape


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_launcher_of_vectors(dtype):
    """As `test_launchers`, of each vector by itself: vectors of any length, the others repeated or not."""
    for shape, other in (((3, 5, 2), (5, 2)), ((100, 3), (3,)), ((7, 130), (7, 130)), ((1, 64), (64,)), ((33, 2),) * 2):
        (a, a0), _ = inputs("dirichlet_kl", shape, dtype)
        a0 = a0.reshape(-1, *other)[0].copy()
        found, given_memory = cpu.dirichlet_kl(a, a0, None), np.full((*shape[:-1], 1), np.nan, dtype)
        assert cpu.dirichlet_kl(a, a0, given_memory) is given_memory
        assert_same_bits(given_memory, found, "with out=")
        alone = [cpu.dirichlet_kl(one.reshape(1, -1), p.copy(), None).item() for one, p in zip(
            a.reshape(-1, shape[-1]), np.broadcast_to(a0, shape).reshape(-1, shape[-1]), strict=True)]
        assert_same_bits(found.reshape(-1), np.array(alone, dtype), "a vector depends on its neighbours")
        for parts in range(2, team.team.most + 1):
            given_memory[...] = np.nan
            run_parts(cpu.dirichlet_kl.bind(a, a0, out=given_memory), parts)
            assert_same_bits(given_memory, found, f"in {parts} parts")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*LAUNCHERS, "dirichlet_kl"])
def test_rows_run_their_kernel_and_replay(name, dtype):
    row, (arrays, attributes) = TABLE[name], inputs(name, (7, 9), dtype)
    call, found, tape = ran(name, *arrays, **attributes)
    assert call is kernel_of(row, CPU)
    with tv.fused(False):
        other, expected, _ = ran(name, *arrays, **attributes)
    assert other is row.value
    assert found.dtype == expected.dtype == dtype
    assert_close(found.data, expected.data, UNITS[dtype], name, np.maximum(1, np.abs(expected.data)))
    for array, fresh in zip(arrays, inputs(name, (7, 9), dtype, seed=1)[0], strict=True):
        array[...] = fresh
    tape.replay()
    assert_same_bits(found.data, tv.apply(name, *arrays, **attributes).data, f"{name} replayed")
    with tv.fused(False):
        place = np.empty_like(found.data)
        row.value(CPU, *arrays, out=place, **attributes)
        assert_same_bits(place, tv.apply(name, *arrays, **attributes).data, f"{name} with out=")


def test_one_shape_for_many_draws():
    """What broadcasts goes to the readable form; no gradient flows from a derivative of this kind."""
    w, a = np.linspace(-2, 1, 12).reshape(3, 4), np.array([0.5, 1.0, 2.0, 4.0])
    call, found, _ = ran("gamma_log_sample_grad", tv.Tensor(w, requires_grad=True), tv.Tensor(a, requires_grad=True))
    assert call is TABLE["gamma_log_sample_grad"].value
    assert not found.requires_grad
    assert_close(found.data, cpu.gamma_log_sample_grad(w, np.tile(a, (3, 1)), None), 64, "broadcast")


def test_the_derivatives_of_lgamma_are_kernels_too():
    """lgamma, digamma, trigamma, ... by `grad`, all without SciPy."""
    x = tv.Tensor(np.array([0.3, 1.5, 20.0]), requires_grad=True)
    with tv.Tape() as tape:
        y = x.lgamma()
        for order in range(4):
            y = tv.grad(y.sum(), x)
            assert_close(y.data, scipy_polygamma(order, x.data), 16, f"order {order}")
    used = {id(launch.call) for launch in tape.launches if launch.rule.name in ("lgamma", "polygamma")}
    assert used == {id(kernel_of(TABLE[name], CPU)) for name in ("lgamma", "polygamma")}


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("fma"), reason="no x86 processor with FMA")
@pytest.mark.parametrize("name", ["_lgamma", "_polygamma", "_gamma_log_sample_grad", "_deviance"])
def test_loops_run_in_vectors(monkeypatch, name):
    """See test_vectorised.py; here the arithmetic is in float64."""
    monkeypatch.setattr(cache, "LOADED", None)
    fresh = compiled.Kernel(getattr(special, name).function, helpers.HELPER["fastmath"]).compiled(np.float32)
    packed = re.findall(r"\bv(?:f?n?m(?:add|sub)\w*|mul|add|sub|div)pd\b.*%[yz]mm", fresh._library.get_asm_str())
    assert len(packed) >= 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_wrong_primitives_are_found(dtype):
    """Stirling's series alone; digits lost at the zeros; a forgotten term; the order before; some units."""
    stirling = lambda x: (x - 0.5) * np.log(x) - x + 0.5 * np.log(2 * np.pi) + 1 / (12 * x)
    faults = [("lgamma", stirling), ("lgamma", lambda x: PRIMITIVES["lgamma"](x + 1) - np.log(x)),
              ("polygamma 0", lambda x: PRIMITIVES["polygamma 0"](x + 1)), ("polygamma 1", lambda x: 1 / x**2),
              ("polygamma 2", lambda x: -PRIMITIVES["polygamma 2"](x)), ("polygamma 3", PRIMITIVES["polygamma 1"]),
              *((name, lambda x, f=f: f(x) * (1 + 8 * np.finfo(dtype).eps)) for name, f in PRIMITIVES.items())]
    for name, wrong in faults:
        with pytest.raises(AssertionError, match=name):
            check_primitive(name, lambda x, wrong=wrong: np.asarray(wrong(x), dtype), dtype)


def test_a_kernel_that_is_not_used_is_found(monkeypatch):
    make_wrong(monkeypatch, "lgamma", kernel=None)
    with pytest.raises(AssertionError):
        test_rows_run_their_kernel_and_replay("lgamma", np.float64)
