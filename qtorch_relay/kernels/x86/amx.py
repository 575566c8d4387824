"""Tile registers of AMX: tdpbusd multiplies 16 rows of 64 u8 activations with 16 rows of 16 channels' s8 weights.

The tiles have fixed numbers: LLVM's intrinsics with immediate tile numbers become the instructions one by one. Its
intrinsics for allocated tiles (llvm.x86.*.internal) need values of type x86_amx, which TIR cannot express, and passes
that configure the registers from the shapes LLVM sees; here all tiles have one shape, configured once a chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import TileRegisters
from qtorch_relay.kernels.tir import Buffer, Expr, scratch, store

TILES = 8
CONFIG_BYTES, COLUMNS_AT, ROWS_AT = 64, 16, 48


class AmxTiles(TileRegisters):
    """Eight tiles of 16 rows of 64 bytes, palette 1.

    Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter on AMX: TILECFG layout.
    """

    def begin(self) -> None:
        """Configures all tiles."""
        config = np.zeros(CONFIG_BYTES, np.uint8)
        config[0] = 1  # palette
        config[COLUMNS_AT : COLUMNS_AT + 2 * TILES : 2] = 64  # bytes of a row, 16 bits each
        config[ROWS_AT : ROWS_AT + TILES] = 16
        memory = scratch(CONFIG_BYTES, "uint8")
        for index, byte in enumerate(config):
            store(memory, T.uint8(int(byte)), index, 1)
        _emit("ldtilecfg", T.address_of(memory[0]))

    def end(self) -> None:
        """Gives the tiles up, so that the system need not keep them."""
        _emit("tilerelease")

    def load(self, tile: int, buffer: Buffer, index: Expr, stride: int) -> None:
        """tileloadd: reads 16 rows of 64 bytes, which begin `stride` elements apart."""
        _emit("tileloadd64", T.int8(tile), T.address_of(buffer[index]), _stride_bytes(buffer, stride))

    def dot(self, sums: int, activations: int, weights: int) -> None:
        """tdpbusd: adds the products of all rows and columns; wraps, never saturates."""
        _emit("tdpbusd", T.int8(sums), T.int8(activations), T.int8(weights))

    def store(self, tile: int, buffer: Buffer, index: Expr, stride: int) -> None:
        """tilestored: writes 16 rows of 64 bytes, which begin `stride` elements apart."""
        _emit("tilestored64", T.int8(tile), T.address_of(buffer[index]), _stride_bytes(buffer, stride))


def _emit(instruction: str, *arguments: Any) -> None:
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{instruction}", *arguments))


def _stride_bytes(buffer: Buffer, stride: int) -> Expr:
    return T.int64(stride * np.dtype(str(buffer.dtype)).itemsize)
