"""Tile operations of x86 with AVX-512 VNNI: four u8 x s8 products summed into each of 16 int32 lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.spec import CodeDtype
from qtorch_relay.kernels.tir import Buffer, Expr, intrinsic, lanes_of, load, pick, splat, store

NAME = "x86-avx512vnni"
LANES = 16
REGISTERS = 32

# LLVM 22 gives vpdpbusd byte vectors: (int32x16, uint8x64, int8x64) -> int32x16
_DOT = "llvm.x86.avx512.vpdpbusd.512"
_CURRENT_ROUNDING = 4


def groups(vectors: int) -> list[int]:
    """Returns how a block's vectors are packed together in the epilogue: by 4, then 2, then 1."""
    return [4] * (vectors // 4) + [2] * (vectors % 4 // 2) + [1] * (vectors % 2)


def channel_order(vectors: int) -> npt.NDArray[np.int64]:
    """Returns the channel within a block that each lane of its vectors holds, [vectors, 16].

    vpackssdw and vpackuswb work within 128-bit quarters; with 4 * g consecutive channels of a group of g vectors in
    each quarter, 4 from each vector, the packed bytes come out in channel order without a permutation.
    """
    order, first = [], 0
    for group in groups(vectors):
        for member in range(group):
            order.append([first + quarter * 4 * group + member * 4 + lane for quarter in range(4) for lane in range(4)])
        first += group * LANES
    return np.array(order, dtype=np.int64)


def interleave(rows: Sequence[Expr]) -> list[Expr]:
    """Returns four u8 vectors of 16, 32 or 64 channels interleaved, 4 bytes to a channel, in interleaved_order.

    The parts, stored one after the other, fill one register for every 16 channels.
    """

    def unpack(a: Expr, b: Expr, size: int, high: bool) -> Expr:
        # vpunpck: elements of `size` bytes of the low or high half of each 128-bit quarter, alternating
        lanes = [
            source * count + quarter + (8 if high else 0) + element + byte
            for quarter in range(0, count, 16)
            for element in range(0, 8, size)
            for source in (0, 1)
            for byte in range(size)
        ]
        return T.bind(T.Shuffle([a, b], [T.int32(lane) for lane in lanes]))

    count = lanes_of(rows[0])
    pairs = [unpack(rows[i], rows[i + 1], 1, high) for high in (False, True) for i in (0, 2)]
    return [unpack(pairs[i], pairs[i + 1], 2, high) for i in (0, 2) for high in (False, True)]


def interleaved_order(vectors: int) -> npt.NDArray[np.int64]:
    """Returns the channel each lane holds after interleave, [vectors, 16]."""
    quarters = range(4 * vectors)
    first = [quarter % vectors * LANES + quarter // vectors * 4 for quarter in quarters]
    return np.array([[channel + lane for lane in range(4)] for channel in first]).reshape(vectors, LANES)


def activations(buffer: Buffer, index: Expr) -> Expr:
    """Returns four consecutive u8 activations, repeated in every lane."""
    return T.reinterpret("uint8x64", splat(T.reinterpret("int32", load(buffer, index, 4)), LANES))


def dot(accumulator: Expr, u8: Expr, s8: Expr) -> Expr:
    """Returns accumulator + sum of the four products in each lane; wraps, never saturates."""
    return intrinsic("int32x16", _DOT, accumulator, u8, s8)


def dot_saturating_pairs(accumulator: Expr, u8: Expr, s8: Expr) -> Expr:
    """Returns accumulator + sat16(u8[0] * s8[0] + u8[1] * s8[1]) + sat16(u8[2] * s8[2] + u8[3] * s8[3]) in each
    lane."""
    pairs = intrinsic("int16x32", "llvm.x86.avx512.pmaddubs.w.512", u8, s8)
    ones = splat(T.int16(1), 32)
    return accumulator + intrinsic("int32x16", "llvm.x86.avx512.pmaddw.d.512", pairs, ones)


def round_to_s32(value: Expr) -> Expr:
    """Returns float32x16 rounded half to even; |value| < 2^31 (packing checks it), and MXCSR is at its default."""
    zeros = splat(T.int32(0), LANES)
    every_lane = T.int16(-1)
    return intrinsic(
        "int32x16",
        "llvm.x86.avx512.mask.cvtps2dq.512",
        value,
        zeros,
        every_lane,
        T.int32(_CURRENT_ROUNDING),
    )


def _narrow_to_s16(low: Expr, high: Expr, zero_point: Expr | None) -> Expr:
    """Returns both as s16, saturated, plus the zero point, saturated.

    Both saturations keep every value outside [-128, 255] outside: |zero_point| <= 255 < 32767 - 255.
    """
    narrow = intrinsic("int16x32", "llvm.x86.avx512.packssdw.512", low, high)
    if zero_point is None:
        return narrow
    return intrinsic("int16x32", "llvm.sadd.sat", narrow, splat(zero_point, 32))


def _narrow_to_codes(
    low: Expr, high: Expr, permutation: Sequence[int], dtype: CodeDtype, clamp: tuple[Expr, Expr]
) -> Expr:
    """Returns both as codes, saturated to the dtype and clamped, in the order of permutation."""
    name = "llvm.x86.avx512.packuswb.512" if dtype == "uint8" else "llvm.x86.avx512.packsswb.512"
    codes = intrinsic("int8x64", name, low, high)
    if dtype == "uint8":
        codes = T.reinterpret("uint8x64", codes)
    if list(permutation) != list(range(64)):
        # the clamp stands between this permutation and the stores, or LLVM would permute for every store
        codes = pick(codes, permutation)
    return T.bind(T.min(T.max(codes, splat(clamp[0], 64)), splat(clamp[1], 64)))


def _pixel_order(order: npt.NDArray[np.int64]) -> list[int]:
    """Returns, for codes packed from 4 / group pixels, the byte that each pixel's channels lie in, pixel after pixel.

    vpackssdw and vpackuswb leave in each quarter 4 bytes of every vector of the first pixel, then of the second, ...
    """
    group = len(order)
    where = {int(order[m, q * 4]) - int(order.min()): q * 16 + m * 4 for m in range(group) for q in range(4)}
    return [
        where[channel] + pixel * 4 * group + byte
        for pixel in range(4 // group)
        for channel in range(0, group * LANES, 4)
        for byte in range(4)
    ]


def store_codes(
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

    values: rounded int32x16, in channel_order unless another order is given. zero_point: int16 scalar, or None if
    already added. clamp: lowest and highest code, scalars of dtype. channels: how many channels of the block exist.
    """
    order = channel_order(len(values[0])) if order is None else order
    first_vector = first_channel = 0
    for group in groups(len(values[0])):
        pixels_at_once = 4 // group
        count = min(group * LANES, channels - first_channel)
        if count <= 0:
            break
        permutation = _pixel_order(order[first_vector : first_vector + group])
        for start in range(0, len(values), pixels_at_once):
            pixels = list(range(start, min(start + pixels_at_once, len(values))))
            # a group of fewer pixels packs its last pixel more than once
            rows = [values[pixels[min(i, len(pixels) - 1)]] for i in range(pixels_at_once)]
            vectors = [row[first_vector + member] for row in rows for member in range(group)]
            halves = [_narrow_to_s16(vectors[i], vectors[i + 1], zero_point) for i in (0, 2)]
            codes = _narrow_to_codes(halves[0], halves[1], permutation, dtype, clamp)
            for i, pixel in enumerate(pixels):
                first_lane = i * group * LANES
                store_lanes(out, codes, range(first_lane, first_lane + count), addresses[pixel] + first_channel)
        first_vector += group
        first_channel += group * LANES


def store_lanes(out: Buffer, codes: Expr, lanes: Sequence[int], address: Expr) -> None:
    """Writes these lanes one after the other, and no byte more: in parts of 64, 32, ..., 1."""
    start = 0
    while start < len(lanes):
        size = 1 << (len(lanes) - start).bit_length() - 1
        part = lanes[start : start + size]
        value = codes if list(part) == list(range(64)) else pick(codes, part)
        store(out, value, address + start, size)
        start += size


def lookup(table: Buffer, indices: Expr) -> Expr:
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
