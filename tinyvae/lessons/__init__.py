"""The article's chapters as tables and pictures."""
