"""Kernels of our own, compiled on the machine that runs them; see ``build``."""
