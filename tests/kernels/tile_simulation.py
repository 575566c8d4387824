"""Tile registers as loops over memory: what each instruction does to 16 rows of 64 bytes, on any CPU."""

from __future__ import annotations

import numpy as np

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import TileRegisters
from qtorch_relay.kernels.tir import Buffer, Expr, scratch

ROWS, ROW_BYTES = 16, 64
DTYPES = ("int32", "int32", "int32", "int32", "uint8", "uint8", "int8", "int8")


class SimulatedTiles(TileRegisters):
    """Each tile is a buffer; rows are copied whole, past the last pixel as well, as the instructions do."""

    def begin(self) -> None:
        self.tiles = [scratch(ROWS * self._elements(dtype), dtype) for dtype in DTYPES]

    def end(self) -> None:
        self.tiles = []

    @staticmethod
    def _elements(dtype: str) -> int:
        return ROW_BYTES // np.dtype(dtype).itemsize

    def load(self, tile: int, buffer: Buffer, index: Expr, stride: int) -> None:
        assert str(buffer.dtype) == DTYPES[tile]
        count = self._elements(DTYPES[tile])
        with T.serial(0, ROWS) as row, T.serial(0, count) as column:
            T.buffer_store(self.tiles[tile], buffer[index + row * stride + column], [row * count + column])

    def dot(self, sums: int, activations: int, weights: int) -> None:
        total, a, b = (self.tiles[tile] for tile in (sums, activations, weights))
        with T.serial(0, ROWS) as m, T.serial(0, 16) as k, T.serial(0, 16) as n:
            value = total[m * 16 + n]
            for byte in range(4):
                left = T.Cast("int32", a[m * ROW_BYTES + 4 * k + byte])
                value = value + left * T.Cast("int32", b[k * ROW_BYTES + 4 * n + byte])
            T.buffer_store(total, value, [m * 16 + n])

    def store(self, tile: int, buffer: Buffer, index: Expr, stride: int) -> None:
        assert str(buffer.dtype) == DTYPES[tile] == "int32"
        with T.serial(0, ROWS) as row, T.serial(0, 16) as column:
            T.buffer_store(buffer, self.tiles[tile][row * 16 + column], [index + row * stride + column])
