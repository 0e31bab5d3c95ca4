"""tinyvae: the variational auto-encoder, complete and from scratch."""

from __future__ import annotations

__version__ = "0.1.0"
