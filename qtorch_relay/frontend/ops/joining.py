"""Converters of ops that put tensors side by side after giving them a common rank; all end in a concatenation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.concatenate import emit_concatenate
from qtorch_relay.frontend.ops.moves import Tensor, reshaped
from qtorch_relay.frontend.registry import converter, converter_of
from qtorch_relay.frontend.values import QuantizedValue, TensorValue

Shape = tuple[int, ...]


@converter("aten::stack", lowering="reshape, then as aten::cat")
def stack(context: ImportContext, node: Node) -> Tensor:
    """aten::stack(Tensor[] tensors, int dim=0) -> Tensor"""
    values = context.argument(node, "tensors")
    axis = context.integer(node, "dim") % (len(values[0].shape) + 1)
    return _joined(context, node, values, lambda shape: (*shape[:axis], 1, *shape[axis:]), axis)


def _at_least_vector(shape: Shape) -> Shape:
    return shape or (1,)


def _column(shape: Shape) -> Shape:
    return (*_at_least_vector(shape), 1) if len(shape) < 2 else shape


def _at_least_matrix(shape: Shape) -> Shape:
    return shape if len(shape) >= 2 else (1, *_at_least_vector(shape))


def _at_least_volume(shape: Shape) -> Shape:
    matrix = _at_least_matrix(shape)
    return matrix if len(matrix) >= 3 else (*matrix, 1)


_STACKS: dict[str, tuple[Callable[[Shape], Shape], int]] = {
    "aten::hstack": (_at_least_vector, 1),
    "aten::vstack": (_at_least_matrix, 0),
    "aten::dstack": (_at_least_volume, 2),
    "aten::column_stack": (_column, 1),
}


@converter_of(_STACKS, lowering="reshape, then as aten::cat")
def stack_along(context: ImportContext, node: Node, stack: tuple[Callable[[Shape], Shape], int]) -> Tensor:
    """aten::hstack(Tensor[] tensors) -> Tensor

    hstack joins along dimension 1 (of vectors 0), vstack rows, dstack along dimension 2, column_stack columns.
    """
    values = context.argument(node, "tensors")
    shaped, axis = stack
    return _joined(context, node, values, shaped, min(axis, len(shaped(values[0].shape)) - 1))


def _joined(
    context: ImportContext, node: Node, values: Sequence[Any], shaped: Callable[[Shape], Shape], axis: int
) -> Tensor:
    """Returns the reshaped tensors behind each other. A new dimension of extent 1 makes [N, 1, H, W] lie channels-last
    too, which PyTorch's concatenation sees."""
    parts = [reshaped(context, value, shaped(value.shape)) for value in values]
    if all(isinstance(part, TensorValue) for part in parts):
        return TensorValue(context.emit(relax.op.concat([part.expr for part in parts], axis=axis), "joined"))
    quantized = [
        replace(part, channels_last=len(part.shape) == 4 and part.shape[1] == 1)
        for part in parts
        if isinstance(part, QuantizedValue)
    ]
    if len(quantized) != len(parts):
        raise context.unsupported(node, "quantized tensors together with others")
    return emit_concatenate(context, node, quantized, quantized[0].qparams, axis, by_channel=axis == 1)
