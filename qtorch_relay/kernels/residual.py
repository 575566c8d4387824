"""A convolution's codes and those of another input, added before they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.pointwise import Place
from qtorch_relay.kernels.requantize import Epilogue
from qtorch_relay.kernels.spec import CodeDtype, Requantization, RequantizeParams
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, fma, prefetch, rounded, splat, vector

RAISED = 1.5 * 2.0**23
"""RAISED + x, a float32, is RAISED + rne(x) for |x| < 2^22: between 2^23 and 2^24 float32 numbers are the integers."""

ROUNDED_STEPS = 2.0**22
"""Most steps of the convolution's output scale that are rounded so."""

RAISED_BITS = int(np.float32(RAISED).view(np.int32))
"""The bits of RAISED + n, for an integer n, are RAISED_BITS + n."""

PIXELS_AHEAD = 8
"""How much earlier a residual is fetched than used: each part of its channels is read with gaps between the pixels."""

ADD_ARGUMENTS: tuple[BufferDecl, ...] = (
    ("add_factors", (8,), "float32"),
    ("add_codes", (3,), "int32"),
    ("raised_codes", (3,), "int32"),
)


def pack_raised_codes(params: RequantizeParams) -> npt.NDArray[np.int32]:
    """Returns [3]: the bits of RAISED plus the lowest and the highest code, and of what is then taken off; all without
    the zero point where the steps are.
    """
    zero_point = 0 if params.kind == "real" else params.zero_point
    taken_off = int(np.float32(RAISED - zero_point).view(np.int32))
    return np.array(
        [RAISED_BITS + params.low - zero_point, RAISED_BITS + params.high - zero_point, taken_off], np.int32
    )


class AddEpilogue(Epilogue):
    """Emits the requantization of register tiles and the sum of their codes and a residual, as build_add has it."""

    def __init__(
        self,
        isa: Isa,
        kind: Requantization,
        dtype: CodeDtype,
        channels: int,
        constants: Sequence[Buffer],
        residual: Buffer,
    ) -> None:
        *constants, self.add_factors, self.add_codes, self.raised_codes = constants
        super().__init__(isa, kind, dtype, channels, constants)
        self.residual = residual
        zero_point, low, high = (self.add_codes[i] for i in range(3))
        self.zero_point, self.clamp = T.Cast("int16", zero_point), (T.Cast(dtype, low), T.Cast(dtype, high))

    def _rounded(self, steps: Expr, place: Place) -> Expr:
        """Returns the sum of a vector of codes and the residual's in steps of the output scale, rounded half to even.

        The codes of the convolution are rounded, clamped and made floats again without leaving them.
        """
        lanes = self.isa.LANES
        if self.isa.prefetches and place.lanes[0] == 0:
            prefetch(self.residual, place.index + PIXELS_AHEAD * self.channels)

        def raised(index: int) -> Expr:
            return splat(self.raised_codes[index], lanes)

        def factor(index: int) -> Expr:
            return splat(self.add_factors[index], lanes)

        bits = T.reinterpret(vector("int32", lanes), rounded(steps) + splat(T.float32(RAISED), lanes))
        clamped = T.reinterpret(vector("float32", lanes), T.min(T.max(bits, raised(0)), raised(1)))
        codes = rounded(clamped) - T.reinterpret(vector("float32", lanes), raised(2))
        total = fma(factor(0), codes, factor(1)) + fma(factor(2), place.floats(self.residual), factor(3))
        return self.isa.round_to_s32(total * factor(4))
