"""The article's chapters as tables and pictures; `book` is what the chapters in docs/book/ are made with."""
