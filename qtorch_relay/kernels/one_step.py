"""Dot products that take all four products of a lane at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.isa import DOT, Dot
from qtorch_relay.kernels.tir import Buffer, Expr, load


class OneStep(Dot):
    """Weights as the planner packs them, activations in a register as they are; LANES of int32 a vector."""

    LANES: int
    STEPS = 1
    WEIGHT_CYCLES = 0.0
    SPREAD_CYCLES = 0.0

    def weights(self, packed: Buffer, address: Expr, step: int) -> Expr:
        """Returns the weights of a vector."""
        return load(packed, address, DOT * self.LANES)

    def activations(self, codes: Expr, step: int) -> Expr:
        """Returns the activations as they are."""
        return codes

    def arrange(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns the weights as they are."""
        return weights.ravel()

    def arrange_for_registers(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns the weights as they are."""
        return weights.ravel()
