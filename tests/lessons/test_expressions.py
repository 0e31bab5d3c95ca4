"""The language of f(z): it means what NumPy means, nothing else is accepted, and a mistake gets its place."""

import ast
import re

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support import make_wrong

import tinyvae as tv
from tinyvae.lessons import expressions
from tinyvae.lessons.expressions import DEEPEST, FUNCTIONS, LONGEST, parse

Z = np.array([-2.5, -1.0, -0.3, 0.0, 0.3, 1.0, 2.5])
UNARY = {"exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt, "tanh": np.tanh,
         "abs": np.abs, "sign": np.sign, "relu": lambda a: np.maximum(a, 0)}  # fmt: skip
for name in ("sigmoid", "softplus", "lgamma", "erf"):  # NumPy has none of these; test_rules.py holds them against SciPy
    UNARY[name] = lambda a, name=name: tv.apply(name, a).numpy()
BINARY = {"maximum": np.maximum, "minimum": np.minimum}
OPERATORS = {"+": (np.add, 1), "-": (np.subtract, 1), "*": (np.multiply, 2), "/": (np.divide, 2), "**": (np.power, 4),
             "<": (np.less, 0), "<=": (np.less_equal, 0), ">": (np.greater, 0), ">=": (np.greater_equal, 0)}


class Tree:
    """An expression with its value by NumPy and the rank of its outermost operator: 5 stands by itself."""

    def __init__(self, text, rank, value):
        self.text, self.rank, self.value = text, rank, value

    def inside(self, rank):
        """The text where an operator of this rank stands outside, with brackets only where they must be."""
        return self.text if self.rank >= rank else f"({self.text})"


def leaf(number):
    return Tree("z" if number is None else str(number), 5,
                lambda z: z if number is None else np.full(z.shape, float(number)))


def negative(a):
    return Tree(f"-{a.inside(3)}", 3, lambda z: -a.value(z))


def called(name, *parts):
    function = UNARY[name] if len(parts) == 1 else BINARY[name]
    return Tree(f"{name}({', '.join(part.text for part in parts)})", 5,
                lambda z: np.asarray(function(*(part.value(z) for part in parts)), float))


def joined(mark, a, b):
    function, rank = OPERATORS[mark]
    # to the left: the same rank needs no brackets; a power is taken from the right, and -1 may stand in its exponent
    left, right = (5, 3) if mark == "**" else (1, 1) if rank == 0 else (rank, rank + 1)
    return Tree(f"{a.inside(left)} {mark} {b.inside(right)}", rank,
                lambda z: np.asarray(function(a.value(z), b.value(z)), float))


TREES = st.recursive(
    st.one_of(st.none(), st.integers(0, 5), st.sampled_from(["0.5", ".25", "1.", "2e0", "1.5E-1"])).map(leaf),
    lambda below: st.one_of(
        below.map(negative), st.builds(called, st.sampled_from(list(UNARY)), below),
        st.builds(called, st.sampled_from(list(BINARY)), below, below),
        st.builds(joined, st.sampled_from(list(OPERATORS)), below, below)),
    max_leaves=8)  # fmt: skip


def assert_as_numpy(tree):
    try:
        f = parse(tree.text)
    except ValueError as fault:
        assume("is inf" not in str(fault) and "is nan" not in str(fault) and "is -inf" not in str(fault))
        assume("deep" not in str(fault) and "characters" not in str(fault))
        raise
    with np.errstate(all="ignore"):
        found, expected = f(tv.Tensor(Z)).numpy(), tree.value(Z)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300, err_msg=tree.text)
    assert found.dtype == np.float64


@given(TREES)
@example(joined("**", negative(leaf(None)), leaf(2)))  # (-z)**2
@example(negative(joined("**", leaf(None), leaf(2))))  # -z**2
@example(joined("**", leaf(2), joined("**", leaf(None), leaf(2))))
@example(joined("**", leaf(2), negative(leaf(None))))
@example(joined("-", leaf(None), joined("-", leaf(1), leaf(None))))
@example(joined("/", joined("*", leaf(2), leaf(None)), leaf(4)))
@example(joined(">", leaf(None), leaf(1)))
@example(leaf(3))
def test_it_means_what_numpy_means(tree):
    assert_as_numpy(tree)


def left_power(self):
    """A wrong rule: 2**3**2 as (2**3)**2, and -z**2 as (-z)**2."""
    start, base = self.place, self.atom()
    while self.take("**"):
        base = self.join(start, expressions.operator.pow, base, self.signed())
    return base


def tight_minus(self):
    """A wrong rule: the sign before the power."""
    start = self.place
    if not self.take("-"):
        return self.power()
    base = self.join(start, expressions.operator.neg, self.atom())
    return self.join(start, expressions.operator.pow, base, self.signed()) if self.take("**") else base


def right_chain(self, marks, operand):
    """A wrong rule: a - b - c as a - (b - c)."""
    start, left = self.place, operand()
    mark = self.take(*marks)
    return self.join(start, marks[mark], left, right_chain(self, marks, operand)) if mark else left


@pytest.mark.parametrize(("method", "wrong", "tree"), [
    ("signed", tight_minus, negative(joined("**", leaf(None), leaf(2)))),
    ("chain", right_chain, joined("-", joined("-", leaf(None), leaf(1)), leaf(None))),
])  # fmt: skip
def test_a_wrong_grammar_is_noticed(method, wrong, tree, monkeypatch):
    assert_as_numpy(tree)
    monkeypatch.setattr(expressions._Parser, method, wrong)
    with pytest.raises(AssertionError):
        assert_as_numpy(tree)


def test_a_power_is_taken_from_the_right(monkeypatch):
    assert parse("2**3**2 + 0*z")(tv.Tensor(Z)).numpy()[0] == 512
    monkeypatch.setattr(expressions._Parser, "signed", lambda self: self.atom())
    monkeypatch.setattr(expressions._Parser, "power", left_power)
    monkeypatch.setattr(expressions._Parser, "product", lambda self: self.chain(expressions.PRODUCTS, self.power))
    assert parse("2**3**2 + 0*z")(tv.Tensor(Z)).numpy()[0] == 64


def test_a_wrong_row_is_noticed(monkeypatch):
    make_wrong(monkeypatch, "log1p", value=lambda xp, a, out: xp.log(a, out=out))
    with pytest.raises(AssertionError):
        assert_as_numpy(called("log1p", leaf(None)))


# ---- nothing else ----------------------------------------------------------------------------------------------------

NODES = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.Constant,
         ast.Name, ast.Load, ast.Call, ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE)  # fmt: skip


def assert_only_the_grammar(text):
    """By Python's own parser: what was accepted consists of nothing but arithmetic."""
    for node in ast.walk(ast.parse(text.strip(" \t"), mode="eval")):
        assert isinstance(node, NODES), f"{text!r} has a {type(node).__name__}"
        assert not isinstance(node, ast.Constant) or type(node.value) in (int, float), text
        assert not isinstance(node, ast.Name) or node.id in ("z", *FUNCTIONS), text
        assert not isinstance(node, ast.Call) or not node.keywords, text
        assert not isinstance(node, ast.Compare) or len(node.ops) == 1, text


INSIDE = ["z", "1", "2.5", "1e3", ".5", "+", "-", "*", "/", "**", "(", ")", "<", ">=", ",", " ", "\t", "exp", "log",
          "maximum"]  # fmt: skip
OUTSIDE = ["=", "==", "[", "]", ".", "_", "x", "lambda", ":", "if", "else", "'", '"', "\n", "{", "}", "and", "not", "@",
           "%", "//", "~", "&", "0x1", "1j", "\uff5a", "é", "\0", "#", ";", "import", "True", "f''", "__class__",
           "?"]  # fmt: skip


@given(st.one_of(st.lists(st.sampled_from(INSIDE + OUTSIDE), max_size=10).map("".join),
                 st.lists(st.sampled_from(INSIDE), max_size=10).map("".join), st.text(max_size=30)))
@settings(max_examples=100)
@example("z**-2")
@example("(z)(z)")
@example("z--z")
@example("exp (z)")
def test_nothing_but_the_grammar_is_accepted(text):
    try:
        parse(text)
    except ValueError as fault:
        message = str(fault)
    else:
        message = ""
    if message:
        assert re.match(r"found .*expected", message)
        assert len(message) < 400
        return
    assume(not re.search(r"(?<![0-9.eE])0[0-9]", text))  # Python has a law against 007
    assert_only_the_grammar(text)


def test_what_is_not_arithmetic_is_found():
    for text in ("z.real", "x", "lambda: z", "z[0]", "f'{z}'", "exp(z, out=z)", "1j", "z < 1 < 2", "z if z else z"):
        with pytest.raises(AssertionError):
            assert_only_the_grammar(text)


@pytest.mark.parametrize(("text", "place", "found", "choice"), [
    ("", 1, "nothing more", "log"),
    ("x**2", 1, "'x'", "expected z"),
    ("z**2 + sin(z)", 8, "'sin'", "tanh"),
    ("z.real", 2, "'.'", "+ - * /"),
    ("z = 1", 3, "'='", "<="),
    ("__import__('os').system('ls')", 1, "'__import__'", "expected z"),
    ("lambda z: z", 1, "'lambda'", "expected z"),
    ("f'{z}'", 1, "'f'", "expected z"),
    ("z[0]", 2, "'['", "the end"),
    ("(z + 1", 7, "nothing more", "closing bracket"),
    ("z + 1)", 6, "')'", "the end"),
    ("2z", 2, "'z'", "the end"),
    ("z z", 3, "'z'", "the end"),
    ("exp", 4, "nothing more", "a bracket after exp"),
    ("exp()", 5, "')'", "expected z"),
    ("exp(z, z)", 1, "exp with 2 arguments", "expected 1"),
    ("maximum(z)", 1, "maximum with 1 argument", "expected 2"),
    ("0 < z < 1", 7, "'<'", "(z > 0) * (z < 1)"),
    ("1 + 9**9**9", 5, "'9**9**9', which is inf", "finite"),
    ("1/0 + z", 1, "'1/0', which is inf", "finite"),
    ("z + log(0 - 1)", 5, "'log(0 - 1)', which is nan", "finite"),
    ("1e999", 1, "'1e999', which is inf", "finite"),
    ("z\n", 2, r"'\n'", "the end"),
    ("z + é", 5, "'é'", "expected z"),
    ("True", 1, "'True'", "expected z"),
    ("z**" * 60 + "z", 3 * DEEPEST + 1, "'z'", f"at most {DEEPEST} deep"),
    ("(" * 60 + "z" + ")" * 60, DEEPEST + 1, "'('", f"at most {DEEPEST} deep"),
    ("-" * 60 + "z", DEEPEST + 1, "'-'", f"at most {DEEPEST} deep"),
])  # fmt: skip
def test_a_mistake_gets_its_place_and_the_choices(text, place, found, choice):
    with pytest.raises(ValueError, match="found") as caught:
        parse(text)
    message = str(caught.value)
    assert f"found {found}" in message
    assert f"at place {place} of" in message
    assert choice in message
    assert "\n" not in message
    assert len(message) < 300


def test_limits():
    longest = "+".join(["z"] * (LONGEST // 2))
    np.testing.assert_allclose(parse(longest)(tv.Tensor(Z)).numpy(), Z * (LONGEST // 2), rtol=1e-12)
    with pytest.raises(ValueError, match=f"{LONGEST + 1} characters; expected {LONGEST} at most"):
        parse(longest + "+z")
    with pytest.raises(ValueError, match="which is inf"):
        parse("9" * LONGEST)
    deepest = "(" * (DEEPEST - 1) + "z" + ")" * (DEEPEST - 1)
    np.testing.assert_array_equal(parse(deepest)(tv.Tensor(Z)).numpy(), Z)


# ---- as a function of tensors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "smooth", "edges"), [
    ("z**2 * exp(-z)", True, 0), ("z > 1", False, 1), ("(z > 0) * (z <= 1)", False, 2), ("sign(z) * z", False, 1),
    ("abs(z) + relu(z) - maximum(z, 1)", True, 3), ("(1 < 2) * z + sign(3) * maximum(1, 2)", True, 0),
])  # fmt: skip
def test_jumps_and_kinks_are_known(text, smooth, edges):
    f = parse(text)
    assert f.differentiable is smooth
    assert len(f.edges) == edges
    assert str(f) == f.text == text


def test_edges_change_their_sign_where_f_jumps():
    f = parse("(z**2 > 2) - (0.5 >= z)")
    z = np.linspace(-3, 3, 6001)
    jumps = np.flatnonzero(np.diff(f(tv.Tensor(z)).numpy()))
    sides = np.array([edge(tv.Tensor(z)).numpy() > 0 for edge in f.edges])
    changes = np.flatnonzero(np.diff(sides, axis=1).any(0))
    np.testing.assert_allclose(z[jumps], z[changes], atol=0.0021)
    assert len(jumps) == 3


@pytest.mark.parametrize("text", ["z**3 - 2*z", "exp(-z**2/2)/3", "log(1 + z**2)", "softplus(z) * sigmoid(-z)", "2**z",
                                  "tanh(z)**2", "1/(1 + z**2)", "lgamma(z**2 + 1)", "erf(z)", "z**0 + z**1"])
def test_derivatives(text):
    tv.testing.check_gradients(parse(text), Z, order=2)


def test_a_part_without_z_has_no_slope():
    z = tv.Tensor(Z, requires_grad=True)
    f = parse("3")
    assert f(z).shape == Z.shape
    np.testing.assert_array_equal(tv.grad((f(z) + 0 * z).sum(), z).numpy(), 0)
    assert parse("2 + 1")(tv.Tensor(Z.astype(np.float32).reshape(1, 7))).numpy().tolist() == [[3.0] * 7]


def test_the_type_and_the_shape_are_those_of_z():
    for text in ("z**2", "z > 0", "maximum(1, z)", "3", "(z > 0) * 2.5 + 1"):
        for dtype in (np.float32, np.float64):
            y = parse(text)(tv.Tensor(np.ones((2, 3), dtype)))
            assert (y.dtype, y.shape) == (dtype, (2, 3)), text


def test_functions_are_methods_of_their_argument():
    """A tensor that keeps its logarithm exactly gives that: log z of a Gamma draw that underflows."""

    class Kept(tv.Tensor):
        __slots__ = ()

        def log(self):
            return tv.Tensor(np.full(self.shape, -1000.0))

    z = Kept(np.zeros(2))
    np.testing.assert_array_equal(parse("log(z)")(z).numpy(), -1000.0)
    np.testing.assert_array_equal(parse("2*log(z) + 1")(z).numpy(), -1999.0)
    with np.errstate(all="ignore"):
        assert not np.isfinite(parse("log(z)")(tv.Tensor(np.zeros(2))).numpy()).any()


def test_every_function_is_tested():
    assert set(FUNCTIONS) == {*UNARY, *BINARY}
