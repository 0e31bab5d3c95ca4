"""What the site needs beyond Sphinx: quoted lines, pages of code, the sources, the reference, notebooks, keys."""

from __future__ import annotations

import os
from typing import Any


def setup(app: Any) -> dict[str, Any]:
    app.parallel = max(app.parallel, os.cpu_count() or 1)  # as by `sphinx -j auto`: chapters run beside each other
    # here, for the tests use quotes.py and citations.py without Sphinx
    from extension import access, bibliography, notebooks, reference, sources

    for part in (sources, bibliography, reference, notebooks, access):
        part.register(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
