"""Exercises: a wrong answer is told what is wrong, a right one is told so, and a wrong solution stops the chapter."""

import pytest

from tinyvae.lessons.book import exercise


def square(answer):
    @exercise("A square")
    def made(x):
        return answer(x)

    @made.check
    def _(found):
        if found(3.0) != 9.0:  # not `assert`, to whose message pytest would add
            raise AssertionError("the square of 3 is 9")

    return made


def test_an_answer_is_told_what_is_wrong(capsys):
    made = square(lambda x: 0.0)
    assert capsys.readouterr().out == "Exercise “A square”: not solved yet.\nthe square of 3 is 9\n"
    assert made.wrong_with(lambda x: x * x) == ""
    assert made.wrong_with(lambda x: 1 / 0) == "The check fails with ZeroDivisionError: division by zero"
    assert made(5.0) == 0.0


def test_a_forgotten_return_is_named():
    made = exercise("A square")(lambda x: None)

    @made.check
    def _(found):
        if (value := found(3.0)) != 9.0:
            raise AssertionError(f"9 was expected, found {value:.1f}")

    told = "Your function returns nothing (None); does it end with `return`?"
    assert made.wrong_with(made.answer) == told
    assert made.wrong_with(lambda x: 8.0) == "9 was expected, found 8.0"


def test_a_kept_solution_is_not_taken_for_the_answer(capsys):
    square(lambda x: 0.0).solution(lambda x: x * x)
    assert capsys.readouterr().out.endswith("\n(The kept solution passes the check.)\n")


def test_a_check_without_words_fails_too():
    made = exercise("Nothing")(lambda: 0)

    @made.check
    def _(found):
        if found() != 1:
            raise AssertionError

    assert made.wrong_with(made.answer).startswith("The check fails with AssertionError")


def test_a_right_answer_is_told_so(capsys):
    square(lambda x: x * x)
    assert capsys.readouterr().out == "Exercise “A square”: solved.\n"


def test_a_solution_has_to_pass():
    made = square(lambda x: 0.0)
    with pytest.raises(AssertionError, match="does not pass its check: the square of 3 is 9"):
        made.solution(lambda x: 2 * x)
    assert made.solution(lambda x: x * x)(3.0) == 9.0


def test_a_solution_comes_after_the_check():
    with pytest.raises(ValueError, match="without a check"):
        exercise("A square")(lambda x: x).solution(lambda x: x)
