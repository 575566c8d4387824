"""From int32 accumulators to codes: the epilogue of convolutions and dense layers, and its constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.kernels.spec import (
    AccumulatorRequantize,
    CodeDtype,
    RealRequantize,
    Requantization,
    RequantizeParams,
)
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, load, splat


def requantize_arguments(kind: Requantization, channels: int) -> list[BufferDecl]:
    """Returns the declarations of the constants pack_requantize makes, for padded channels."""
    declarations: list[BufferDecl] = [
        ("scales", (2, channels), "float32"),
        ("codes", (4,), "int32"),
    ]
    if kind == "real":
        declarations.append(("output", (2,), "float32"))
    return declarations


def pack_requantize(
    params: RequantizeParams,
    accumulator_bound: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    in_zero_point_u8: int,
) -> list[npt.NDArray[Any]]:
    """Returns [scales f32 [2, padded channels], codes s32 [4]] and for RealRequantize output f32 [2].

    scales: (bias, multiplier) or (scale, bias), in register order, 0 for padding channels.
    codes: input zero point as u8, output zero point, lowest and highest code. output: 1 / scale, zero point.
    accumulator_bound: greatest absolute accumulator of each channel. order: channel of each lane, -1 for padding.

    Raises: UnsupportedQuantSchemeError if a value could leave int32 before it is clamped: there the engines themselves
        differ (x86 gives the lowest code, ARM the highest).
    """
    vectors: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
    bound: npt.NDArray[np.float64]
    if isinstance(params, AccumulatorRequantize):
        vectors = (params.bias, params.multiplier)
        bound = (accumulator_bound.astype(np.float64) + np.abs(params.bias.astype(np.float64))) * np.abs(
            params.multiplier.astype(np.float64)
        )
    else:
        vectors = (params.scale, params.bias)
        real = accumulator_bound.astype(np.float64) * np.abs(params.scale.astype(np.float64)) + np.abs(
            params.bias.astype(np.float64)
        )
        bound = real * abs(float(params.inverse_scale)) + abs(params.zero_point)
    # 2^30 leaves a factor of 2 for the roundings in f32
    if not (bound < 2.0**30).all():
        channel = int(np.argmax(~(bound < 2.0**30)))
        raise UnsupportedQuantSchemeError(
            f"output channel {channel} can reach {bound[channel]:.3g} steps of the output scale, more than the 2^30 an "
            "int8 kernel requantizes exactly; check the output scale and the bias, or compile with target 'generic'"
        )
    packed = np.zeros((2, order.size), dtype=np.float32)
    packed[:, order >= 0] = np.stack(vectors)[:, order[order >= 0]]
    codes = np.array([in_zero_point_u8, params.zero_point, params.low, params.high], dtype=np.int32)
    arrays: list[npt.NDArray[Any]] = [packed, codes]
    if isinstance(params, RealRequantize):
        arrays.append(np.array([params.inverse_scale, params.zero_point], dtype=np.float32))
    return arrays


class Epilogue:
    """Emits the requantization of register tiles with one ISA's operations."""

    def __init__(
        self,
        isa: Any,
        kind: Requantization,
        dtype: CodeDtype,
        channels: int,
        constants: Sequence[Buffer],
    ) -> None:
        self.isa, self.kind, self.dtype, self.channels = isa, kind, dtype, channels
        self.scales, self.codes = constants[0], constants[1]
        self.output = constants[-1]
        self.in_zero_point = T.Cast("uint8", self.codes[0])

    def emit(
        self,
        accumulators: Sequence[Sequence[Expr]],
        channel: Expr,
        out: Buffer,
        addresses: Sequence[Expr],
        channels: int,
    ) -> None:
        """Writes the codes of accumulators[pixel][vector] to out[addresses[pixel] + 0 .. channels - 1].

        channel: index of the tile's first lane in the constants.
        """
        scales = [self._scales(channel + j * self.isa.LANES) for j in range(len(accumulators[0]))]
        values = [
            [self._round(accumulator, *scale) for accumulator, scale in zip(row, scales, strict=True)]
            for row in accumulators
        ]
        zero_point = T.Cast("int16", self.codes[1]) if self.kind == "accumulator" else None
        clamp = T.Cast(self.dtype, self.codes[2]), T.Cast(self.dtype, self.codes[3])
        self.isa.store_codes(values, out, addresses, channels, self.dtype, zero_point, clamp)

    def _scales(self, lane: Expr) -> tuple[Expr, Expr]:
        """Returns the two constants of one vector of channels."""
        lanes = self.isa.LANES
        return T.bind(load(self.scales, lane, lanes)), T.bind(load(self.scales, self.channels + lane, lanes))

    def _round(self, accumulator: Expr, first: Expr, second: Expr) -> Expr:
        """Returns the accumulators of one vector in steps of the output scale, rounded half to even.

        Each operation rounds to f32 as written: no fast-math flag is set, so LLVM neither fuses nor reorders them.
        """
        lanes = self.isa.LANES
        value = T.Cast(f"float32x{lanes}", accumulator)
        if self.kind == "accumulator":
            return self.isa.round_to_s32((value + first) * second)
        inverse_scale, zero_point = splat(self.output[0], lanes), splat(self.output[1], lanes)
        return self.isa.round_to_s32((value * first + second) * inverse_scale + zero_point)
