"""Converters of ops that repeat elements, or add and drop dimensions of extent 1; parameters stay as they are."""

from __future__ import annotations

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, wrapped_axis
from qtorch_relay.frontend.ops.moves import Tensor, broadcast, reshaped, taken
from qtorch_relay.frontend.registry import converter, converter_of


@converter("aten::squeeze", "aten::squeeze.dims", lowering="squeeze")
def squeeze(context: ImportContext, node: Node) -> Tensor:
    """aten::squeeze.dims(Tensor self, int[] dim) -> Tensor; all dimensions of extent 1 without dim."""
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    dims = context.integers(node, "dim") if "dim" in node.args else range(rank)
    named = [wrapped_axis(dim, rank) for dim in dims]
    axes = [axis for axis in named if value.shape[axis : axis + 1] == (1,)]
    return value.with_expr(context.emit(relax.op.squeeze(value.expr, axes), "squeeze")) if axes else value


@converter("aten::ravel", lowering="reshape")
def ravel(context: ImportContext, node: Node) -> Tensor:
    """aten::ravel(Tensor self) -> Tensor"""
    return reshaped(context, context.any_tensor(node, "self"), [-1])


@converter("aten::_unsafe_view", "aten::_reshape_alias", lowering="reshape")
def unsafe_view(context: ImportContext, node: Node) -> Tensor:
    """aten::_unsafe_view(Tensor self, SymInt[] size) -> Tensor"""
    return reshaped(context, context.any_tensor(node, "self"), context.integers(node, "size"))


@converter("aten::view_as", "aten::reshape_as", lowering="reshape")
def view_as(context: ImportContext, node: Node) -> Tensor:
    """aten::view_as(Tensor self, Tensor other) -> Tensor"""
    return reshaped(context, context.any_tensor(node, "self"), context.any_tensor(node, "other").shape)


@converter_of({"aten::atleast_1d": 1, "aten::atleast_2d": 2, "aten::atleast_3d": 3}, lowering="reshape")
def at_least(context: ImportContext, node: Node, wanted: int) -> Tensor:
    """aten::atleast_1d(Tensor self) -> Tensor

    A vector becomes [1, N] and [1, N, 1], a matrix [M, N, 1].
    """
    value = context.any_tensor(node, "self")
    shape = list(value.shape)
    if len(shape) < 2 <= wanted:
        shape = [1, *shape] if shape else [1, 1]
    if len(shape) < wanted:
        shape = [*shape, 1] if shape else [1]
    return reshaped(context, value, shape)


@converter("aten::expand", "aten::broadcast_to", lowering="broadcast_to")
def expand(context: ImportContext, node: Node) -> Tensor:
    """aten::expand(Tensor self, SymInt[] size, *, bool implicit=False) -> Tensor"""
    return broadcast(context, context.any_tensor(node, "self"), context.integers(node, "size"))


@converter("aten::expand_as", lowering="broadcast_to")
def expand_as(context: ImportContext, node: Node) -> Tensor:
    """aten::expand_as(Tensor self, Tensor other) -> Tensor"""
    return broadcast(context, context.any_tensor(node, "self"), context.any_tensor(node, "other").shape)


@converter("aten::broadcast_tensors", lowering="broadcast_to")
def broadcast_tensors(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::broadcast_tensors(Tensor[] tensors) -> Tensor[]"""
    values: list[Tensor] = context.argument(node, "tensors")
    shape = np.broadcast_shapes(*(value.shape for value in values))
    return [broadcast(context, value, shape) for value in values]


@converter("aten::meshgrid", "aten::meshgrid.indexing", lowering="reshape + broadcast_to")
def meshgrid(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::meshgrid.indexing(Tensor[] tensors, *, str indexing) -> Tensor[]

    With "xy" the first two dimensions change places.
    """
    values: list[Tensor] = context.argument(node, "tensors")
    order = list(range(len(values)))
    if "indexing" in node.args and context.argument(node, "indexing") == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    shape = [int(np.prod(values[i].shape)) for i in order]
    return [
        broadcast(context, reshaped(context, value, [-1 if axis == i else 1 for axis in order]), shape)
        for i, value in enumerate(values)
    ]


@converter("aten::repeat", lowering="tile")
def repeat(context: ImportContext, node: Node) -> Tensor:
    """aten::repeat(Tensor self, SymInt[] repeats) -> Tensor"""
    return _tiled(context, context.any_tensor(node, "self"), context.integers(node, "repeats"))


@converter("aten::tile", lowering="tile")
def tile(context: ImportContext, node: Node) -> Tensor:
    """aten::tile(Tensor self, SymInt[] dims) -> Tensor"""
    return _tiled(context, context.any_tensor(node, "self"), context.integers(node, "dims"))


def _tiled(context: ImportContext, value: Tensor, repeats: list[int]) -> Tensor:
    return value.with_expr(context.emit(relax.op.tile(value.expr, repeats), "tile"))


@converter("aten::repeat_interleave.self_int", lowering="take")
def repeat_interleave(context: ImportContext, node: Node) -> Tensor:
    """aten::repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *, SymInt? output_size=None) -> T"""
    value = context.any_tensor(node, "self")
    dim = context.argument(node, "dim")
    if dim is None:
        value, dim = reshaped(context, value, [-1]), 0
    axis = wrapped_axis(dim, len(value.shape))
    return taken(context, value, axis, np.repeat(np.arange(value.shape[axis]), context.integer(node, "repeats")))


@converter("aten::pixel_shuffle", lowering="reshape + permute_dims")
def pixel_shuffle(context: ImportContext, node: Node) -> Tensor:
    """aten::pixel_shuffle(Tensor self, int upscale_factor) -> Tensor

    Shapes: self [..., C * r * r, H, W]; result [..., C, H * r, W * r].
    """
    value = context.any_tensor(node, "self")
    factor = context.integer(node, "upscale_factor")
    *batch, channels, height, width = value.shape
    depth = channels // factor**2
    split = reshaped(context, value, [-1, depth, factor, factor, height, width])
    moved = split.with_expr(context.emit(relax.op.permute_dims(split.expr, [0, 1, 4, 2, 5, 3])))
    return reshaped(context, moved, [*batch, depth, height * factor, width * factor])


@converter("aten::pixel_unshuffle", lowering="reshape + permute_dims")
def pixel_unshuffle(context: ImportContext, node: Node) -> Tensor:
    """aten::pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor

    Shapes: self [..., C, H * r, W * r]; result [..., C * r * r, H, W].
    """
    value = context.any_tensor(node, "self")
    factor = context.integer(node, "downscale_factor")
    *batch, channels, height, width = value.shape
    split = reshaped(context, value, [-1, channels, height // factor, factor, width // factor, factor])
    moved = split.with_expr(context.emit(relax.op.permute_dims(split.expr, [0, 1, 3, 5, 2, 4])))
    return reshaped(context, moved, [*batch, channels * factor**2, height // factor, width // factor])


@converter("aten::channel_shuffle", "aten::native_channel_shuffle", lowering="reshape + permute_dims")
def channel_shuffle(context: ImportContext, node: Node) -> Tensor:
    """aten::channel_shuffle(Tensor self, SymInt groups) -> Tensor

    Of quantized tensors PyTorch takes quint8 alone (native_channel_shuffle: any dtype).
    """
    value = context.any_tensor(node, "self")
    groups = context.integer(node, "groups")
    batch, channels, *rest = value.shape
    split = reshaped(context, value, [batch, groups, channels // groups, *rest])
    moved = split.with_expr(context.emit(relax.op.permute_dims(split.expr, [0, 2, 1, *range(3, len(rest) + 3)])))
    return reshaped(context, moved, value.shape)
