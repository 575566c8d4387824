"""Dense layers of codes whose scale and zero point are known only at run time, up to float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.conv2d import nest_for, why_not_conv2d
from qtorch_relay.kernels.conv2d_pack import lane_channels, pack_weight, source_shift
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES, plan_for
from qtorch_relay.kernels.dynamic_spec import DynamicDenseSpec
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.store_lanes import store_lanes
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, fma, load, prim_func, rounded_product, splat, vector


def why_not_dynamic_dense(spec: DynamicDenseSpec) -> str | None:
    """Returns why these kernels do not take a spec, or None."""
    if not spec.macs:
        return f"its data of shape {spec.shape} has no rows or no columns"
    return why_not_conv2d(spec.as_conv2d())


def build_dynamic_dense(isa: Isa, spec: DynamicDenseSpec) -> PrimFunc:
    """Returns dense(x, zero point, scale, weight, start, factors, out): a 1x1 convolution over one row of pixels."""
    conv = spec.as_conv2d()
    plan = plan_for(isa, conv)
    lanes = plan.padded_vectors * isa.LANES
    shift = source_shift(isa.dot_for(spec.pair_sums))
    arguments: list[BufferDecl] = [
        ("x", spec.in_shape, "uint8"),
        ("zero_point", (), "int32"),
        ("scale", (), "float32"),
        ("weight", (lanes * plan.reduction.dots * DOT_BYTES,), "int8"),
        ("start", (lanes,), "int32"),
        ("factors", (2, lanes), "float32"),
        ("out", spec.out_shape, "float32"),
    ]

    def body(
        x: Buffer, zero_point: Buffer, scale: Buffer, weight: Buffer, start: Buffer, factors: Buffer, out: Buffer
    ) -> None:
        def initial(lane: Expr) -> Expr:
            # at most 255 * 65_793 * 128 < 2^31 for a zero point that is a code
            return load(start, lane, isa.LANES) * splat(zero_point[0] - shift, isa.LANES)

        epilogue = _RealEpilogue(isa, spec, T.Cast("uint8", zero_point[0]), scale, factors, lanes)
        nest_for(isa, plan)(conv, plan, isa, x, weight, initial, epilogue, out).emit()

    return prim_func("dense_dynamic", arguments, body)


class _RealEpilogue:
    """Emits the scaling of register tiles to float32, the bias added: numerics.dynamic.scale_sums."""

    def __init__(
        self, isa: Isa, spec: DynamicDenseSpec, in_zero_point: Expr, scale: Buffer, factors: Buffer, lanes: int
    ) -> None:
        self.isa, self.spec, self.in_zero_point = isa, spec, in_zero_point
        self.scale, self.factors, self.lanes = scale, factors, lanes

    def parts(
        self,
        accumulators: Sequence[Sequence[Expr]],
        channel: Expr,
        out: Buffer,
        addresses: Sequence[Expr],
        channels: int,
        apart: bool = False,
    ) -> Iterator[None]:
        """Emits what writes the floats of accumulators[pixel][vector]."""
        size = self.isa.LANES
        for index in range(len(accumulators[0])):
            count = min(size, channels - index * size)
            scaled = self._scaled(channel + index * size)
            for row, address in zip(accumulators, addresses, strict=True):
                value = T.bind(scaled(T.Cast(vector("float32", size), row[index])))
                store_lanes(out, value, range(count), address + index * size)
                yield

    def _scaled(self, lane: Expr) -> Any:
        """Returns what turns the sums of one vector of channels into floats, each operation rounded as told."""
        size = self.isa.LANES
        scale = splat(self.scale[0], size)
        factor, addend = (T.bind(load(self.factors, row * self.lanes + lane, size)) for row in range(2))

        def real(sums: Expr) -> Expr:
            return rounded_product(sums * scale, factor) + addend

        sum_scale = None if self.spec.arithmetic == "real" else T.bind(scale * factor)

        def one_scale(sums: Expr) -> Expr:
            if self.spec.arithmetic == "fused":
                return fma(sums, sum_scale, addend)
            return rounded_product(sums, sum_scale) + addend

        form = real if sum_scale is None else one_scale
        zeros = splat(T.float32(0), size)
        return (lambda sums: T.max(form(sums), zeros)) if self.spec.relu else form


def pack_dynamic_dense(
    isa: Isa,
    spec: DynamicDenseSpec,
    weight: npt.NDArray[np.int8],
    factor: npt.NDArray[np.float32],
    addend: npt.NDArray[np.float32],
) -> list[npt.NDArray[Any]]:
    """Returns [weight s8, start s32, factors f32 [2, padded channels]].

    weight: [out_features, in_features]. start: -sum(weight) of each lane, which times the zero point is where the sums
    begin. factors: the weight's scale as the engine uses it, the bias; both are numbers [out_features].
    """
    conv = spec.as_conv2d()
    plan = plan_for(isa, conv)
    lanes = lane_channels(plan, isa.LANES, partial(_consecutive, isa.LANES))
    used = lanes >= 0
    start = np.zeros(lanes.size, np.int32)
    start[used] = -weight.sum(axis=1, dtype=np.int32)[lanes[used]]
    factors = np.zeros((2, lanes.size), np.float32)
    factors[:, used] = np.stack([factor, addend])[:, lanes[used]]
    return [pack_weight(isa, conv, plan, weight.reshape(conv.weight_shape), lanes), start, factors]


def _consecutive(lanes: int, vectors: int) -> npt.NDArray[np.int64]:
    """Returns the channel within a block that each lane of its vectors holds: floats are stored as they lie."""
    return np.arange(vectors * lanes).reshape(vectors, lanes)
