"""Sums and variances of tensors that are not quantized, and what compares two of them element by element."""

from __future__ import annotations

import math
from typing import Any

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.floating_elementwise import float_tensor
from qtorch_relay.frontend.registry import UP_TO_ORDER, converter
from qtorch_relay.frontend.values import TensorValue


@converter("aten::sum", "aten::sum.dim_IntList", lowering="sum in float64, rounded once", exact=UP_TO_ORDER)
def total(context: ImportContext, node: Node) -> TensorValue:
    """aten::sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    value = float_tensor(context, node, "self")
    if node.args["dtype"] is not None:
        raise context.unsupported(node, "a dtype argument")
    axes, keep = _axes(context, node, len(value.shape)), bool(node.args.get("keepdim", False))
    summed = relax.op.sum(cast(value.expr, "float64"), axes, keep)
    return value.with_expr(context.emit(cast(summed, value.dtype), node.scope or "sum"))


@converter("aten::var", "aten::var.dim", "aten::var.correction", lowering="moments in float64", exact=UP_TO_ORDER)
def variance(context: ImportContext, node: Node) -> TensorValue:
    """aten::var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor"""
    value = float_tensor(context, node, "self")
    correction = 1.0
    if node.args.get("correction") is not None:
        correction = context.number(node, "correction")
    elif "unbiased" in node.args:
        correction = float(bool(node.args["unbiased"]))
    axes, keep = _axes(context, node, len(value.shape)), bool(node.args.get("keepdim", False))
    count = math.prod(value.shape[axis] for axis in axes)
    wide = cast(value.expr, "float64")
    centered = context.emit(relax.op.subtract(wide, relax.op.mean(wide, axes, keepdims=True)))
    squares = context.emit(relax.op.sum(relax.op.multiply(centered, centered), axes, keep))
    spread = relax.op.divide(squares, constant(max(count - correction, 0.0), "float64"))
    return value.with_expr(context.emit(cast(spread, value.dtype), node.scope or "var"))


def _axes(context: ImportContext, node: Node, rank: int) -> list[int]:
    """Returns the dimensions that are reduced; none named means all."""
    dims: Any = context.argument(node, "dim") if node.args.get("dim") is not None else None
    return [int(dim) % rank for dim in dims] if dims else list(range(rank))


@converter("aten::maximum", "aten::max.other", lowering="maximum")
def maximum(context: ImportContext, node: Node) -> TensorValue:
    """aten::maximum(Tensor self, Tensor other) -> Tensor"""
    lhs, rhs = float_tensor(context, node, "self"), float_tensor(context, node, "other")
    return TensorValue(context.emit(relax.op.maximum(lhs.expr, rhs.expr), node.scope or "maximum"))


@converter("aten::minimum", "aten::min.other", lowering="minimum")
def minimum(context: ImportContext, node: Node) -> TensorValue:
    """aten::minimum(Tensor self, Tensor other) -> Tensor"""
    lhs, rhs = float_tensor(context, node, "self"), float_tensor(context, node, "other")
    return TensorValue(context.emit(relax.op.minimum(lhs.expr, rhs.expr), node.scope or "minimum"))
