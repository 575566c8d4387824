"""`make zoo-arm`: networks on emulated ARM boards against PyTorch, by the board's own runtime."""
