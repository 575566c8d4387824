"""Tile operations of x86 instruction sets."""
