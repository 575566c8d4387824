"""Converters of ops that move, choose or rename elements; quantization parameters stay as they are."""

from __future__ import annotations

import math

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, wrapped_axis
from qtorch_relay.frontend.ops.moves import Tensor, reshaped, sliced
from qtorch_relay.frontend.registry import converter

# What TorchScript writes for an end that is left out.
_TO_THE_END = 2**63 - 1


@converter(
    "aten::dropout",
    "aten::dropout_",
    "aten::feature_dropout",
    "aten::alpha_dropout",
    "aten::feature_alpha_dropout",
    lowering="nothing",
)
def dropout(context: ImportContext, node: Node) -> Tensor:
    """aten::dropout(Tensor input, float p, bool train) -> Tensor, which changes no value unless train."""
    if context.argument(node, "train") and context.number(node, "p"):
        raise context.unsupported(
            node, "train is True, so it drops values at random; call eval(), or pass training=self.training"
        )
    return context.any_tensor(node, "input" if "input" in node.args else "self")


@converter(
    "aten::contiguous", "aten::detach", "aten::clone", "aten::alias", "aten::resolve_conj", "aten::resolve_neg",
    lowering="nothing",
)  # fmt: skip
def identity(context: ImportContext, node: Node) -> Tensor:
    """aten::<op>(Tensor self, ...) -> Tensor, which changes no value."""
    return context.any_tensor(node, "self")


@converter("aten::flatten.using_ints", lowering="reshape")
def flatten(context: ImportContext, node: Node) -> Tensor:
    """aten::flatten.using_ints(Tensor self, int start_dim=0, int end_dim=-1) -> Tensor"""
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    start, end = (context.axis(node, name, rank) for name in ("start_dim", "end_dim"))
    merged = 1
    for extent in value.shape[start : end + 1]:
        merged *= extent
    return reshaped(context, value, [*value.shape[:start], merged, *value.shape[end + 1 :]])


@converter("aten::view", "aten::reshape", lowering="reshape")
def view(context: ImportContext, node: Node) -> Tensor:
    """aten::view(Tensor self, int[] size) -> Tensor"""
    shape_name = "size" if "size" in node.args else "shape"
    return reshaped(context, context.any_tensor(node, "self"), _integers(context, node, shape_name))


def _integers(context: ImportContext, node: Node, name: str) -> list[int]:
    values = context.argument(node, name)
    return [int(value) for value in values]


@converter("aten::permute", lowering="permute_dims")
def permute(context: ImportContext, node: Node) -> Tensor:
    """aten::permute(Tensor self, int[] dims) -> Tensor"""
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    axes = [wrapped_axis(dim, rank) for dim in context.integers(node, "dims")]
    return value.with_expr(context.emit(relax.op.permute_dims(value.expr, axes), "permute"))


@converter("aten::slice.Tensor", lowering="strided_slice")
def slice_tensor(context: ImportContext, node: Node) -> Tensor:
    """aten::slice.Tensor(Tensor self, int dim=0, int? start=None, int? end=None, int step=1) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    extent = value.shape[axis]
    start, end = context.argument(node, "start"), context.argument(node, "end")
    for bound in (start, end):
        if bound is not None and bound != _TO_THE_END and not -extent <= bound <= extent:
            context.cut_short(node, extent)
    begin, stop, step = slice(start, end, context.integer(node, "step")).indices(extent)
    return sliced(context, value, axis, begin, max(begin, stop), step)


@converter("aten::select.int", lowering="strided_slice + squeeze")
def select(context: ImportContext, node: Node) -> Tensor:
    """aten::select.int(Tensor self, int dim, int index) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    index = context.integer(node, "index") % value.shape[axis]
    one = sliced(context, value, axis, index, index + 1)
    return one.with_expr(context.emit(relax.op.squeeze(one.expr, [axis]), "select"))


@converter("aten::unsqueeze", lowering="expand_dims")
def unsqueeze(context: ImportContext, node: Node) -> Tensor:
    """aten::unsqueeze(Tensor self, int dim) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape) + 1)
    return value.with_expr(context.emit(relax.op.expand_dims(value.expr, axis), "unsqueeze"))


@converter("aten::squeeze.dim", lowering="squeeze")
def squeeze(context: ImportContext, node: Node) -> Tensor:
    """aten::squeeze.dim(Tensor self, int dim) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    if value.shape[axis : axis + 1] != (1,):
        return value
    return value.with_expr(context.emit(relax.op.squeeze(value.expr, [axis]), "squeeze"))


@converter("aten::unflatten.int", lowering="reshape")
def unflatten(context: ImportContext, node: Node) -> Tensor:
    """aten::unflatten.int(Tensor self, int dim, SymInt[] sizes) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    sizes = context.integers(node, "sizes")
    known = -math.prod(sizes) if -1 in sizes else 1
    sizes = [value.shape[axis] // known if size == -1 else size for size in sizes]
    return reshaped(context, value, [*value.shape[:axis], *sizes, *value.shape[axis + 1 :]])
