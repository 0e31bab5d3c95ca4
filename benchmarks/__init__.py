"""Benchmarks and reproductions, from a checkout: `python -m benchmarks`."""
