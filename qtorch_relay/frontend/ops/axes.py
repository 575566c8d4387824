"""Converters of ops that reorder or reverse dimensions; quantization parameters stay as they are."""

from __future__ import annotations

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, wrapped_axis
from qtorch_relay.frontend.ops.moves import Tensor, permuted, taken
from qtorch_relay.frontend.registry import converter, converter_of


@converter("aten::numpy_T", lowering="permute_dims")
def transpose_all(context: ImportContext, node: Node) -> Tensor:
    """aten::numpy_T(Tensor self) -> Tensor, which reverses all dimensions"""
    value = context.any_tensor(node, "self")
    return permuted(context, value, list(reversed(range(len(value.shape)))))


@converter("aten::t", "aten::mT", "aten::adjoint", lowering="permute_dims")
def transpose_last(context: ImportContext, node: Node) -> Tensor:
    """aten::t(Tensor self) -> Tensor; mT and adjoint exchange the last two of more dimensions."""
    value = context.any_tensor(node, "self")
    axes = list(range(len(value.shape)))
    if len(axes) >= 2:
        axes[-2:] = [axes[-1], axes[-2]]
    return permuted(context, value, axes)


@converter("aten::transpose.int", "aten::swapdims", lowering="permute_dims")
def transpose(context: ImportContext, node: Node) -> Tensor:
    """aten::transpose.int(Tensor self, int dim0, int dim1) -> Tensor"""
    return _swapped(context, node, "dim0", "dim1")


@converter("aten::swapaxes", lowering="permute_dims")
def swapaxes(context: ImportContext, node: Node) -> Tensor:
    """aten::swapaxes(Tensor self, int axis0, int axis1) -> Tensor"""
    return _swapped(context, node, "axis0", "axis1")


def _swapped(context: ImportContext, node: Node, first_name: str, second_name: str) -> Tensor:
    value = context.any_tensor(node, "self")
    axes = list(range(len(value.shape)))
    first, second = (context.axis(node, name, len(axes)) for name in (first_name, second_name))
    if first == second:
        return value
    axes[first], axes[second] = axes[second], axes[first]
    return permuted(context, value, axes)


@converter(
    "aten::movedim.int",
    "aten::movedim.intlist",
    "aten::moveaxis.int",
    "aten::moveaxis.intlist",
    lowering="permute_dims",
)
def movedim(context: ImportContext, node: Node) -> Tensor:
    """aten::movedim.intlist(Tensor self, int[] source, int[] destination) -> Tensor

    The dimensions that are not named keep their order in the places that are left.
    """
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    source, destination = (_axes(context, node, name, rank) for name in ("source", "destination"))
    left = iter([axis for axis in range(rank) if axis not in source])
    placed = dict(zip(destination, source, strict=True))
    return permuted(context, value, [placed[axis] if axis in placed else next(left) for axis in range(rank)])


def _axes(context: ImportContext, node: Node, name: str, rank: int) -> list[int]:
    given = context.argument(node, name)
    return [wrapped_axis(dim, rank) for dim in (given if isinstance(given, list | tuple) else [given])]


@converter("aten::flip", lowering="take")
def flip(context: ImportContext, node: Node) -> Tensor:
    """aten::flip(Tensor self, int[] dims) -> Tensor"""
    value = context.any_tensor(node, "self")
    return _flipped(context, value, _axes(context, node, "dims", len(value.shape)))


@converter_of({"aten::fliplr": 1, "aten::flipud": 0}, lowering="take")
def flip_matrix(context: ImportContext, node: Node, axis: int) -> Tensor:
    """aten::fliplr(Tensor self) -> Tensor, along dimension 1; flipud along dimension 0."""
    return _flipped(context, context.any_tensor(node, "self"), [axis])


def _flipped(context: ImportContext, value: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        value = taken(context, value, axis, range(value.shape[axis] - 1, -1, -1))
    return value


@converter("aten::rot90", lowering="take and permute_dims")
def rot90(context: ImportContext, node: Node) -> Tensor:
    """aten::rot90(Tensor self, int k=1, int[] dims=[0, 1]) -> Tensor

    Source: aten/src/ATen/native/TensorTransformations.cpp, rot90.
    """
    value = context.any_tensor(node, "self")
    rank = len(value.shape)
    first, second = _axes(context, node, "dims", rank)
    turns = context.integer(node, "k") % 4
    if turns == 2:
        return _flipped(context, value, [first, second])
    if turns == 0:
        return value
    flipped = _flipped(context, value, [second if turns == 1 else first])
    axes = list(range(rank))
    axes[first], axes[second] = axes[second], axes[first]
    return permuted(context, flipped, axes)


@converter("aten::roll", lowering="take")
def roll(context: ImportContext, node: Node) -> Tensor:
    """aten::roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor, of tensors that are not quantized.

    PyTorch has no kernel of it for quantized tensors.
    """
    value = context.tensor(node, "self")
    shifts = context.integers(node, "shifts")
    dims = context.integers(node, "dims")
    if not dims:
        raise context.unsupported(node, "roll without dims; accepted is one dim for each shift")
    result: Tensor = value
    for shift, dim in zip(shifts, dims, strict=True):
        axis = wrapped_axis(dim, len(value.shape))
        extent = value.shape[axis]
        result = taken(context, result, axis, [(i - shift) % extent for i in range(extent)])
    return result
