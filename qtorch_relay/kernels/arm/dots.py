"""Dot products of ARM: in one instruction where there is sdot or usdot, else from products widened to 16 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import DOT, Dot
from qtorch_relay.kernels.tir import Buffer, Expr, intrinsic, load, splat, vector

LANES = 4
REGISTER = DOT * LANES


class ByElement(Dot):
    """Dot products of which one operand is a lane of a register, in every lane: 16 activations are loaded at once."""

    STEPS = 1
    AT_ONCE = 4
    WEIGHT_CYCLES = 0.0
    EXTRA_REGISTERS = 0
    CYCLES = 1.0

    def weights(self, packed: Buffer, address: Expr, step: int) -> Expr:
        """Returns the weights of a vector."""
        return load(packed, address, REGISTER)

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

    def activations(self, codes: Expr, step: int) -> Expr:
        """Returns the activations as they are."""
        return codes

    def arrange(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns the weights as they are."""
        return weights.ravel()

    def arrange_for_registers(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns the weights as they are."""
        return weights.ravel()


class Sdot(ByElement):
    """sdot: four products of s8 summed into each lane; u8 activations are moved down by 128 when they are copied."""

    form = "sdot"
    SOURCE = "int8"

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus four products; wraps, never saturates."""
        return intrinsic("int32x4", "llvm.aarch64.neon.sdot", accumulator, weights, activations)


class Usdot(ByElement):
    """usdot: four products of u8 and s8 summed into each lane; activations are read where they are."""

    form = "usdot"
    SOURCE = "uint8"

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus four products; wraps, never saturates. By element its name is sudot."""
        return intrinsic("int32x4", "llvm.aarch64.neon.usdot", accumulator, activations, weights)
