"""Calibration: a float PyTorch model and data to a quantized PyTorch model. Usable without TVM."""
