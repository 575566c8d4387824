"""Relay text proved by a real TVM with Relay, and that TVM's own importer of PyTorch beside it."""
