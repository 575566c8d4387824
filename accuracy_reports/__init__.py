"""Accuracy reports: a compiled model against PyTorch, layer by layer and over a data set."""
