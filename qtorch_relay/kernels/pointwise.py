"""Loops over codes that are computed one by one: a register of them at a time, the last ones twice if some are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.spec import CodeDtype
from qtorch_relay.kernels.tir import Buffer, Expr, load, pick, splat, store, vector

MAX_CHUNKS = 8

MIN_CHUNK_SIZE = 40_000
"""Codes of a chunk: about 5 us, below that a second thread costs more than it brings."""


@dataclass(frozen=True)
class Place:
    """Where the codes of one vector lie: lanes[i] codes behind index, all within `count` codes; a scalar has one lane.

    Codes are loaded `count` at once and the lanes picked from the register: where these stay in their 128 bits, as they
    do in an ISA's channel_order, that is one instruction instead of a load of a part and its widening.
    """

    index: Expr
    lanes: tuple[int, ...] = (0,)
    count: int = 1

    @property
    def size(self) -> int:
        """Number of lanes."""
        return len(self.lanes)

    def moved(self, offset: Expr) -> Place:
        """Returns the place so many codes further on."""
        return replace(self, index=self.index + offset)

    def codes(self, buffer: Buffer) -> Expr:
        """Returns the codes of a buffer here as int32."""
        dtype = vector("int32", self.size)
        codes = load(buffer, self.index, self.count)
        if self.lanes == tuple(range(self.count)):
            return T.Cast(dtype, codes)
        if str(codes.ty.dtype).startswith("int8") or self.count != 4 * self.size:
            return T.Cast(dtype, pick(codes, self.lanes))
        # a byte of the codes and three of zeros for every lane
        zeros = splat(T.uint8(0), self.count)
        places = [place for lane in self.lanes for place in (lane, self.count, self.count, self.count)]
        return T.reinterpret(dtype, T.Shuffle([codes, zeros], [T.int32(place) for place in places]))

    def load(self, buffer: Buffer) -> Expr:
        """Returns the elements of a buffer here, which are consecutive: in an order that keeps them so."""
        return load(buffer, self.index + self.lanes[0], self.size)

    def floats(self, buffer: Buffer) -> Expr:
        """Returns the codes of a buffer here as float32."""
        return T.Cast(vector("float32", self.size), self.codes(buffer))


ValueAt = Callable[[Place], Expr]
"""What the codes at a place become: rounded int32 without the zero point."""

Order = Callable[[int], npt.NDArray[np.int64]]
"""The code of each lane of a number of vectors, [vectors, LANES]."""


def block_size(isa: Isa) -> int:
    """Returns how many codes are computed at once: one register of them, four registers of floats."""
    return 4 * isa.LANES


def consecutive(isa: Isa) -> Order:
    """Returns the order in which every vector holds consecutive codes."""
    return lambda vectors: np.arange(vectors * isa.LANES).reshape(vectors, isa.LANES)


def places(order: npt.NDArray[np.int64], index: Expr) -> list[Place]:
    """Returns the places of the vectors of a block at an index, each within the shortest run that fills its bytes."""
    found: list[Place] = []
    for end in range(1, len(order) + 1):
        first = len(found)
        start, stop = order[:first].size, order[:end].size
        if np.array_equal(np.sort(order[first:end], axis=None), np.arange(start, stop)):
            lanes = [tuple(int(code) - start for code in codes) for codes in order[first:end]]
            found += [Place(index + start, those, stop - start) for those in lanes]
    return found


def round_to_s32(isa: Isa, value: Expr, lanes: int) -> Expr:
    """Returns float32 rounded half to even; |value| < 2^31."""
    return isa.round_to_s32(value) if lanes == isa.LANES else T.Cast("int32", T.nearbyint(value))


class CodeWriter:
    """Emits loops that write codes: clamp(value + zero_point), saturated to the dtype."""

    def __init__(
        self,
        isa: Isa,
        out: Buffer,
        dtype: CodeDtype,
        zero_point: Expr | None,
        low: Expr,
        high: Expr,
        order: Order | None = None,
    ) -> None:
        """zero_point, low, high: int32 scalars; None if the values contain the zero point. order: the ISA's if None."""
        self.isa, self.out, self.dtype = isa, out, dtype
        self.order = isa.channel_order if order is None else order
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
        self.write(index, [value_at(place) for place in places(self.order(vectors), index)])

    def write(self, index: Expr, values: Sequence[Expr]) -> None:
        """Writes the codes of vectors of rounded int32, in the writer's order."""
        lanes, vectors = self.isa.LANES, len(values)
        zero_point = None if self.zero_point is None else T.Cast("int16", self.zero_point)
        clamp = T.Cast(self.dtype, self.low), T.Cast(self.dtype, self.high)
        self.isa.store_codes(
            [values], self.out, [index], vectors * lanes, self.dtype, zero_point, clamp, self.order(vectors)
        )

    def write_one(self, index: Expr, value: Expr) -> None:
        """Writes the code of one rounded int32."""
        # the vector code saturates to int16 before it adds the zero point
        value = T.max(T.min(value, 32767), -32768)
        if self.zero_point is not None:
            value = value + self.zero_point
        store(self.out, T.Cast(self.dtype, T.max(T.min(value, self.high), self.low)), index, 1)

    def _one_by_one(self, start: Expr, end: Expr, value_at: ValueAt) -> None:
        with T.serial(start, end) as index:
            self.write_one(index, value_at(Place(index)))

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
