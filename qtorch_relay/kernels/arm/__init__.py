"""Vector operations and dot products of 64-bit ARM."""
