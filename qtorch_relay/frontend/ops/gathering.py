"""Converters of ops that choose or replace single elements by index tensors; PyTorch has them for floats only."""

from __future__ import annotations

import math

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.moves import Tensor, broadcast, checked, chosen, reshaped
from qtorch_relay.frontend.registry import converter


@converter("aten::gather", lowering="gather_elements")
def gather(context: ImportContext, node: Node) -> Tensor:
    """aten::gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor"""
    value, index = context.tensor(node, "self"), context.tensor(node, "index")
    axis = context.axis(node, "dim", len(value.shape))
    return _gathered(context, node, value, axis, index, wraps=False)


@converter("aten::take_along_dim", lowering="gather_elements")
def take_along_dim(context: ImportContext, node: Node) -> Tensor:
    """aten::take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor

    Both broadcast against each other, but for the dimension; without one, elements are counted as in one row.
    """
    value: Tensor = context.tensor(node, "self")
    index: Tensor = context.tensor(node, "indices")
    if node.args["dim"] is None:
        value, index = (reshaped(context, item, [math.prod(item.shape)]) for item in (value, index))
        return _gathered(context, node, value, 0, index, wraps=True)
    axis = context.axis(node, "dim", len(value.shape))
    common = [max(pair) if 0 not in pair else 0 for pair in zip(value.shape, index.shape, strict=True)]
    value, index = (
        broadcast(context, item, [*common[:axis], item.shape[axis], *common[axis + 1 :]]) for item in (value, index)
    )
    return _gathered(context, node, value, axis, index, wraps=True)


def _gathered(context: ImportContext, node: Node, value: Tensor, axis: int, index: Tensor, *, wraps: bool) -> Tensor:
    """Returns the elements at positions of an axis; along the others an element keeps its place."""
    if not value.shape:
        value, index = (reshaped(context, item, [1]) for item in (value, index))
        return reshaped(context, _gathered(context, node, value, 0, index, wraps=wraps), [])
    places = checked(context, node, index.expr, value.expr, axis, wraps=wraps)
    for other, extent in enumerate(index.shape):
        if other != axis and extent != value.shape[other]:
            value = value.with_expr(context.emit(relax.op.strided_slice(value.expr, [other], [0], [extent])))
    return value.with_expr(context.emit(relax.op.gather_elements(value.expr, places, axis), node.scope or "gather"))


@converter("aten::take", lowering="take of a flattened tensor")
def take(context: ImportContext, node: Node) -> Tensor:
    """aten::take(Tensor self, Tensor index) -> Tensor"""
    value = context.tensor(node, "self")
    flat = reshaped(context, value, [math.prod(value.shape)])
    return chosen(context, node, flat, 0, context.tensor(node, "index"), wraps=True)
