"""What the chapters of the book in docs/book/ are made with: pictures in a cell, and exercises that check an answer."""

from tinyvae.lessons.book.exercises import Exercise, exercise
from tinyvae.lessons.book.pictures import drawn, embedded, show

__all__ = ["Exercise", "drawn", "embedded", "exercise", "show"]
