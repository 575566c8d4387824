"""Converters of ops that move, choose or rename elements; quantization parameters stay as they are."""

from __future__ import annotations

import math
from typing import TypeAlias

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue

Tensor: TypeAlias = QuantizedValue | TensorValue


@converter(
    "aten::dropout",
    "aten::dropout_",
    "aten::feature_dropout",
    "aten::contiguous",
    "aten::detach",
    "aten::clone",
    "aten::alias",
    "aten::alpha_dropout",
    "aten::feature_alpha_dropout",
    lowering="nothing",
)
def identity(context: ImportContext, node: Node) -> Tensor:
    """aten::<op>(Tensor ...) -> Tensor, which changes no value at inference."""
    return context.any_tensor(node, next(iter(node.args)))


@converter("aten::flatten.using_ints", lowering="reshape")
def flatten(context: ImportContext, node: Node) -> Tensor:
    """aten::flatten.using_ints(Tensor self, int start_dim=0, int end_dim=-1) -> Tensor"""
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    start, end = (context.integer(node, name) % rank for name in ("start_dim", "end_dim"))
    merged = 1
    for extent in value.shape[start : end + 1]:
        merged *= extent
    return _reshape(context, value, [*value.shape[:start], merged, *value.shape[end + 1 :]])


@converter("aten::view", "aten::reshape", lowering="reshape")
def view(context: ImportContext, node: Node) -> Tensor:
    """aten::view(Tensor self, int[] size) -> Tensor"""
    shape_name = "size" if "size" in node.args else "shape"
    return _reshape(context, context.any_tensor(node, "self"), _integers(context, node, shape_name))


def _integers(context: ImportContext, node: Node, name: str) -> list[int]:
    values = context.argument(node, name)
    return [int(value) for value in values]


def _reshape(context: ImportContext, value: Tensor, shape: list[int]) -> Tensor:
    known, total = 1, 1
    for extent in shape:
        known *= 1 if extent == -1 else extent
    for extent in value.shape:
        total *= extent
    resolved = [total // known if extent == -1 else extent for extent in shape]
    if tuple(resolved) == value.shape:
        return value
    return value.with_expr(context.emit(relax.op.reshape(value.expr, resolved), "reshape"))


@converter("aten::transpose.int", lowering="permute_dims")
def transpose(context: ImportContext, node: Node) -> Tensor:
    """aten::transpose.int(Tensor self, int dim0, int dim1) -> Tensor"""
    value = context.any_tensor(node, "self")
    axes = list(range(len(value.shape)))
    first, second = context.integer(node, "dim0"), context.integer(node, "dim1")
    axes[first], axes[second] = axes[second], axes[first]
    return value.with_expr(context.emit(relax.op.permute_dims(value.expr, axes), "transpose"))


@converter("aten::permute", lowering="permute_dims")
def permute(context: ImportContext, node: Node) -> Tensor:
    """aten::permute(Tensor self, int[] dims) -> Tensor"""
    value = context.any_tensor(node, "self")
    axes = [axis % len(value.shape) for axis in context.integers(node, "dims")]
    return value.with_expr(context.emit(relax.op.permute_dims(value.expr, axes), "permute"))


@converter("aten::chunk", lowering="split")
def chunk(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::chunk(Tensor self, int chunks, int dim=0) -> Tensor[]

    Chunks of ceil(extent / chunks), the last one shorter.
    """
    value = context.any_tensor(node, "self")
    axis = context.integer(node, "dim") % len(value.shape)
    extent = value.shape[axis]
    step = -(-extent // context.integer(node, "chunks"))
    return [_slice(context, value, axis, start, min(start + step, extent)) for start in range(0, extent, step)]


@converter("aten::slice.Tensor", lowering="strided_slice")
def slice_tensor(context: ImportContext, node: Node) -> Tensor:
    """aten::slice.Tensor(Tensor self, int dim=0, int? start=None, int? end=None, int step=1) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.integer(node, "dim") % len(value.shape)
    start, end = context.argument(node, "start"), context.argument(node, "end")
    begin, stop, step = slice(start, end, context.integer(node, "step")).indices(value.shape[axis])
    return _slice(context, value, axis, begin, stop, step)


def _slice(context: ImportContext, value: Tensor, axis: int, begin: int, end: int, step: int = 1) -> Tensor:
    if (begin, end, step) == (0, value.shape[axis], 1):
        return value
    return value.with_expr(context.emit(relax.op.strided_slice(value.expr, [axis], [begin], [end], [step]), "slice"))


@converter("aten::select.int", lowering="strided_slice + squeeze")
def select(context: ImportContext, node: Node) -> Tensor:
    """aten::select.int(Tensor self, int dim, int index) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.integer(node, "dim") % len(value.shape)
    index = context.integer(node, "index") % value.shape[axis]
    one = _slice(context, value, axis, index, index + 1)
    return one.with_expr(context.emit(relax.op.squeeze(one.expr, [axis]), "select"))


@converter("aten::unsqueeze", lowering="expand_dims")
def unsqueeze(context: ImportContext, node: Node) -> Tensor:
    """aten::unsqueeze(Tensor self, int dim) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.integer(node, "dim") % (len(value.shape) + 1)
    return value.with_expr(context.emit(relax.op.expand_dims(value.expr, axis), "unsqueeze"))


@converter("aten::squeeze.dim", lowering="squeeze")
def squeeze(context: ImportContext, node: Node) -> Tensor:
    """aten::squeeze.dim(Tensor self, int dim) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.integer(node, "dim") % len(value.shape)
    if value.shape[axis] != 1:
        return value
    return value.with_expr(context.emit(relax.op.squeeze(value.expr, [axis]), "squeeze"))


@converter("aten::unflatten.int", lowering="reshape")
def unflatten(context: ImportContext, node: Node) -> Tensor:
    """aten::unflatten.int(Tensor self, int dim, SymInt[] sizes) -> Tensor"""
    value = context.any_tensor(node, "self")
    axis = context.integer(node, "dim") % len(value.shape)
    sizes = context.integers(node, "sizes")
    known = -math.prod(sizes) if -1 in sizes else 1
    sizes = [value.shape[axis] // known if size == -1 else size for size in sizes]
    return _reshape(context, value, [*value.shape[:axis], *sizes, *value.shape[axis + 1 :]])
