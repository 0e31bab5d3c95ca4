"""A small language for f(z), the function whose expectation a lesson takes: `parse("z**2 * (z > 1)")`.

    comparison := sum [("<" | "<=" | ">" | ">=") sum]      0 or 1
    sum        := product {("+" | "-") product}
    product    := signed {("*" | "/") signed}
    signed     := "-" signed | power
    power      := atom ["**" signed]
    atom       := number | "z" | function "(" comparison {"," comparison} ")" | "(" comparison ")"

It means what it means in Python. The text is taken apart by these rules alone and never given to Python, so a text
from anywhere can do nothing but arithmetic. Functions are the rows of rules.py, called as methods of their argument:
`log(z)` is `z.log()`, so a tensor that keeps an exact logarithm gives that.

Parts without z are worked out once, in float64, and must be finite: 9**9**9 is refused.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import numpy as np

from tinyvae.engine.devices import namespace_of
from tinyvae.engine.tensor import Tensor

LONGEST = 400  # characters
DEEPEST = 40  # brackets, signs and powers within one another

Part = float | Callable[[Tensor], Tensor]  # what a piece of text means: a number, or a function of z

FUNCTIONS = {  # how many arguments each takes
    **dict.fromkeys(("exp", "log", "log1p", "expm1", "sqrt", "tanh", "sigmoid", "softplus", "abs", "relu", "sign",
                     "lgamma", "erf"), 1), "maximum": 2, "minimum": 2}  # fmt: skip
EDGED = ("abs", "relu", "sign", "maximum", "minimum")
COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SUMS = {"+": operator.add, "-": operator.sub}
PRODUCTS = {"*": operator.mul, "/": operator.truediv}

TOKEN = re.compile(r"[ \t]*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
                   r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<mark>\*\*|<=|>=|[-+*/(),<>])|(?P<end>\Z)|(?P<other>.))",
                   re.DOTALL)
OPERATOR = f"one of {' '.join([*SUMS, *PRODUCTS, '**', *COMPARISONS])}"
OPERAND = f"z, a number, a bracket, or a function: {', '.join(FUNCTIONS)}"


def _called(name: str, *arguments: Any) -> Tensor:
    """The function as a method of its argument; of two, of the one which is a tensor."""
    first, *rest = sorted(arguments, key=lambda argument: not isinstance(argument, Tensor))
    return abs(first) if name == "abs" else getattr(first, name)(*rest)


@dataclass(frozen=True)
class Expression:
    """f(z) for tensors of any shape, elementwise.

    Attributes
    ----------
    text : what it was parsed from.
    differentiable : is its derivative all there is to its change? False where a comparison or a sign jumps, for a
        gradient through z does not see a jump. (A kink, as of abs, does no harm.)
    edges : functions of z; where one of them changes its sign, f may jump or have a kink.
    """

    text: str
    differentiable: bool
    part: Part = field(repr=False, compare=False)
    edges: tuple[Callable[[Tensor], Tensor], ...] = field(repr=False, compare=False)

    def __call__(self, z: Tensor) -> Tensor:
        if callable(self.part):
            return self.part(z)
        return Tensor(namespace_of(z.data).full(z.shape, self.part, z.dtype))  # no z in it

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Expression:
    """The function of z that `text` describes; ValueError names the place and the choices.

    >>> parse("z**2 + 1")(Tensor(np.array([3.0]))).numpy()
    array([10.])
    """
    if len(text) > LONGEST:
        raise ValueError(f"found an expression of {len(text)} characters; expected {LONGEST} at most")
    parser = _Parser(text)
    part = parser.comparison()
    if parser.kind != "end":
        parser.refuse(f"the end, or {OPERATOR}")
    return Expression(text, parser.differentiable, part, tuple(parser.edges))


class _Parser:
    """One method a rule of the grammar; each leaves the parser at the first token that it does not understand."""

    def __init__(self, text: str) -> None:
        self.text, self.next, self.depth, self.differentiable = text, 0, 0, True
        self.edges: list[Callable[[Tensor], Tensor]] = []
        self.advance()

    def advance(self) -> None:
        """Read a token: its kind, its text, and where it begins."""
        match = TOKEN.match(self.text, self.next)
        assert match is not None, "the last choice of TOKEN matches anything"
        self.kind = str(match.lastgroup)
        self.token, self.place, self.next = match[self.kind], match.start(self.kind), match.end()

    def take(self, *marks: str) -> str | None:
        """The mark that stands here, if it is one of these; the parser then stands behind it."""
        if self.kind != "mark" or self.token not in marks:
            return None
        mark = self.token
        self.advance()
        return mark

    def refuse(self, expected: str, place: int | None = None, found: str | None = None) -> NoReturn:
        found = found or (repr(self.token) if self.token else "nothing more")
        at = self.place if place is None else place
        around = self.text if len(self.text) <= 60 else f"...{self.text[max(0, at - 25) : at + 25]}..."
        raise ValueError(f"found {found} at place {at + 1} of {around!r}; expected {expected}")

    # ---- the grammar -------------------------------------------------------------------------------------------------

    def comparison(self) -> Part:
        start, left = self.place, self.sum()
        if mark := self.take(*COMPARISONS):
            compare = COMPARISONS[mark]
            left = self.join(start, lambda a, b: _zero_or_one(compare, a, b), left, self.sum(), edge=True, jump=True)
            if self.kind == "mark" and self.token in COMPARISONS:
                self.refuse("one comparison in a bracket; two are a product: (z > 0) * (z < 1)")
        return left

    def sum(self) -> Part:
        return self.chain(SUMS, self.product)

    def product(self) -> Part:
        return self.chain(PRODUCTS, self.signed)

    def chain(self, marks: dict[str, Callable], operand: Callable[[], Part]) -> Part:
        """Operands between marks of one rank, from left to right."""
        start, left = self.place, operand()
        while mark := self.take(*marks):
            left = self.join(start, marks[mark], left, operand())
        return left

    def signed(self) -> Part:
        self.depth += 1  # here everything passes that can be nested
        if self.depth > DEEPEST:
            self.refuse(f"brackets, signs and powers at most {DEEPEST} deep")
        start = self.place
        part = self.join(start, operator.neg, self.signed()) if self.take("-") else self.power()
        self.depth -= 1
        return part

    def power(self) -> Part:
        start, base = self.place, self.atom()
        if not self.take("**"):
            return base
        exponent = self.signed()
        # z**0 and z**1 are no powers: the rule of the derivative, b a^(b-1), would give 0 * inf at z = 0
        return 1.0 if exponent == 0 else base if exponent == 1 else self.join(start, operator.pow, base, exponent)

    def atom(self) -> Part:
        start, kind, token = self.place, self.kind, self.token
        if kind == "number":
            self.advance()
            return self.finite(start, float(token))
        if kind == "name":
            if token != "z" and token not in FUNCTIONS:
                self.refuse(OPERAND)
            self.advance()
            return _z if token == "z" else self.call(start, token)
        if not self.take("("):
            self.refuse(OPERAND)
        part = self.comparison()
        self.close()
        return part

    def call(self, start: int, name: str) -> Part:
        count = FUNCTIONS[name]
        if not self.take("("):
            self.refuse(f"a bracket after {name}")
        arguments = [self.comparison()]
        while self.take(","):
            arguments.append(self.comparison())
        if len(arguments) != count:
            self.refuse(f"{count}", start, f"{name} with {len(arguments)} argument{'s' * (len(arguments) > 1)}")
        self.close()
        return self.join(start, partial(_called, name), *arguments, edge=name in EDGED, jump=name == "sign")

    def close(self) -> None:
        if not self.take(")"):
            self.refuse(f"a closing bracket, or {OPERATOR}")

    # ---- meaning -----------------------------------------------------------------------------------------------------

    def join(self, start: int, function: Callable[..., Any], *parts: Part, edge: bool = False,
             jump: bool = False) -> Part:
        """`function` of parts; worked out at once if z is in none of them. It may have an edge where the one part is 0
        or the two are equal, and there it may jump."""
        if not any(callable(part) for part in parts):
            with np.errstate(all="ignore"):
                result = function(*(Tensor(np.array(part)) for part in parts))
            return self.finite(start, float(result.data))
        self.differentiable &= not jump
        if edge:
            self.edges.append(_bind(operator.sub if len(parts) == 2 else _z, parts))
        return _bind(function, parts)

    def finite(self, start: int, number: float) -> float:
        if not math.isfinite(number):
            end = self.place if self.token else len(self.text)
            self.refuse("a finite number", start, f"{self.text[start:end].strip()[:40]!r}, which is {number},")
        return number


def _bind(function: Callable[..., Any], parts: tuple[Part, ...]) -> Callable[[Tensor], Tensor]:
    return lambda z: function(*[part(z) if callable(part) else part for part in parts])


def _z(z: Tensor) -> Tensor:
    return z


def _zero_or_one(compare: Callable[[Any, Any], Any], a: Any, b: Any) -> Tensor:
    return compare(a, b).cast((a if isinstance(a, Tensor) else b).dtype)
