"""Mutants: one point of a program is changed, and nothing of what is written for people."""

import ast

import pytest

pytest.importorskip("benchmarks", reason="optional: benchmarks/ is not here, only the tests")
from benchmarks.mutants import mutants_of


@pytest.mark.parametrize(("source", "expected"), [
    ("x = a < b", ["(a <= b)", "(a >= b)"]), ("x = a == b", ["(a != b)"]), ("x = a is b", ["(a is not b)"]),
    ("x = a in b", ["(a not in b)"]), ("x = 0 < a", ["(0 <= a)", "(0 >= a)", "1"]),
    ("x = a < b < c", ["(a <= b < c)", "(a >= b < c)", "(a < b <= c)", "(a < b >= c)"]),
    ("x = a + b", ["(a - b)"]), ("x = a * b", ["(a / b)"]), ("x = a // b", ["(a * b)"]), ("x = a ** b", ["(a * b)"]),
    ("x = -a", ["(a)"]), ("x = not a", ["(a)"]), ("x = a and b", ["(a or b)"]), ("x = 3", ["4"]), ("x = 0.5", ["1.5"]),
    ("x = True", ["False"]), ("x += a", ["pass", "x -= a"]), ("x.y = a", ["pass"]), ("x, y = a", []), ("x = a", []),
    ("f(a)", ["pass"]), ("f(a, b, *c)", ["pass", "(f(b, a, *c))"]), ("x = f(a, a)", []), ("x = f(*a, b)", []),
    ("x = isinstance(a, b)", []), ("if a: f", ["(not a)"]), ("if not a: f", ["(a)"]), ("while a: break", ["(not a)",
                                                                                                     "continue"]),
    ("x = a if b else c", ["(not b)"]), ("def f(): return a", ["return None"]), ("def f(): return None", []),
    ("def f(a: int | None = 3) -> list[4]: pass", ["4"]), ("x: Literal[3] = a", []),
    ("x = lambda a=1: -a", ["2", "(a)"]),
    ("raise A(1, 2)", ["pass"]), ("warn(1, 2)", ["pass"]), ("x = f'{1 + 2}'", []), ("'''1 + 2'''", []),
    ("A = int | None", []), ("if TYPE_CHECKING: f(1)", []), ("import a", []), ("from a import b", []),
    ("@f(1)\nclass A(B, kind=2): x = 3", ["2", "3", "4"]), ("assert a < b", []),
])  # fmt: skip
def test_changes(source, expected):
    found = mutants_of("a.py", source)
    assert [mutant.after for mutant in found] == expected
    for mutant in found:
        ast.parse(mutant.apply(source.encode()))


def test_a_mutant_replaces_its_place_alone():
    """Also beside letters of several bytes, over several lines, and without other changes of the file."""
    source = 'x = "µ", a + b  # µ\ny = f(a,\n      b)\n'
    first, second = mutants_of("a.py", source)
    assert first.apply(source.encode()).decode() == 'x = "µ", (a - b)  # µ\ny = f(a,\n      b)\n'
    assert second.apply(source.encode()).decode() == 'x = "µ", a + b  # µ\ny = (f(b, a))\n'
    assert (second.line, second.before) == (2, "f(a,\n      b)")


def test_names_stay_when_lines_move():
    """And tell mutants of one function apart."""
    source = "class A:\n    def f(self):\n        return self.x + 1, self.x + 1\n"
    names = [mutant.name for mutant in mutants_of("a.py", source)]
    assert len(set(names)) == len(names) == 5
    assert names[1] == "a.py, A.f, operator: self.x + 1 -> (self.x - 1)"
    assert names[3] == f"{names[1]} (2)"
    assert [mutant.name for mutant in mutants_of("a.py", f"# a comment\n\n{source}")] == names
