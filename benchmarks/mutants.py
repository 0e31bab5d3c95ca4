"""Mutants of a source file: the same program with one point changed, such as a comparison, a sign, or a missing call.

A test suite that lets a mutant pass would not notice the same mistake in the program. Docstrings, annotations, imports,
assertions (which tell the type checker what is known) and messages (what is raised, warned or printed, and strings with
values in them) have no mutants.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
MESSAGES = "warn", "print", "warn_explicit"  # functions whose arguments are words for people
FIXED = "isinstance", "issubclass", "getattr", "hasattr", "setattr"  # the order of their arguments is no choice


@dataclass(frozen=True)
class Mutant:
    """A changed place. `name` stays the same when other lines of the file come and go."""

    file: str
    function: str  # in which it is, with its class; "" outside
    line: int
    kind: str
    before: str
    after: str
    number: int  # among the mutants of this file that are the same otherwise
    place: tuple[int, int]  # the bytes of the file that are replaced

    @property
    def name(self) -> str:
        number = f" ({self.number})" if self.number > 1 else ""
        return f"{self.file}, {self.function or 'module'}, {self.kind}: {self.before} -> {self.after}{number}"

    def apply(self, source: bytes) -> bytes:
        """The source with this change."""
        begin, end = self.place
        return source[:begin] + self.after.encode() + source[end:]


def mutants_of(file: str, source: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    starts, counts = [0], dict[tuple[str, ...], int]()
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for function, kind, node, after in sorted(_changes(ast.parse(source)), key=lambda change: _position(change[2])):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = source.encode()[begin:end].decode()
        key = function, kind, before, after
        counts[key] = counts.get(key, 0) + 1
        found.append(Mutant(file, function, node.lineno, kind, before, after, counts[key], (begin, end)))
    return found


def _position(node: Any) -> tuple[int, int]:
    return node.lineno, node.col_offset


Change = tuple[str, str, Any, str]  # the function, the kind, the replaced node, and the new text


def _changes(tree: ast.Module) -> Iterator[Change]:
    finder = _Finder()
    finder.visit(tree)
    yield from finder.found


class _Finder(ast.NodeVisitor):
    """Collects the changes of a tree."""

    def __init__(self) -> None:
        self.found: list[Change] = []
        self._inside: list[str] = []

    def _note(self, kind: str, node: ast.AST, text: str) -> None:
        self.found.append((".".join(self._inside), kind, node, text))

    def _expression(self, kind: str, node: ast.expr, changed: ast.expr) -> None:
        self._note(kind, node, f"({ast.unparse(changed)})")

    # ---- what has no mutants ----

    def visit_Import(self, node: ast.Import) -> None:
        pass

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope(node, [*node.decorator_list, *(keyword.value for keyword in node.keywords), *node.body])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        defaults = [default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None]
        self._scope(node, [*node.decorator_list, *defaults, *node.body])

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self.visit(node.body)

    def _scope(self, node: ast.ClassDef | ast.FunctionDef, parts: list[Any]) -> None:
        self._inside.append(node.name)
        for part in parts:
            self.visit(part)
        self._inside.pop()

    # ---- statements ----

    def visit_Raise(self, node: ast.Raise) -> None:
        self._note("deleted", node, "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._note("deleted", node, "pass")
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(target, (ast.Name, ast.Tuple)) for target in node.targets):  # it would be a NameError
            self._note("deleted", node, "pass")
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._note("deleted", node, "pass")
        if other := OPERATORS.get(type(node.op)):
            self._note("operator", node, ast.unparse(ast.AugAssign(node.target, other(), node.value)))
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._note("returned None", node, "return None")
            self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        self._note("loop", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._note("loop", node, "break")

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        self._condition(node)

    def _condition(self, node: Any) -> None:
        """A condition turned round, if that is no mutant of the comparison or the `not` in it."""
        if not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
            self._expression("condition", node.test, ast.UnaryOp(ast.Not(), node.test))
        self.generic_visit(node)

    visit_While = visit_IfExp = _condition

    # ---- expressions ----

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, before in enumerate(node.ops):
            for other in COMPARED[type(before)]:
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                self._expression("comparison", node, ast.Compare(node.left, ops, node.comparators))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        union = isinstance(node.op, ast.BitOr) and not self._inside  # of types, outside of functions
        if (other := OPERATORS.get(type(node.op))) and not union:
            self._expression("operator", node, ast.BinOp(node.left, other(), node.right))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._expression("and, or", node, ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub)):
            self._expression("negation" if isinstance(node.op, ast.Not) else "sign", node, node.operand)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in MESSAGES:
            return
        if len(node.args) > 1 and name not in FIXED and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
            first, second, *rest = node.args
            if ast.unparse(first) != ast.unparse(second):
                self._expression("swapped", node, ast.Call(node.func, [second, first, *rest], node.keywords))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._note("constant", node, str(not node.value))
        elif isinstance(node.value, (int, float)):
            self._note("constant", node, repr(node.value + 1))
