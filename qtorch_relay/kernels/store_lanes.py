"""Stores of some lanes of a vector, and of no byte more."""

from __future__ import annotations

from collections.abc import Sequence

from qtorch_relay.kernels.tir import Buffer, Expr, lanes_of, pick, store


def store_lanes(out: Buffer, value: Expr, lanes: Sequence[int], address: Expr) -> None:
    """Writes these lanes one after the other, and no byte more: in parts of 64, 32, ..., 1."""
    start = 0
    while start < len(lanes):
        size = 1 << (len(lanes) - start).bit_length() - 1
        part = lanes[start : start + size]
        store(out, value if list(part) == list(range(lanes_of(value))) else pick(value, part), address + start, size)
        start += size
