"""Vector operations of x86 in 256 and 512 bits, as the kernels ask for them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import DOT, Dot, Isa, TileRegisters
from qtorch_relay.kernels.spec import CodeDtype, PairSums
from qtorch_relay.kernels.store_lanes import store_lanes
from qtorch_relay.kernels.tir import Buffer, Expr, intrinsic, lanes_of, load, pick, splat, vector

QUARTER = 16
"""Bytes of the parts of a register that packing and unpacking instructions stay within."""

CURRENT_ROUNDING = 4


@dataclass(frozen=True)
class X86(Isa):
    """What the vectors of both widths share."""

    NAME: str
    LANES: int
    REGISTERS: int
    dots: Mapping[PairSums, Dot]
    tiles: TileRegisters | None = None
    multiplies_memory = True
    prefetches = True
    places_loads = False  # they run instructions in any order

    @property
    def quarters(self) -> int:
        """128-bit parts of a register."""
        return self.LANES * DOT // QUARTER

    @property
    def requantizes_among_dots(self) -> bool:
        """Whether there are registers for it: with 16 of them sums would leave theirs."""
        return self.REGISTERS >= 32

    def dot_saturating_pairs(self, accumulator: Expr, u8: Expr, s8: Expr) -> Expr:
        """Returns accumulator + sat16(u8[0] * s8[0] + u8[1] * s8[1]) + sat16(u8[2] * s8[2] + u8[3] * s8[3])."""
        return accumulator + add_pairs(multiply_pairs_s16(u8, s8), splat(T.int16(1), 2 * self.LANES))

    def channel_order(self, vectors: int) -> npt.NDArray[np.int64]:
        """Returns the channel within a block that each lane of its vectors holds, [vectors, LANES].

        vpackssdw and vpackuswb work within 128-bit quarters; with 4 * g consecutive channels of a group of g vectors
        in each quarter, 4 from each vector, the packed bytes come out in channel order without a permutation.
        """
        order, first = [], 0
        for group in groups(vectors):
            for member in range(group):
                starts = (first + quarter * 4 * group + member * 4 for quarter in range(self.quarters))
                order.append([start + lane for start in starts for lane in range(4)])
            first += group * self.LANES
        return np.array(order, dtype=np.int64)

    def interleave(self, rows: Sequence[Expr]) -> list[Expr]:
        """Returns four u8 vectors of LANES, 2 * LANES or 4 * LANES channels interleaved, 4 bytes to a channel."""
        count = lanes_of(rows[0])
        part = min(count, QUARTER)

        def unpack(a: Expr, b: Expr, size: int, high: bool) -> Expr:
            # vpunpck: elements of `size` bytes of the low or high half of each 128-bit quarter, alternating
            lanes = [
                source * count + quarter + (part // 2 if high else 0) + element + byte
                for quarter in range(0, count, part)
                for element in range(0, part // 2, size)
                for source in (0, 1)
                for byte in range(size)
            ]
            return T.bind(T.Shuffle([a, b], [T.int32(lane) for lane in lanes]))

        pairs = [unpack(rows[i], rows[i + 1], 1, high) for high in (False, True) for i in (0, 2)]
        return [unpack(pairs[i], pairs[i + 1], 2, high) for i in (0, 2) for high in (False, True)]

    def interleaved_order(self, vectors: int) -> npt.NDArray[np.int64]:
        """Returns the channel each lane holds after interleave, [vectors, LANES]."""
        quarters = max(vectors * self.LANES // QUARTER, 1)
        runs = range(vectors * self.LANES // 4)
        first = [run % quarters * QUARTER + run // quarters * 4 for run in runs]
        return np.array([[channel + lane for lane in range(4)] for channel in first]).reshape(vectors, self.LANES)

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
        """Writes the codes of a tile: clamp(values[pixel][vector] + zero_point) to out[addresses[pixel] + channel]."""
        order = self.channel_order(len(values[0])) if order is None else order
        first_vector = first_channel = 0
        for group in groups(len(values[0])):
            pixels_at_once = 4 // group
            count = min(group * self.LANES, channels - first_channel)
            if count <= 0:
                break
            permutation = self._pixel_order(order[first_vector : first_vector + group])
            for start in range(0, len(values), pixels_at_once):
                pixels = list(range(start, min(start + pixels_at_once, len(values))))
                # a group of fewer pixels packs its last pixel more than once
                rows = [values[pixels[min(i, len(pixels) - 1)]] for i in range(pixels_at_once)]
                vectors = [row[first_vector + member] for row in rows for member in range(group)]
                halves = [self._narrow_to_s16(vectors[i], vectors[i + 1], zero_point) for i in (0, 2)]
                codes = self._narrow_to_codes(halves[0], halves[1], permutation, dtype, clamp)
                for i, pixel in enumerate(pixels):
                    first_lane = i * group * self.LANES
                    store_lanes(out, codes, range(first_lane, first_lane + count), addresses[pixel] + first_channel)
            first_vector += group
            first_channel += group * self.LANES

    def _narrow_to_s16(self, low: Expr, high: Expr, zero_point: Expr | None) -> Expr:
        """Returns both as s16, saturated, plus the zero point, saturated.

        Both saturations keep every value outside [-128, 255] outside: |zero_point| <= 255 < 32767 - 255.
        """
        dtype = vector("int16", 2 * self.LANES)
        narrow = intrinsic(dtype, self._pack("packssdw"), low, high)
        if zero_point is None:
            return narrow
        return intrinsic(dtype, "llvm.sadd.sat", narrow, splat(zero_point, 2 * self.LANES))

    def _narrow_to_codes(
        self, low: Expr, high: Expr, permutation: Sequence[int], dtype: CodeDtype, clamp: tuple[Expr, Expr]
    ) -> Expr:
        """Returns both as codes, saturated to the dtype and clamped, in the order of permutation."""
        size = 4 * self.LANES
        name = self._pack("packuswb" if dtype == "uint8" else "packsswb")
        codes = intrinsic(vector("int8", size), name, low, high)
        if dtype == "uint8":
            codes = T.reinterpret(vector("uint8", size), codes)
        if list(permutation) != list(range(size)):
            # the clamp stands between this permutation and the stores, or LLVM would permute for every store
            codes = pick(codes, permutation)
        return T.bind(T.min(T.max(codes, splat(clamp[0], size)), splat(clamp[1], size)))

    def _pixel_order(self, order: npt.NDArray[np.int64]) -> list[int]:
        """Returns, for codes packed from 4 / group pixels, the byte that each pixel's channels lie in, pixel after
        pixel.

        vpackssdw and vpackuswb leave in each quarter 4 bytes of every vector of the first pixel, then of the second.
        """
        group = len(order)
        where = {
            int(order[m, q * 4]) - int(order.min()): q * QUARTER + m * 4
            for m in range(group)
            for q in range(self.quarters)
        }
        return [
            where[channel] + pixel * 4 * group + byte
            for pixel in range(4 // group)
            for channel in range(0, group * self.LANES, 4)
            for byte in range(4)
        ]

    @abstractmethod
    def _pack(self, instruction: str) -> str:
        """Returns LLVM's name of a packing instruction of this width."""


class Vectors256(X86):
    """AVX2: registers of 256 bits."""

    def _pack(self, instruction: str) -> str:
        return f"llvm.x86.avx2.{instruction}"

    def round_to_s32(self, value: Expr) -> Expr:
        """Returns float32x8 rounded half to even; |value| < 2^31 (packing checks it), and MXCSR is at its default."""
        return intrinsic("int32x8", "llvm.x86.avx.cvt.ps2dq.256", value)

    def lookup(self, table: Buffer, indices: Expr) -> Expr:
        """Returns the bytes of a 256-byte table at 32 indices.

        vpshufb picks among 16 bytes, and gives 0 where bit 7 of the index is set. XOR with 16 * row leaves an index
        below 16 just where it is in that row; a saturating sum with 0x70 sets bit 7 of all others.
        """
        found = None
        for row in range(16):
            entries = T.bind(load(table, row * QUARTER, QUARTER))
            both = T.Shuffle([entries, entries], [T.int32(lane) for lane in range(2 * QUARTER)])
            within = T.bitwise_xor(indices, splat(T.uint8(row * QUARTER), 32))
            index = intrinsic("uint8x32", "llvm.uadd.sat", within, splat(T.uint8(0x70), 32))
            picked = intrinsic("uint8x32", "llvm.x86.avx2.pshuf.b", both, index)
            found = T.bind(picked if found is None else T.bitwise_or(found, picked))
        return found


class Vectors512(X86):
    """AVX-512 F and BW: registers of 512 bits."""

    def _pack(self, instruction: str) -> str:
        return f"llvm.x86.avx512.{instruction}.512"

    def round_to_s32(self, value: Expr) -> Expr:
        """Returns float32x16 rounded half to even; |value| < 2^31 (packing checks it), and MXCSR is at its default."""
        zeros = splat(T.int32(0), self.LANES)
        every_lane = T.int16(-1)
        return intrinsic(
            "int32x16",
            "llvm.x86.avx512.mask.cvtps2dq.512",
            value,
            zeros,
            every_lane,
            T.int32(CURRENT_ROUNDING),
        )

    def lookup(self, table: Buffer, indices: Expr) -> Expr:
        """Returns the bytes of a 256-byte table at 64 indices.

        vpermi2w picks among 64 words, half the table; bit 7 of an index tells the half, bit 0 the byte of the word.
        Source: AVX512BW alone, as vpermi2b would need AVX512VBMI.
        """
        words = T.bind(T.reinterpret("uint16x32", indices))
        quarters = [T.bind(T.reinterpret("uint16x32", load(table, quarter * 64, 64))) for quarter in range(4)]

        def constant(value: int) -> Expr:
            return splat(T.uint16(value), 32)

        def entry(index: Expr) -> Expr:
            word = T.bind(T.shift_right(index, constant(1)))
            low, high = (
                intrinsic("uint16x32", "llvm.x86.avx512.vpermi2var.hi.512", quarters[half], word, quarters[half + 1])
                for half in (0, 2)
            )
            pair = T.Select(index >= constant(128), high, low)
            odd = T.bitwise_and(index, constant(1))
            return T.bitwise_and(T.shift_right(pair, T.shift_left(odd, constant(3))), constant(255))

        even = entry(T.bind(T.bitwise_and(words, constant(255))))
        odd = entry(T.bind(T.shift_right(words, constant(8))))
        return T.reinterpret("uint8x64", T.bitwise_or(even, T.shift_left(odd, constant(8))))


def groups(vectors: int) -> list[int]:
    """Returns how a block's vectors are packed together in the epilogue: by 4, then 2, then 1."""
    return [4] * (vectors // 4) + [2] * (vectors % 4 // 2) + [1] * (vectors % 2)


def multiply_pairs_s16(u8: Expr, s8: Expr) -> Expr:
    """Returns u8[0] * s8[0] + u8[1] * s8[1] of every pair as s16, saturated."""
    size = lanes_of(u8) // 2
    name = {16: "llvm.x86.avx2.pmadd.ub.sw", 32: "llvm.x86.avx512.pmaddubs.w.512"}[size]
    return intrinsic(vector("int16", size), name, u8, s8)


def add_pairs(left: Expr, right: Expr) -> Expr:
    """Returns left[0] * right[0] + left[1] * right[1] of every pair of s16 as s32."""
    size = lanes_of(left) // 2
    name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[size]
    return intrinsic(vector("int32", size), name, left, right)
