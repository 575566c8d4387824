"""Converters of resizing: nearest sources are taken, bilinear ones mixed in float32 as PyTorch's kernels mix them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant, fused_multiply_add, product, saturate
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.moves import taken
from qtorch_relay.frontend.ops.window_means import by_lanes
from qtorch_relay.frontend.registry import converter, refuse
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.numerics.resize import BILINEAR_LANES, Between, between, nearest_index

_NO_KERNEL = "PyTorch has no kernel of it for quantized tensors"
_SCATTERED = (
    "PyTorch writes the result of a planar [N, C, 1, 1] where it does not belong (C > 1, more than one output), as it "
    "takes it for channels-last; ours is in its place"
)


def _nearest(rank: int, *, exact: bool) -> None:
    name = f"aten::_upsample_nearest_exact{rank}d" if exact else f"aten::upsample_nearest{rank}d"

    @converter(name, f"{name}.vec", lowering="take", note=_SCATTERED if rank == 2 else "")
    def convert(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
        value = context.any_tensor(node, next(iter(node.args)))
        sizes, scales = _output(context, node, value, rank)
        if sizes == list(value.shape[-rank:]):
            return value
        first = len(value.shape) - rank
        for axis, (outputs, scale) in enumerate(zip(sizes, scales, strict=True), first):
            value = taken(context, value, axis, nearest_index(value.shape[axis], outputs, scale, exact=exact))
        return value


for _rank in (2, 3):
    _nearest(_rank, exact=False)
    _nearest(_rank, exact=True)


def _output(
    context: ImportContext, node: Node, value: QuantizedValue | TensorValue, rank: int
) -> tuple[list[int], list[float | None]]:
    """Returns the output's extents and the scale of each, None where the extents tell it.

    The overloads vec take sizes or scales; the others both, the scales one by one.
    """
    asked = context.argument(node, "output_size")
    if "scale_factors" in node.args:
        factors = context.argument(node, "scale_factors")
        scales: list[float | None] = [None] * rank if factors is None else [float(factor) for factor in factors]
        if asked is None:
            asked = [int(extent * factor) for extent, factor in zip(value.shape[-rank:], factors, strict=True)]
    else:
        names = [name for name in node.args if name.startswith("scales")]
        scales = [context.argument(node, name) for name in names]
    return [int(extent) for extent in asked], scales


@converter(
    "aten::upsample_bilinear2d",
    "aten::upsample_bilinear2d.vec",
    lowering="take of codes, float32 products and sums",
    note=f"PyTorch rounds differently in planar and in channels-last memory, and there in the last C % 8 channels; so "
    f"do ours. {_SCATTERED}",
)
def upsample_bilinear2d(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::upsample_bilinear2d(Tensor self, SymInt[2] output_size, bool align_corners, float? scales_h=None, float?
    scales_w=None) -> Tensor

    The arithmetic is numerics.resize.upsample_bilinear2d.
    """
    value = context.quantized(node, next(iter(node.args)))
    if value.qparams.dtype not in ("uint8", "int8"):
        raise context.unsupported(node, f"of {value.qparams.dtype} codes; accepted are quint8 and qint8")
    sizes, scales = _output(context, node, value, 2)
    if tuple(sizes) == value.shape[2:] and not value.channels_last:
        return value
    align_corners = bool(context.argument(node, "align_corners"))
    rows, columns = (
        between(extent, outputs, align_corners=align_corners, scale=scale, fused=value.channels_last)
        for extent, outputs, scale in zip(value.shape[2:], sizes, scales, strict=True)
    )
    if not value.channels_last:
        return _bilinear(context, node, value, rows, columns, "rounded")
    return by_lanes(
        context,
        value,
        BILINEAR_LANES,
        lambda part: _bilinear(context, node, part, rows, columns, "second fused"),
        lambda part: _bilinear(context, node, part, rows, columns, "first fused"),
    )


def _bilinear(
    context: ImportContext, node: Node, value: QuantizedValue, rows: Between, columns: Between, order: str
) -> QuantizedValue:
    lines = []
    for row in (rows.first, rows.second):
        line = taken(context, value, 2, row)
        ends = [taken(context, line, 3, column).expr for column in (columns.first, columns.second)]
        lines.append(context.emit(_mixed(ends, columns, (1, -1), order)))
    real = context.emit(_mixed(lines, rows, (-1, 1), order))
    zero_point = float(value.qparams.zero_point)
    if zero_point:
        # not an identity: the difference is rounded
        real = relax.op.add(
            context.emit(relax.op.subtract(real, constant([zero_point], "float32"))), constant([zero_point], "float32")
        )
    codes = saturate(relax.op.round(real), 0, value.qparams.dtype)
    return value.with_expr(context.emit(codes, node.scope or "upsample_bilinear2d"))


def _mixed(ends: Sequence[Any], where: Between, shape: tuple[int, int], order: str) -> Any:
    """Returns the weighted sum of two float32 tensors (or codes), with the roundings of this order."""
    weights = [weight.reshape(shape) for weight in (where.first_weight, where.second_weight)]
    reals = [cast(end, "float32") for end in ends]
    products = [
        product(real, constant(weight.astype(np.float64), "float64"))
        for real, weight in zip(reals, weights, strict=True)
    ]
    if order == "rounded":
        return relax.op.add(*products)
    fused = 0 if order == "first fused" else 1
    return fused_multiply_add((reals[fused], constant(weights[fused], "float32")), products[1 - fused])


refuse(
    "aten::_upsample_bilinear2d_aa",
    "aten::upsample_bicubic2d",
    "aten::upsample_trilinear3d",
    "aten::upsample_linear1d",
    "aten::upsample_nearest1d",
    "aten::_upsample_nearest_exact1d",
    reason=_NO_KERNEL,
    nearest="aten::upsample_bilinear2d or upsample_nearest2d, of a map with a height of 1",
)
