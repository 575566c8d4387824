"""The greatest and least values of tensors that are not quantized, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.registry import converter_of
from qtorch_relay.frontend.values import QuantizedValue, TensorValue

_NOTE = "of codes PyTorch has no kernel; nearest: aten::max.dim, aten::min.dim"


@converter_of({"aten::amax": 1, "aten::amin": -1}, lowering="max of floats or integers", note=_NOTE)
def extremes(context: ImportContext, node: Node, sign: int) -> TensorValue:
    """aten::amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    value = _plain(context, node)
    rank = len(value.shape)
    axes = [int(dim) % rank for dim in context.argument(node, "dim")] or list(range(rank))
    keepdim = bool(context.argument(node, "keepdim"))
    return value.with_expr(context.emit(greatest(context, value, sign, axes, keepdim=keepdim), node.scope or "extreme"))


@converter_of({"aten::argmax": 1, "aten::argmin": -1}, lowering="argmax of floats or integers", note=_NOTE)
def places(context: ImportContext, node: Node, sign: int) -> TensorValue:
    """aten::argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    value, keepdim = _plain(context, node), bool(context.argument(node, "keepdim"))
    rank, dim = len(value.shape), context.argument(node, "dim")
    if dim is not None:
        index = place_of_greatest(context, value, sign, int(dim) % max(rank, 1), keepdim=keepdim)
        return TensorValue(context.emit(index, "indices"))
    flat = value.with_expr(context.emit(relax.op.reshape(value.expr, [-1])))
    index = context.emit(place_of_greatest(context, flat, sign, 0, keepdim=False), "indices")
    return TensorValue(context.emit(relax.op.reshape(index, [1] * rank)) if keepdim else index)


def _plain(context: ImportContext, node: Node) -> TensorValue:
    value = context.any_tensor(node, "self")
    if isinstance(value, QuantizedValue):
        raise context.unsupported(node, f"{describe(value)}: {_NOTE}")
    return value


def greatest(context: ImportContext, value: TensorValue, sign: int, axes: Sequence[int], *, keepdim: bool) -> Any:
    """Returns the greatest value along axes, the least if sign is -1; NaN where there is one, as in PyTorch."""
    found = context.emit((relax.op.max if sign == 1 else relax.op.min)(value.expr, axes, keepdim))
    if not value.dtype.startswith("float"):
        return found
    worst, nan = (constant(number, value.dtype) for number in (-sign * np.inf, np.nan))
    # TVM starts its maximum at the least finite number, and leaves NaN out
    better = (relax.op.greater if sign == 1 else relax.op.less)(value.expr, worst)
    found = context.emit(relax.op.where(_any(context, better, axes, keepdim), found, worst))
    return relax.op.where(_any(context, relax.op.isnan(value.expr), axes, keepdim), nan, found)


def place_of_greatest(context: ImportContext, value: TensorValue, sign: int, axis: int, *, keepdim: bool) -> Any:
    """Returns the int64 index along an axis of the greatest value, the least if sign is -1: of equal ones the first, of
    NaN the first."""
    if not value.shape:
        return constant(0, "int64")
    index = context.emit((relax.op.argmax if sign == 1 else relax.op.argmin)(value.expr, axis, keepdim))
    # where nothing is above the least finite number, TVM's index is -1
    index = relax.op.maximum(index, constant(0, "int64"))
    if not value.dtype.startswith("float"):
        return index
    unknown = context.emit(relax.op.isnan(value.expr))
    first = context.emit(relax.op.argmax(context.emit(cast(unknown, "int32")), axis, keepdim))
    return relax.op.where(_any(context, unknown, [axis], keepdim), first, index)


def _any(context: ImportContext, condition: Any, axes: Sequence[int], keepdim: bool) -> Any:
    return context.emit(cast(relax.op.max(context.emit(cast(context.emit(condition), "int32")), axes, keepdim), "bool"))
