"""Vector operations of NEON's 128-bit registers, as the kernels ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import DOT, Dot, Isa, PairedPixels
from qtorch_relay.kernels.spec import CodeDtype, PairSums
from qtorch_relay.kernels.store_lanes import store_lanes
from qtorch_relay.kernels.tir import Buffer, Expr, intrinsic, lanes_of, load, pick, splat, vector

REGISTER = 16
"""Bytes of a register."""

TABLE_REGISTERS = 4
"""Registers that one table lookup reads from."""


@dataclass(frozen=True)
class Neon(Isa):
    """NEON with 32 registers of four int32."""

    NAME: str
    dots: Mapping[PairSums, Dot]
    pairs: PairedPixels | None = None
    places_loads: bool = False
    LANES = 4
    REGISTERS = 32
    tiles = None
    requantizes_among_dots = False  # many processors run instructions in order
    multiplies_memory = False  # operands are loaded first
    prefetches = False  # the next weights are one sequence, which processors see

    def dot_saturating_pairs(self, accumulator: Expr, u8: Expr, s8: Expr) -> Expr:
        """Returns accumulator + sat16(u8[0] * s8[0] + u8[1] * s8[1]) + sat16(u8[2] * s8[2] + u8[3] * s8[3]).

        A product of u8 and s8 fits int16: from -255 * 128 to 255 * 127. sqadd saturates the sum of two.
        """
        codes, weights = T.reinterpret("uint16x8", u8), T.bind(T.reinterpret("int16x8", s8))
        low_codes = T.bitwise_and(codes, splat(T.uint16(255), 8))
        high_codes = T.shift_right(codes, splat(T.uint16(8), 8))
        byte = splat(T.int16(8), 8)
        low_weights = T.shift_right(T.shift_left(weights, byte), byte)
        high_weights = T.shift_right(weights, byte)
        low = T.reinterpret("int16x8", low_codes) * low_weights
        high = T.reinterpret("int16x8", high_codes) * high_weights
        pairs = intrinsic("int16x8", "llvm.aarch64.neon.sqadd", low, high)
        return accumulator + add_pairs(pairs)

    def round_to_s32(self, value: Expr) -> Expr:
        """Returns float32x4 rounded half to even whatever FPCR says; |value| < 2^31 (packing checks it)."""
        return intrinsic("int32x4", "llvm.aarch64.neon.fcvtns", value)

    def channel_order(self, vectors: int) -> npt.NDArray[np.int64]:
        """Returns the channel within a block that each lane of its vectors holds: narrowing keeps their order."""
        return np.arange(vectors * self.LANES).reshape(vectors, self.LANES)

    def interleave(self, rows: Sequence[Expr]) -> list[Expr]:
        """Returns four vectors of 4, 8 or 16 channels interleaved, 4 bytes to a channel: one register for every four.

        zip1 and zip2 of bytes for the first two rows and the last two, then of 16 bits.
        """
        count = lanes_of(rows[0])

        def zipped(a: Expr, b: Expr, size: int, first: int, elements: int) -> Expr:
            # elements of `size` bytes from the first on, alternating
            width = lanes_of(a)
            places = [
                source * width + element * size + byte
                for element in range(first, first + elements)
                for source in (0, 1)
                for byte in range(size)
            ]
            return T.bind(T.Shuffle([a, b], [T.int32(place) for place in places]))

        registers = []
        for half in range(0, count, REGISTER // 2):
            channels = min(count, REGISTER // 2)
            pairs = [zipped(rows[i], rows[i + 1], 1, half, channels) for i in (0, 2)]
            registers += [zipped(pairs[0], pairs[1], 2, first, self.LANES) for first in range(0, channels, self.LANES)]
        return registers

    def interleaved_order(self, vectors: int) -> npt.NDArray[np.int64]:
        """Returns the channel each lane holds after interleave, [vectors, LANES]."""
        return self.channel_order(vectors)

    def store_codes(
        self,
        values: Sequence[Sequence[Expr]],
        out: Buffer,
        addresses: Sequence[Expr],
        channels: int,
        dtype: CodeDtype,
        zero_point: Expr | None,
        clamp: tuple[Expr, Expr],
        order: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Writes the codes of a tile: clamp(values[pixel][vector] + zero_point) to out[addresses[pixel] + channel].

        Lanes hold consecutive channels, so a pixel's vectors are narrowed four at a time; a register is filled with the
        next pixels where the last vectors of a pixel leave room.
        """
        vectors = len(values[0])
        first = 0
        while first < vectors:
            group = next(size for size in (4, 2, 1) if first + size <= vectors)
            first_channel = first * self.LANES
            count = min(group * self.LANES, channels - first_channel)
            if count <= 0:
                break
            at_once = DOT // group
            for start in range(0, len(values), at_once):
                pixels = list(range(start, min(start + at_once, len(values))))
                rows = [value for pixel in pixels for value in values[pixel][first : first + group]]
                codes = self._narrow(rows, dtype, zero_point, clamp)
                for i, pixel in enumerate(pixels):
                    first_lane = i * group * self.LANES
                    store_lanes(out, codes, range(first_lane, first_lane + count), addresses[pixel] + first_channel)
            first += group

    def _narrow(
        self, rows: Sequence[Expr], dtype: CodeDtype, zero_point: Expr | None, clamp: tuple[Expr, Expr]
    ) -> Expr:
        """Returns one to four vectors of int32 as a register of codes; lanes without a vector hold anything.

        Both saturations keep every value outside [-128, 255] outside: |zero_point| <= 255 < 32767 - 255.
        """
        rows = [*rows, *[rows[-1]] * (DOT - len(rows))]
        narrow = "llvm.aarch64.neon.sqxtun" if dtype == "uint8" else "llvm.aarch64.neon.sqxtn"
        halves = []
        for low, high in ((rows[0], rows[1]), (rows[2], rows[3])):
            parts = [intrinsic("int16x4", "llvm.aarch64.neon.sqxtn", part) for part in (low, high)]
            half = concatenated(*parts)
            if zero_point is not None:
                half = intrinsic("int16x8", "llvm.aarch64.neon.sqadd", half, splat(zero_point, 8))
            halves.append(intrinsic(vector(dtype, 8), narrow, half))
        codes = T.bind(concatenated(*halves))
        return T.bind(T.min(T.max(codes, splat(clamp[0], REGISTER)), splat(clamp[1], REGISTER)))

    def lookup(self, table: Buffer, indices: Expr) -> Expr:
        """Returns the bytes of a 256-byte table at 16 indices: a quarter of the table at a time.

        tbl gives 0 for an index beyond its 64 bytes, tbx leaves what was found there before.
        """
        size = TABLE_REGISTERS * REGISTER
        found = None
        for start in range(0, 256, size):
            entries = [T.bind(load(table, start + i * REGISTER, REGISTER)) for i in range(TABLE_REGISTERS)]
            if found is None:
                found = T.bind(intrinsic("uint8x16", "llvm.aarch64.neon.tbl4", *entries, indices))
                continue
            # indices below the start wrap to 64 and more
            within = indices - splat(T.uint8(start), REGISTER)
            found = T.bind(intrinsic("uint8x16", "llvm.aarch64.neon.tbx4", found, *entries, within))
        return found


def concatenated(low: Expr, high: Expr) -> Expr:
    """Returns two vectors one behind the other."""
    return T.Shuffle([low, high], [T.int32(lane) for lane in range(2 * lanes_of(low))])


def add_pairs(values: Expr) -> Expr:
    """Returns the sum of each two s16 next to each other as s32."""
    return intrinsic("int32x4", "llvm.aarch64.neon.saddlp", values)


def half(value: Expr, number: int) -> Expr:
    """Returns the lower (0) or the upper (1) half of a vector."""
    size = lanes_of(value) // 2
    return pick(value, range(number * size, (number + 1) * size))
