"""Benchmarks and reproductions, from a checkout: `python -m benchmarks`."""

import sys
from pathlib import Path

# the kernels of this checkout, beside the tinyvae of this checkout: they are a folder below, where Python does not look
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "kernels"))
