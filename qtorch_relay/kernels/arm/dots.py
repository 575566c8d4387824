"""Dot products of ARM: in one instruction where there is sdot or usdot, else from products widened to 16 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.arm.vectors import add_pairs, half
from qtorch_relay.kernels.isa import DOT, Dot, PairedPixels
from qtorch_relay.kernels.one_step import OneStep
from qtorch_relay.kernels.tir import Buffer, Expr, intrinsic, load, splat, vector
from qtorch_relay.tir.math import rounded

LANES = 4
REGISTER = DOT * LANES


class ByElement(OneStep):
    """Dot products of which one operand is a lane of a register, in every lane: 16 activations are loaded at once."""

    LANES = LANES
    AT_ONCE = 4
    EXTRA_REGISTERS = 0
    CYCLES = 1.0

    def read(self, source: Buffer, index: Expr, step: int, count: int) -> Expr:
        """Returns 4 * count consecutive activations, four to a lane."""
        return T.reinterpret(vector("int32", count), load(source, index, DOT * count))

    def spread(self, read: Expr, index: int, count: int) -> Expr:
        """Returns the four activations of one lane in every lane; LLVM makes it part of the dot product."""
        if count == 1:
            return T.reinterpret(vector(self.SOURCE, REGISTER), splat(read, LANES))
        # a shuffle gives no more lanes than it takes
        every = T.Shuffle([read] * (LANES // count), [T.int32(index)] * LANES)
        return T.reinterpret(vector(self.SOURCE, REGISTER), every)


class Sdot(ByElement):
    """sdot: four products of s8 summed into each lane; u8 activations are moved down by 128 when they are copied."""

    form = "sdot"
    SOURCE = "int8"

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus four products; wraps, never saturates."""
        return intrinsic("int32x4", "llvm.aarch64.neon.sdot", accumulator, weights, activations)


class SdotHalfLoads(Sdot):
    """The same, 8 activations loaded at once: in-order processors load 64 bits beside a product, 128 in two cycles."""

    AT_ONCE = 2
    WEIGHT_CYCLES = 0.5  # more, and tiles of many pixels run out of registers for offsets
    EXTRA_REGISTERS = 2  # loaded ahead


class Usdot(ByElement):
    """usdot: four products of u8 and s8 summed into each lane; activations are read where they are."""

    form = "usdot"
    SOURCE = "uint8"

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus four products; wraps, never saturates. By element its name is sudot."""
        return intrinsic("int32x4", "llvm.aarch64.neon.usdot", accumulator, activations, weights)


class Usmmla(PairedPixels):
    """usmmla: twice the products of usdot in an instruction, which takes as long."""

    form = "usmmla"
    CYCLES = 0.5
    # one instruction puts eight codes of two pixels into a register
    SPREAD_CYCLES = 0.25

    def add(self, sums: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the sums plus the products of u8 activations [2, 8] and s8 weights [2, 8]; wraps, never saturates."""
        return intrinsic("int32x4", "llvm.aarch64.neon.usmmla", sums, activations, weights)


class WidenedPairs(Dot):
    """Products of s8 widened to s16 by smull, which sadalp adds to the sums by pairs: for processors without sdot.

    The first and third of the four products of each lane lie in the lower half of a register, the others in the upper:
    where sums of two products stay in int16, smlal adds the upper to the lower before they are widened again.
    """

    STEPS = 1
    AT_ONCE = 4
    WEIGHT_CYCLES = 0.0
    SOURCE = "int8"
    SPREAD_CYCLES = 1.0

    def __init__(self, in_s16: bool) -> None:
        """in_s16: sums of two products stay in int16, for the codes and weights of the layer."""
        self.in_s16 = in_s16
        self.form = "smull, smlal and sadalp (proven to fit int16)" if in_s16 else "smull and sadalp"
        # where the bytes of each of four dots come from, and what LLVM has under way of activations and products
        self.EXTRA_REGISTERS = 9
        self.CYCLES = 3.0 if in_s16 else 4.0

    def weights(self, packed: Buffer, address: Expr, step: int) -> Expr:
        """Returns the weights of a vector."""
        return load(packed, address, REGISTER)

    def read(self, source: Buffer, index: Expr, step: int, count: int) -> Expr:
        """Returns 4 * count consecutive activations in a register, again and again."""
        codes = load(source, index, DOT * count)
        if count == LANES:
            return codes
        together = T.reinterpret(f"int{32 * count}", codes)
        return T.reinterpret(vector("int8", REGISTER), splat(together, LANES // count))

    def spread(self, read: Expr, index: int, count: int) -> Expr:
        """Returns the first and third of four activations in every lane, then the second and fourth."""
        return picked(
            read, [DOT * index + first + member for first in (0, 1) for _ in range(LANES) for member in (0, 2)]
        )

    def activations(self, codes: Expr, step: int) -> Expr:
        """Returns the first and third activation of every lane, then the second and fourth."""
        return picked(codes, [*range(0, REGISTER, 2), *range(1, REGISTER, 2)])

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus four products.

        Two of them are at least -2 * 128 * 127 and at most 2 * 128 * 128, which alone does not fit int16.
        """
        lower, upper = (
            intrinsic("int16x8", "llvm.aarch64.neon.smull", *(half(part, number) for part in (weights, activations)))
            for number in (0, 1)
        )
        if self.in_s16:
            return in_order(accumulator + add_pairs(lower + upper))
        return in_order(in_order(accumulator + add_pairs(lower)) + add_pairs(upper))

    def arrange(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns [..., lane, 4] as flat [..., half, lane, 2]."""
        halves = weights.reshape(-1, LANES, 2, 2).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(halves).ravel()

    def arrange_for_registers(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns the same."""
        return self.arrange(weights)


def picked(codes: Expr, places: Sequence[int]) -> Expr:
    """Returns the bytes of a register at 16 places, in one instruction."""
    table = T.Shuffle([T.int8(place) for place in places], [T.int32(lane) for lane in range(REGISTER)])
    return T.bind(intrinsic("int8x16", "llvm.aarch64.neon.tbl1", codes, table))


def in_order(sums: Expr) -> Expr:
    """Returns sums that LLVM does not add in another order, in which it would need registers for parts of them.

    The fence is no instruction; it is there for floats of any type.
    """
    return T.reinterpret("int32x4", rounded(T.reinterpret("float32x4", sums)))
