"""Benchmarks and reproductions, from a checkout: `python -m benchmarks`."""

import sys
from pathlib import Path

# Python finds tinyvae in the current folder of the checkout, but its kernels only with this entry.
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "kernels"))
