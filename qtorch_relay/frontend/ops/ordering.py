"""Converters of ops that order codes: extremes, sort and topk. Codes have the order of the values they stand for.

Sorting is arithmetic: with key = code * extent + index all keys differ, and an element's place is the number of keys
below its own. Equal codes so keep their order, as in PyTorch's sort, which is stable for codes of 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.floating_extremes import greatest, place_of_greatest
from qtorch_relay.frontend.ops.moves import permuted, reshaped, sliced
from qtorch_relay.frontend.registry import converter, converter_of, refuse
from qtorch_relay.frontend.values import QuantizedValue, TensorValue

Reduce = Callable[[Any, Any, bool], Any]


@converter_of({"aten::max": relax.op.max, "aten::min": relax.op.min}, lowering="max of codes or numbers")
def extreme(context: ImportContext, node: Node, reduce: Reduce) -> QuantizedValue | TensorValue:
    """aten::max(Tensor self) -> Tensor, over all dimensions"""
    value = context.any_tensor(node, "self")
    axes = list(range(len(value.shape)))
    if isinstance(value, TensorValue):
        sign = 1 if reduce is relax.op.max else -1
        return value.with_expr(context.emit(greatest(context, value, sign, axes, keepdim=False), "extreme"))
    return _reduced(context, node, value, reduce, axes, keepdim=False)


@converter_of(
    {"aten::max.dim": (relax.op.max, relax.op.argmax), "aten::min.dim": (relax.op.min, relax.op.argmin)},
    lowering="max and argmax of codes or numbers",
)
def extreme_along(
    context: ImportContext, node: Node, found: tuple[Reduce, Reduce]
) -> tuple[QuantizedValue | TensorValue, TensorValue]:
    """aten::max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)

    Of equal codes and numbers the first counts.
    """
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    keepdim = bool(context.argument(node, "keepdim")) and bool(value.shape)
    if isinstance(value, TensorValue) and value.shape:
        sign = 1 if found[0] is relax.op.max else -1
        index = place_of_greatest(context, value, sign, axis, keepdim=keepdim)
        values = greatest(context, value, sign, [axis], keepdim=keepdim)
        return value.with_expr(context.emit(values, node.scope or "extreme")), TensorValue(
            context.emit(index, "indices")
        )
    if isinstance(value, TensorValue):
        return value, TensorValue(constant(0, "int64"))
    value = value.with_expr(reshaped(context, value, value.shape or (1,)).expr)
    reduce, place = found
    index = context.emit(place(context.emit(cast(value.expr, "int32")), axis, keepdim), "indices")
    return _reduced(context, node, value, reduce, [axis], keepdim=keepdim), TensorValue(index)


def _reduced(
    context: ImportContext, node: Node, value: QuantizedValue, reduce: Reduce, axes: list[int], *, keepdim: bool
) -> QuantizedValue:
    codes = reduce(context.emit(cast(value.expr, "int32")), axes, keepdim)
    return value.with_expr(context.emit(cast(context.emit(codes), value.qparams.dtype), node.scope or "extreme"))


@converter("aten::sort", "aten::sort.stable", lowering="comparisons of all pairs", note="quadratic in the extent")
def sort(context: ImportContext, node: Node) -> tuple[QuantizedValue, TensorValue]:
    """aten::sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) -> (Tensor, Tensor indices)"""
    value = context.quantized(node, "self")
    descending = bool(context.argument(node, "descending"))
    return _ordered(context, node, value, context.integer(node, "dim"), descending=descending)


@converter("aten::msort", lowering="comparisons of all pairs", note="quadratic in the extent")
def msort(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::msort(Tensor self) -> Tensor, sorted along dimension 0"""
    return _ordered(context, node, context.quantized(node, "self"), 0, descending=False)[0]


@converter("aten::argsort", "aten::argsort.stable", lowering="comparisons of all pairs", note="quadratic in the extent")
def argsort(context: ImportContext, node: Node) -> TensorValue:
    """aten::argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor"""
    value = context.quantized(node, "self")
    descending = bool(context.argument(node, "descending"))
    return _ordered(context, node, value, context.integer(node, "dim"), descending=descending)[1]


@converter(
    "aten::topk",
    lowering="comparisons of all pairs",
    exact="all engines; of equal codes PyTorch's choice of indices follows no rule, ours are the first ones",
    note="sorted=False gives the order that sorted=True gives",
)
def topk(context: ImportContext, node: Node) -> tuple[QuantizedValue, TensorValue]:
    """aten::topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor, Tensor indices)

    Source: aten/src/ATen/native/TopKImpl.h (std::nth_element, then std::sort, neither stable).
    """
    value = context.quantized(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    largest, count = bool(context.argument(node, "largest")), context.integer(node, "k")
    codes, index = _ordered(context, node, value, axis, descending=largest)
    return (
        value.with_expr(sliced(context, codes, axis, 0, count).expr),
        TensorValue(sliced(context, index, axis, 0, count).expr),
    )


def _ordered(
    context: ImportContext, node: Node, value: QuantizedValue, dim: int, *, descending: bool
) -> tuple[QuantizedValue, TensorValue]:
    """Returns the sorted codes, and where each came from."""
    rank = len(value.shape)
    axis = dim % max(rank, 1)
    extent = value.shape[axis] if rank else 1
    wide = "int64" if value.qparams.dtype == "int32" else "int32"
    to_last = [*(other for other in range(rank) if other != axis), axis]
    last = permuted(context, value, to_last) if rank else reshaped(context, value, [1])
    codes = context.emit(cast(last.expr, wide))
    places = constant(np.arange(extent), wide)
    keys = context.emit(
        relax.op.add(relax.op.multiply(codes, constant(-extent if descending else extent, wide)), places)
    )
    below = relax.op.less(relax.op.expand_dims(keys, [-2]), relax.op.expand_dims(keys, [-1]))
    order = context.emit(relax.op.sum(context.emit(cast(context.emit(below), wide)), axis=[-1]))
    chosen = relax.op.equal(relax.op.expand_dims(order, [-2]), constant(np.arange(extent)[:, np.newaxis], wide))
    mask = context.emit(cast(context.emit(chosen), wide))

    def placed(values: Any, dtype: str) -> Any:
        picked = relax.op.sum(context.emit(relax.op.multiply(mask, values)), axis=[-1])
        return context.emit(cast(context.emit(picked), dtype))

    back = [*range(axis), rank - 1, *range(axis, rank - 1)]
    results = (
        value.with_expr(placed(relax.op.expand_dims(codes, [-2]), value.qparams.dtype)),
        TensorValue(placed(places, "int64")),
    )
    if not rank:
        sorted_codes, index = (reshaped(context, result, []) for result in results)
    else:
        sorted_codes, index = (permuted(context, result, back) for result in results)
    return value.with_expr(sorted_codes.expr), TensorValue(index.expr)


refuse(
    "aten::aminmax",
    "aten::kthvalue",
    "aten::median",
    "aten::cumsum",
    reason="PyTorch has no kernel of it for quantized tensors",
    nearest="aten::max.dim and aten::min.dim for extremes, aten::sort for ranks",
)
