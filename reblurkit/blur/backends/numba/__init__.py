"""The CPU backend in Numba."""
