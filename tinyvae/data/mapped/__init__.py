"""Rows that lie in files and are read where they are used."""
