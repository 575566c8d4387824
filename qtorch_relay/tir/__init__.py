"""Arithmetic of PyTorch's for which Relax has no op, as expressions and loops that the portable path compiles."""
