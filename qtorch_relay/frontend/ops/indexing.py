"""Converters of ops that choose elements by index tensors; quantization parameters stay as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import constant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.moves import Tensor, checked, chosen, permuted, reshaped, taken
from qtorch_relay.frontend.registry import converter, refuse
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.qnn.op_def import static_shape


@converter("aten::index_select", lowering="take")
def index_select(context: ImportContext, node: Node) -> Tensor:
    """aten::index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    index = context.argument(node, "index")
    if isinstance(index, np.ndarray):
        return taken(context, value, axis, index.reshape(-1))
    places = index if index.shape else TensorValue(context.emit(relax.op.reshape(index.expr, [1])))
    return chosen(context, node, value, axis, places)


@converter("aten::select_copy.int", lowering="take")
def select_copy(context: ImportContext, node: Node) -> Tensor:
    """aten::select_copy.int(Tensor self, int dim, SymInt index) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    one = taken(context, value, axis, [context.integer(node, "index") % value.shape[axis]])
    return reshaped(context, one, [*value.shape[:axis], *value.shape[axis + 1 :]])


@converter("aten::index.Tensor", lowering="take of a flattened tensor")
def index_tensor(context: ImportContext, node: Node) -> Tensor:
    """aten::index.Tensor(Tensor self, Tensor?[] indices) -> Tensor

    Indices broadcast against each other, and count from the end where negative. A mask must be known at import,
    because the result's shape depends on it.
    Source: aten/src/ATen/native/TensorAdvancedIndexing.cpp (indexed dimensions that are not neighbours move to the
    front).
    """
    value = context.any_tensor(node, "self")
    axes, places = index_tensors(context, node, value, context.argument(node, "indices"))
    others = [axis for axis in range(len(value.shape)) if axis not in axes]
    flat = reshaped(
        context,
        permuted(context, value, [*axes, *others]),
        [math.prod(value.shape[axis] for axis in axes), *(value.shape[axis] for axis in others)],
    )
    linear = linear_index(context, node, value, axes, places)
    # "clip" finds nothing to clip: the indices are checked
    result = flat.with_expr(context.emit(relax.op.take(flat.expr, linear, axis=0, mode="clip"), "index"))
    if axes != list(range(axes[0], axes[0] + len(axes))):
        return result
    spread = len(static_shape(linear))
    before = len([axis for axis in others if axis < axes[0]])
    order = [
        *range(spread, spread + before),
        *range(spread),
        *range(spread + before, len(result.shape)),
    ]
    return permuted(context, result, order)


def index_tensors(
    context: ImportContext, node: Node, value: Tensor, indices: Sequence[Any]
) -> tuple[list[int], list[Any]]:
    """Returns the dimensions that are indexed, and for each the integers that index it."""
    axes: list[int] = []
    places: list[Any] = []
    axis = 0
    for index in indices:
        found = [None] if index is None else _integers(context, node, index)
        axes += [axis + i for i, item in enumerate(found) if item is not None]
        places += [item for item in found if item is not None]
        axis += len(found)
    return axes, places


def linear_index(context: ImportContext, node: Node, value: Tensor, axes: Sequence[int], places: Sequence[Any]) -> Any:
    """Returns where checked indices point to in the indexed dimensions as one."""
    linear: Any = None
    for axis, index in zip(axes, places, strict=True):
        step = math.prod(value.shape[other] for other in axes if other > axis)
        found = checked(context, node, index, value.expr, axis, wraps=True)
        scaled = context.emit(relax.op.multiply(found, constant(step, "int64")))
        linear = scaled if linear is None else context.emit(relax.op.add(linear, scaled))
    return linear


def _integers(context: ImportContext, node: Node, index: Any) -> list[Any]:
    """Returns int64 indices: of a mask one for each of its dimensions, of integers themselves."""
    if isinstance(index, np.ndarray):
        return [constant(index.astype(np.int64), "int64")]
    if not isinstance(index, TensorValue):
        raise context.unsupported(node, "an index that is no tensor")
    if index.dtype not in ("bool", "uint8"):
        return [index.expr]
    mask = context.params.get(getattr(index.expr, "name", ""))
    if mask is None:
        raise context.unsupported(node, "a mask known only at run time, which gives a shape known only then")
    return [constant(places, "int64") for places in np.nonzero(mask)]


refuse(
    "aten::masked_select",
    reason="PyTorch has no kernel of it for quantized tensors",
    nearest="aten::index_select, or aten::index.Tensor",
)
