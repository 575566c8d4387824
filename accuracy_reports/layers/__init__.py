"""Layer by layer: a compiled model against PyTorch's own kernels, and both against the float model."""
