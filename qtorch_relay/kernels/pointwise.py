"""Loops over codes that are computed one by one: a register of them at a time, the last ones twice if some are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.spec import CodeDtype
from qtorch_relay.kernels.tir import Buffer, Expr, load, splat, store, vector

MAX_CHUNKS = 8

MIN_CHUNK_SIZE = 40_000
"""Codes of a chunk: about 5 us, below that a second thread costs more than it brings."""

ValueAt = Callable[[Expr, int], Expr]
"""(index, lanes) -> what the codes there become: rounded int32 without the zero point."""


def block_size(isa: Isa) -> int:
    """Returns how many codes are computed at once: one register of them, four registers of floats."""
    return 4 * isa.LANES


def code_floats(codes: Buffer, index: Expr, lanes: int) -> Expr:
    """Returns consecutive codes as float32."""
    return T.Cast(vector("float32", lanes), T.Cast(vector("int32", lanes), load(codes, index, lanes)))


def round_to_s32(isa: Isa, value: Expr, lanes: int) -> Expr:
    """Returns float32 rounded half to even; |value| < 2^31."""
    return isa.round_to_s32(value) if lanes == isa.LANES else T.Cast("int32", T.nearbyint(value))


class CodeWriter:
    """Emits loops that write codes: clamp(value + zero_point), saturated to the dtype."""

    def __init__(self, isa: Isa, out: Buffer, dtype: CodeDtype, zero_point: Expr | None, low: Expr, high: Expr) -> None:
        """zero_point, low, high: int32 scalars; None if the values contain the zero point."""
        self.isa, self.out, self.dtype = isa, out, dtype
        self.zero_point, self.low, self.high = zero_point, low, high

    def range(self, size: int, value_at: ValueAt, start: int = 0) -> None:
        """Writes codes start..size, in chunks for several threads if there are many."""
        count = size - start
        if count <= 0:
            return
        size_at_once = block_size(self.isa)
        if count < size_at_once:
            self._one_by_one(start, size, value_at)
            return
        blocks = -(-count // size_at_once)
        chunks = max(1, min(MAX_CHUNKS, count // MIN_CHUNK_SIZE))
        loop = T.parallel if chunks > 1 else T.serial
        with (
            loop(0, chunks) as chunk,
            T.serial(chunk * blocks // chunks, (chunk + 1) * blocks // chunks) as block,
        ):
            index = start + block * size_at_once
            if count % size_at_once:
                index = T.min(index, size - size_at_once)
            self.block(T.bind(index), size_at_once // self.isa.LANES, value_at)

    def block(self, index: Expr, vectors: int, value_at: ValueAt) -> None:
        """Writes the codes of some vectors."""
        lanes = self.isa.LANES
        self.write(index, [value_at(index + j * lanes, lanes) for j in range(vectors)])

    def write(self, index: Expr, values: Sequence[Expr]) -> None:
        """Writes the codes of consecutive vectors of rounded int32."""
        lanes, vectors = self.isa.LANES, len(values)
        zero_point = None if self.zero_point is None else T.Cast("int16", self.zero_point)
        clamp = T.Cast(self.dtype, self.low), T.Cast(self.dtype, self.high)
        order = np.arange(vectors * lanes).reshape(vectors, lanes)
        self.isa.store_codes([values], self.out, [index], vectors * lanes, self.dtype, zero_point, clamp, order)

    def write_one(self, index: Expr, value: Expr) -> None:
        """Writes the code of one rounded int32."""
        # the vector code saturates to int16 before it adds the zero point
        value = T.max(T.min(value, 32767), -32768)
        if self.zero_point is not None:
            value = value + self.zero_point
        store(self.out, T.Cast(self.dtype, T.max(T.min(value, self.high), self.low)), index, 1)

    def _one_by_one(self, start: Expr, end: Expr, value_at: ValueAt) -> None:
        with T.serial(start, end) as index:
            self.write_one(index, value_at(index, 1))

    def row(self, start: Expr, channels: int, value_at: ValueAt) -> None:
        """Writes the codes of one pixel's channels, in blocks that may overlap."""
        if channels < self.isa.LANES:
            self._one_by_one(start, start + channels, value_at)
            return
        vectors = min(channels, block_size(self.isa)) // self.isa.LANES
        size = vectors * self.isa.LANES
        with T.serial(0, -(-channels // size)) as block:
            offset = T.min(block * size, channels - size) if channels % size else block * size
            self.block(T.bind(start + offset), vectors, value_at)


def splat_at(buffer: Buffer, index: int, lanes: int) -> Expr:
    """Returns one constant of a buffer in every lane."""
    return splat(buffer[index], lanes)
