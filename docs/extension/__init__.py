"""What the site needs beyond Sphinx: quoted lines, pages of code, the sources, the reference, notebooks, keys."""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    # here, for the tests use quotes.py and citations.py without Sphinx
    from extension import access, bibliography, notebooks, reference, sources

    for part in (sources, bibliography, reference, notebooks, access):
        part.register(app)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
