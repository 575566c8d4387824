"""Converters of ops that cut a tensor into parts; quantization parameters stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.moves import Tensor, permuted, reshaped, sliced, taken, without_axis
from qtorch_relay.frontend.registry import converter, converter_of


@converter("aten::chunk", "aten::unsafe_chunk", lowering="strided_slice")
def chunk(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::chunk(Tensor self, int chunks, int dim=0) -> Tensor[]

    Chunks of ceil(extent / chunks), the last one shorter.
    """
    value, axis = _operand(context, node)
    step = -(-value.shape[axis] // context.integer(node, "chunks"))
    return _every(context, value, axis, step)


@converter("aten::split.Tensor", "aten::unsafe_split.Tensor", lowering="strided_slice")
def split(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::split.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]"""
    value, axis = _operand(context, node)
    size = context.integer(node, "split_size")
    if size > value.shape[axis]:
        context.cut_short(node, value.shape[axis])
    return _every(context, value, axis, size)


@converter("aten::split.sizes", lowering="strided_slice")
def split_by_list(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::split.sizes(Tensor self, SymInt[] split_size, int dim=0) -> Tensor[]"""
    value, axis = _operand(context, node)
    return _of_sizes(context, value, axis, context.integers(node, "split_size"))


@converter("aten::split_with_sizes", "aten::unsafe_split_with_sizes", lowering="strided_slice")
def split_with_sizes(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::split_with_sizes(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]"""
    value, axis = _operand(context, node)
    return _of_sizes(context, value, axis, context.integers(node, "split_sizes"))


@converter("aten::tensor_split.sections", lowering="strided_slice")
def tensor_split(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::tensor_split.sections(Tensor self, SymInt sections, int dim=0) -> Tensor[]"""
    value, axis = _operand(context, node)
    return _sections(context, value, axis, context.integer(node, "sections"))


@converter("aten::tensor_split.indices", lowering="strided_slice")
def tensor_split_at(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::tensor_split.indices(Tensor self, SymInt[] indices, int dim=0) -> Tensor[]"""
    value, axis = _operand(context, node)
    return _at(context, node, value, axis)


@converter_of({"aten::hsplit.int": 1, "aten::vsplit.int": 0, "aten::dsplit.int": 2}, lowering="strided_slice")
def split_along(context: ImportContext, node: Node, axis: int) -> list[Tensor]:
    """aten::hsplit.int(Tensor self, int sections) -> Tensor[], along dimension 1 (of vectors 0); vsplit 0, dsplit 2"""
    value = context.any_tensor(node, "self")
    return _sections(context, value, min(axis, len(value.shape) - 1), context.integer(node, "sections"))


@converter_of({"aten::hsplit.array": 1, "aten::vsplit.array": 0, "aten::dsplit.array": 2}, lowering="strided_slice")
def split_along_at(context: ImportContext, node: Node, axis: int) -> list[Tensor]:
    """aten::hsplit.array(Tensor self, int[] indices) -> Tensor[]; dimensions as of split_along"""
    value = context.any_tensor(node, "self")
    return _at(context, node, value, min(axis, len(value.shape) - 1))


@converter("aten::unbind.int", lowering="strided_slice + squeeze")
def unbind(context: ImportContext, node: Node) -> list[Tensor]:
    """aten::unbind.int(Tensor self, int dim=0) -> Tensor[]"""
    value, axis = _operand(context, node)
    parts = _every(context, value, axis, 1)
    return [without_axis(context, part, axis) for part in parts]


@converter("aten::narrow", "aten::narrow_copy", lowering="strided_slice")
def narrow(context: ImportContext, node: Node) -> Tensor:
    """aten::narrow(Tensor self, int dim, SymInt start, SymInt length) -> Tensor"""
    value, axis = _operand(context, node)
    start = context.integer(node, "start")
    start += value.shape[axis] if start < 0 else 0
    return sliced(context, value, axis, start, start + context.integer(node, "length"))


@converter("aten::unfold", lowering="take")
def unfold(context: ImportContext, node: Node) -> Tensor:
    """aten::unfold(Tensor self, int dimension, int size, int step) -> Tensor

    Shapes: self [..., L, ...]; the windows take the place of L, their elements are a new last dimension.
    """
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    axis = context.axis(node, "dimension", rank)
    size, step = context.integer(node, "size"), context.integer(node, "step")
    starts = np.arange(0, value.shape[axis] - size + 1, step)
    windows = taken(context, value, axis, np.add.outer(starts, np.arange(size)).reshape(-1))
    split_axis = [*value.shape[:axis], len(starts), size, *value.shape[axis + 1 :]]
    axes = [*range(axis + 1), *range(axis + 2, rank + 1), axis + 1]
    return permuted(context, reshaped(context, windows, split_axis), axes)


@converter("aten::as_strided", "aten::as_strided_copy", lowering="take")
def as_strided(context: ImportContext, node: Node) -> Tensor:
    """aten::as_strided(Tensor self, SymInt[] size, SymInt[] stride, SymInt? storage_offset=None) -> Tensor

    Accepted of tensors that lie contiguous at the start of their memory, and of what lies in them.
    """
    value = context.any_tensor(node, "self")
    size, stride = context.integers(node, "size"), context.integers(node, "stride")
    places = np.asarray(context.argument(node, "storage_offset") or 0)
    for extent, step in zip(size, stride, strict=True):
        places = np.add.outer(places, np.arange(extent) * step)
    layout = context.layout(node, "self")
    inside = int(places.max(initial=0)) < int(np.prod(value.shape))
    if layout is None or not layout.is_contiguous or layout.offset or not inside:
        raise context.unsupported(node, "of a view into other memory; accepted are contiguous tensors")
    flat = reshaped(context, value, [-1])
    return reshaped(context, taken(context, flat, 0, places.reshape(-1)), size)


@converter("aten::diagonal", lowering="take")
def diagonal(context: ImportContext, node: Node) -> Tensor:
    """aten::diagonal(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor"""
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    first, second = (context.axis(node, name, rank) for name in ("dim1", "dim2"))
    return _diagonal(context, value, context.integer(node, "offset"), first, second)


def _diagonal(context: ImportContext, value: Tensor, offset: int, first: int, second: int) -> Tensor:
    rank = len(value.shape)
    rows, columns = value.shape[first], value.shape[second]
    length = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    places = (np.arange(length) - min(offset, 0)) * columns + np.arange(length) + max(offset, 0)
    others = [axis for axis in range(rank) if axis not in (first, second)]
    last = permuted(context, value, [*others, first, second])
    flat = reshaped(context, last, [*(value.shape[axis] for axis in others), rows * columns])
    return taken(context, flat, len(others), places)


def _operand(context: ImportContext, node: Node) -> tuple[Tensor, int]:
    value = context.any_tensor(node, "self")
    return value, context.axis(node, "dim", len(value.shape))


def _every(context: ImportContext, value: Tensor, axis: int, step: int) -> list[Tensor]:
    extent = value.shape[axis]
    return [sliced(context, value, axis, start, min(start + step, extent)) for start in range(0, extent, step)]


def _of_sizes(context: ImportContext, value: Tensor, axis: int, sizes: Sequence[int]) -> list[Tensor]:
    ends = np.cumsum(sizes).tolist()
    return [sliced(context, value, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _sections(context: ImportContext, value: Tensor, axis: int, sections: int) -> list[Tensor]:
    """The first extent % sections parts are one longer than the others."""
    extent = value.shape[axis]
    return _of_sizes(context, value, axis, [extent // sections + (i < extent % sections) for i in range(sections)])


def _at(context: ImportContext, node: Node, value: Tensor, axis: int) -> list[Tensor]:
    """Returns the parts between the node's indices, which may lie outside of the extent."""
    extent, indices = value.shape[axis], context.integers(node, "indices")
    if not all(-extent <= index <= extent for index in indices):
        context.cut_short(node, extent)
    edges = [0, *(slice(index, None).indices(extent)[0] for index in indices), extent]
    return [sliced(context, value, axis, begin, max(begin, end)) for begin, end in pairwise(edges)]
