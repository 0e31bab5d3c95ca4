"""Exercises of the book: a stub for the reader's answer, a check, and a solution that is kept.

    @exercise("The square of a number")
    def square(x):
        return 0.0  # your answer

    @square.check
    def _(answer):
        assert answer(3.0) == 9.0, "the square of 3 is 9"

    @square.solution
    def _(x):
        return x * x

The check gets the function. It runs on the reader's answer when it is defined, and says whether the exercise is solved;
then it runs on the solution, which has to pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


class Exercise:
    """An exercise by its title. `answer`, `checks` and `solved` are the three functions, as far as they are there."""

    def __init__(self, title: str, answer: Function) -> None:
        self.title, self.answer = title, answer
        self.checks: Function | None = None
        self.solved: Function | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The reader's answer, so that the chapter's other cells can use it."""
        return self.answer(*arguments, **named)

    def check(self, checks: Function) -> Function:
        self.checks = checks
        wrong = self.wrong_with(self.answer)
        print(f"Exercise “{self.title}”: " + (f"not solved yet.\n{wrong}" if wrong else "solved."))
        return checks

    def solution(self, solved: Function) -> Function:
        self.solved = solved
        if wrong := self.wrong_with(solved):
            raise AssertionError(f"the solution of “{self.title}” does not pass its check: {wrong}")
        print("(The kept solution passes the check.)")
        return solved

    def wrong_with(self, answer: Function) -> str:
        """What the check says against a function; nothing if it passes."""
        if self.checks is None:
            raise ValueError(f"found the exercise “{self.title}” without a check; define one with @NAME.check first")
        nothing = False

        def watched(*arguments: Any, **named: Any) -> Any:
            nonlocal nothing
            found = answer(*arguments, **named)
            nothing |= found is None
            return found

        try:
            self.checks(watched)
        except Exception as wrong:  # an answer may go wrong in any way
            if nothing:
                return "Your function returns nothing (None); does it end with `return`?"
            told = isinstance(wrong, AssertionError) and str(wrong)
            return told or f"The check fails with {type(wrong).__name__}: {wrong}"
        return ""


def exercise(title: str) -> Callable[[Function], Exercise]:
    """Makes the function below it the stub of an exercise."""
    return lambda answer: Exercise(title, answer)
