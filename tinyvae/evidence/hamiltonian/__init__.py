"""Hamiltonian Monte Carlo: the moves, many chains of them, and the densities that they walk in."""
