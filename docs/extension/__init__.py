"""What the site needs beyond Sphinx: quoted lines, pages of source files, the reference, notebooks, keys."""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    from extension import access, notebooks, reference, sources  # here, for the tests use quotes.py without Sphinx

    for part in (sources, reference, notebooks, access):
        part.register(app)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
