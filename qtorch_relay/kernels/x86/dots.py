"""Dot products of x86: in one instruction where there is VNNI, else from products of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import DOT, Dot
from qtorch_relay.kernels.one_step import OneStep
from qtorch_relay.kernels.tir import Buffer, Expr, intrinsic, lanes_of, load, splat, vector
from qtorch_relay.kernels.x86.vectors import add_pairs, multiply_pairs_s16


@dataclass(frozen=True)
class Broadcast(OneStep):
    """All four products at once, by activations that are loaded into every lane."""

    LANES: int
    AT_ONCE = 1
    SOURCE = "uint8"

    def read(self, source: Buffer, index: Expr, step: int, count: int) -> Expr:
        """Returns four consecutive activations in every lane."""
        four = T.reinterpret("int32", load(source, index, DOT))
        return T.reinterpret(vector("uint8", DOT * self.LANES), splat(four, self.LANES))

    def spread(self, read: Expr, index: int, count: int) -> Expr:
        """Returns what was read: it is in every lane."""
        return read


class Vnni(Broadcast):
    """vpdpbusd: four products summed into each lane."""

    form = "vpdpbusd"
    EXTRA_REGISTERS = 0
    CYCLES = 1.0

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus four products; wraps, never saturates.

        LLVM 22 gives vpdpbusd byte vectors: (int32x16, uint8x64, int8x64) -> int32x16.
        """
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.LANES}"
        return intrinsic(vector("int32", self.LANES), name, accumulator, activations, weights)


class Tdpbusd(Vnni):
    """tdpbusd: what vpdpbusd computes, for 16 pixels at once; see amx.AmxTiles."""

    form = "tdpbusd"


class PairsInS16(Broadcast):
    """vpmaddubsw, which saturates: for weights and activations of which no two products sum to more than int16."""

    form = "summed in int16 (proven to fit)"
    # vector of ones, and the products before they are added
    EXTRA_REGISTERS = 2
    CYCLES = 2.0

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus both pairs."""
        return accumulator + add_pairs(multiply_pairs_s16(activations, weights), splat(T.int16(1), 2 * self.LANES))


@dataclass(frozen=True)
class WidenedPairs(Dot):
    """Activations and weights widened to 16 bits, of which vpmaddwd adds two products to int32: exact for all codes.

    Each step takes two bytes of each lane: of broadcast activations the next two, of those in a register the even or
    the odd ones, which are widened in one instruction.
    """

    lanes: int
    form = "widened to int32"
    STEPS = 2
    AT_ONCE = 1
    # the products before they are added
    EXTRA_REGISTERS = 1
    CYCLES = 2.0
    WEIGHT_CYCLES = 1.0
    SPREAD_CYCLES = 0.0
    SOURCE = "uint16"

    def weights(self, packed: Buffer, address: Expr, step: int) -> Expr:
        """Returns the two weights of each lane as s16."""
        size = 2 * self.lanes
        return T.Cast(vector("int16", size), load(packed, address + step * size, size))

    def read(self, source: Buffer, index: Expr, step: int, count: int) -> Expr:
        """Returns two of four consecutive activations in every lane."""
        two = T.reinterpret("int32", load(source, index + 2 * step, 2))
        return T.reinterpret(vector("int16", 2 * self.lanes), splat(two, self.lanes))

    def spread(self, read: Expr, index: int, count: int) -> Expr:
        """Returns what was read: it is in every lane."""
        return read

    def activations(self, codes: Expr, step: int) -> Expr:
        """Returns the even or the odd bytes as s16: at most 255."""
        size = lanes_of(codes) // 2
        words = T.reinterpret(vector("uint16", size), codes)
        if step == 0:
            part = T.bitwise_and(words, splat(T.uint16(255), size))
        else:
            part = T.shift_right(words, splat(T.uint16(8), size))
        return T.bind(T.reinterpret(vector("int16", size), part))

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus both products: at most 2 * 255 * 128."""
        return accumulator + add_pairs(activations, weights)

    def arrange(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns [..., lane, 4] as flat [..., step, lane, 2]."""
        by_step = weights.reshape(-1, self.lanes, 2, 2).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(by_step).ravel()

    def arrange_for_registers(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns the same, the even weights of each lane in the first step."""
        return self.arrange(weights[..., [0, 2, 1, 3]])
