"""The formats of files that hold images or tables: one file a format, each registered by the bytes with which its files
begin.

Every module of this folder is imported, so a new file is at once a format that `read` knows. Loading never runs code:
pickled objects are refused. Every failure is a DataError of one or two sentences: what was found, what was expected,
and what to do.
"""

from importlib import import_module
from pkgutil import iter_modules

from tinyvae.data.formats.folder import read
from tinyvae.data.formats.registry import Arrays, Stored, expected
from tinyvae.data.formats.table import Table, frame_table

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Arrays", "Stored", "Table", "expected", "frame_table", "read"]
