"""The demo: a small CNN on real images of digits, trained, quantized, compiled, and measured beside its peers."""
