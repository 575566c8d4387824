"""From int32 accumulators to codes: the epilogue of convolutions and dense layers, and its constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.spec import CodeDtype, RealRequantize, Requantization, RequantizeParams, Vector
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, fma, load, rounded_product, splat


def requantize_arguments(kind: Requantization, channels: int) -> list[BufferDecl]:
    """Returns the declarations of the constants pack_requantize makes, for padded channels."""
    rows = 3 if kind == "fused" else 2
    declarations: list[BufferDecl] = [("scales", (rows, channels), "float32"), ("codes", (4,), "int32")]
    if kind == "real":
        declarations.append(("factors", (3,), "float32"))
    return declarations


def pack_requantize(
    params: RequantizeParams,
    accumulator_bound: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    in_zero_point_u8: int,
) -> list[npt.NDArray[Any]]:
    """Returns [scales f32 [2 or 3, padded channels], codes s32 [4]] and for RealRequantize factors f32 [3].

    scales: (addend, multiplier), (addend, multiplier, addend factor) or (kernel factor, addend), in register order, 0
    for padding channels. codes: input zero point as u8, output zero point, lowest and highest code.
    factors: input factor, output factor, output zero point.
    accumulator_bound: greatest absolute accumulator of each channel. order: channel of each lane, -1 for padding.

    Raises: UnsupportedQuantSchemeError if a value could leave int32 before it is clamped: there the engines themselves
        differ (x86 gives the lowest code, ARM the highest).
    """
    vectors = _vectors(params)
    if any(vector.shape != accumulator_bound.shape for vector in vectors):
        raise ValueError(f"requantization has {[v.shape for v in vectors]} constants for {accumulator_bound.shape}")
    bound = _bound(params, accumulator_bound.astype(np.float64))
    # 2^30 leaves a factor of 2 for the roundings in f32
    if not (bound < 2.0**30).all():
        channel = int(np.argmax(~(bound < 2.0**30)))
        raise UnsupportedQuantSchemeError(
            f"output channel {channel} can reach {bound[channel]:.3g} steps of the output scale, more than the 2^30 an "
            "int8 kernel requantizes exactly; check the output scale and the bias, or compile with target 'generic'"
        )
    packed = np.zeros((len(vectors), order.size), dtype=np.float32)
    packed[:, order >= 0] = np.stack(vectors)[:, order[order >= 0]]
    codes = np.array([in_zero_point_u8, params.zero_point, params.low, params.high], dtype=np.int32)
    arrays: list[npt.NDArray[Any]] = [packed, codes]
    if isinstance(params, RealRequantize):
        arrays.append(np.array([params.input_factor, params.output_factor, params.zero_point], dtype=np.float32))
    return arrays


def _vectors(params: RequantizeParams) -> list[Vector]:
    """Returns the constants of each channel."""
    if isinstance(params, RealRequantize):
        return [params.kernel_factor, params.addend]
    if params.kind == "accumulator" or params.addend_factor is None:
        return [params.addend, params.multiplier]
    return [params.addend, params.multiplier, params.addend_factor]


def _bound(params: RequantizeParams, accumulator: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns how many steps of the output scale each channel can reach before the clamp."""
    addend = np.abs(params.addend.astype(np.float64))
    if isinstance(params, RealRequantize):
        real = accumulator * np.abs(params.kernel_factor.astype(np.float64)) * abs(params.input_factor) + addend
        return real * abs(params.output_factor) + abs(params.zero_point)
    if params.addend_factor is not None:
        addend = addend * np.abs(params.addend_factor.astype(np.float64))
    return (accumulator + addend) * np.abs(params.multiplier.astype(np.float64))


class Epilogue:
    """Emits the requantization of register tiles with one ISA's operations."""

    def __init__(
        self,
        isa: Isa,
        kind: Requantization,
        dtype: CodeDtype,
        channels: int,
        constants: Sequence[Buffer],
    ) -> None:
        self.isa, self.kind, self.dtype, self.channels = isa, kind, dtype, channels
        self.scales, self.codes = constants[0], constants[1]
        self.factors = constants[-1]
        self.in_zero_point = T.Cast("uint8", self.codes[0])

    def emit(
        self,
        accumulators: Sequence[Sequence[Expr]],
        channel: Expr,
        out: Buffer,
        addresses: Sequence[Expr],
        channels: int,
        order: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Writes the codes of accumulators[pixel][vector] to out[addresses[pixel] + 0 .. channels - 1].

        channel: index of the tile's first lane in the constants. order: the channel in each lane, if not the ISA's
        channel_order; four lanes at a time hold four consecutive channels.
        """
        scales = [self._scales(channel + j * self.isa.LANES) for j in range(len(accumulators[0]))]
        values = [
            [self._round(accumulator, scale) for accumulator, scale in zip(row, scales, strict=True)]
            for row in accumulators
        ]
        zero_point = T.Cast("int16", self.codes[1]) if self.kind != "real" else None
        clamp = T.Cast(self.dtype, self.codes[2]), T.Cast(self.dtype, self.codes[3])
        self.isa.store_codes(values, out, addresses, channels, self.dtype, zero_point, clamp, order)

    def _scales(self, lane: Expr) -> list[Expr]:
        """Returns the constants of one vector of channels."""
        rows = 3 if self.kind == "fused" else 2
        return [T.bind(load(self.scales, row * self.channels + lane, self.isa.LANES)) for row in range(rows)]

    def _round(self, accumulator: Expr, scales: Sequence[Expr]) -> Expr:
        """Returns the accumulators of one vector in steps of the output scale, rounded half to even.

        Each operation rounds to f32 as written; TVM lets LLVM contract a product and a sum, so products that are
        added to are fenced.
        """
        lanes = self.isa.LANES
        value = T.Cast(f"float32x{lanes}", accumulator)
        if self.kind == "accumulator":
            addend, multiplier = scales
            return self.isa.round_to_s32((value + addend) * multiplier)
        if self.kind == "fused":
            addend, multiplier, addend_factor = scales
            return self.isa.round_to_s32(fma(addend, addend_factor, value) * multiplier)
        kernel_factor, addend = scales
        input_factor, output_factor, zero_point = (splat(self.factors[i], lanes) for i in range(3))
        real = rounded_product(value * input_factor, kernel_factor) + addend
        return self.isa.round_to_s32(rounded_product(real, output_factor) + zero_point)
