"""From int32 accumulators to codes: the epilogue of convolutions and dense layers, and its constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.pointwise import Place, places
from qtorch_relay.kernels.spec import CodeDtype, RealRequantize, Requantization, RequantizeParams, Vector
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, fma, load, rounded_product, splat

MOST_STEPS = 2.0**30
"""Most steps of the output scale that are rounded to int32, with a factor of 2 for the roundings in f32."""


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
    most_steps: float = MOST_STEPS,
) -> list[npt.NDArray[Any]]:
    """Returns [scales f32 [2 or 3, padded channels], codes s32 [4]] and for RealRequantize factors f32 [3].

    scales: (addend, multiplier), (addend, multiplier, addend factor) or (kernel factor, addend), in register order, 0
    for padding channels. codes: input zero point as u8, output zero point, lowest and highest code.
    factors: input factor, output factor, output zero point.
    accumulator_bound: greatest absolute accumulator of each channel. order: channel of each lane, -1 for padding.
    most_steps: of the output scale that the kernel rounds.

    Raises: UnsupportedQuantSchemeError if a value could go beyond them before it is clamped: beyond int32 the engines
        themselves differ (x86 gives the lowest code, ARM the highest).
    """
    vectors = _vectors(params)
    if any(vector.shape != accumulator_bound.shape for vector in vectors):
        raise ValueError(f"requantization has {[v.shape for v in vectors]} constants for {accumulator_bound.shape}")
    bound = _bound(params, accumulator_bound.astype(np.float64))
    if not (bound < most_steps).all():
        channel = int(np.argmax(~(bound < most_steps)))
        raise UnsupportedQuantSchemeError(
            f"output channel {channel} can reach {bound[channel]:.3g} steps of the output scale, more than the "
            f"2^{math.log2(most_steps):.0f} an int8 kernel requantizes exactly; check the output scale and the bias, "
            "or compile with target 'generic'"
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


class TileEpilogue(Protocol):
    """What becomes of the accumulators of a register tile.

    in_zero_point: the code that padding holds, uint8.
    """

    in_zero_point: Expr

    def parts(
        self,
        accumulators: Sequence[Sequence[Expr]],
        channel: Expr,
        out: Buffer,
        addresses: Sequence[Expr],
        channels: int,
        apart: bool = False,
    ) -> Iterator[None]:
        """Emits what writes the outputs of accumulators[pixel][vector] to out[addresses[pixel] + 0 .. channels - 1].

        It comes in parts, each of about one vector. channel: index of the tile's first lane in the constants. apart:
        other code is emitted between them; else values are computed where they are stored, for which few are live.
        """


def emit(parts: Iterator[None]) -> None:
    """Emits all parts that are left."""
    for _ in parts:
        pass


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
        self.zero_point = T.Cast("int16", self.codes[1]) if kind != "real" else None
        self.clamp = T.Cast(dtype, self.codes[2]), T.Cast(dtype, self.codes[3])

    def parts(
        self,
        accumulators: Sequence[Sequence[Expr]],
        channel: Expr,
        out: Buffer,
        addresses: Sequence[Expr],
        channels: int,
        apart: bool = False,
        order: npt.NDArray[np.int64] | None = None,
    ) -> Iterator[None]:
        """Emits what writes the codes of accumulators[pixel][vector].

        order: the channel in each lane, if not the ISA's channel_order; four lanes at a time hold four consecutive
        channels.
        """
        order = self.isa.channel_order(len(accumulators[0])) if order is None else order
        scales = [self._scales(channel + j * self.isa.LANES) for j in range(len(accumulators[0]))]
        values: list[list[Expr]] = []
        for row, address in zip(accumulators, addresses, strict=True):
            values.append([])
            for accumulator, scale, place in zip(row, scales, places(order, address), strict=True):
                value = self._rounded(self._steps(accumulator, scale), place)
                values[-1].append(T.bind(value) if apart else value)
                yield
        self.isa.store_codes(values, out, addresses, channels, self.dtype, self.zero_point, self.clamp, order)

    def _rounded(self, steps: Expr, place: Place) -> Expr:
        """Returns steps of the output scale rounded half to even."""
        return self.isa.round_to_s32(steps)

    def _scales(self, lane: Expr) -> list[Expr]:
        """Returns the constants of one vector of channels."""
        rows = 3 if self.kind == "fused" else 2
        return [T.bind(load(self.scales, row * self.channels + lane, self.isa.LANES)) for row in range(rows)]

    def _steps(self, accumulator: Expr, scales: Sequence[Expr]) -> Expr:
        """Returns the accumulators of one vector in steps of the output scale, to be rounded half to even; those of the
        form "real" contain the zero point.

        Each operation rounds to f32 as written; TVM lets LLVM contract a product and a sum, so products that are
        added to are fenced.
        """
        lanes = self.isa.LANES
        value = T.Cast(f"float32x{lanes}", accumulator)
        if self.kind == "accumulator":
            addend, multiplier = scales
            return (value + addend) * multiplier
        if self.kind == "fused":
            addend, multiplier, addend_factor = scales
            return fma(addend, addend_factor, value) * multiplier
        kernel_factor, addend = scales
        input_factor, output_factor, zero_point = (splat(self.factors[i], lanes) for i in range(3))
        real = rounded_product(value * input_factor, kernel_factor) + addend
        return rounded_product(real, output_factor) + zero_point
