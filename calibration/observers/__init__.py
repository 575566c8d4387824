"""Observers: what watches a tensor while a model calibrates, and chooses the range its codes cover."""
