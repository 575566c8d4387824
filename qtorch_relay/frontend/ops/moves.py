"""Building blocks of converters that move or choose elements: a tensor in, a tensor with the same parameters out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, location
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.tir.indices import checked_indices

Tensor: TypeAlias = QuantizedValue | TensorValue


def reshaped(context: ImportContext, value: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the elements in another shape, of which one extent may be -1."""
    known = math.prod(extent for extent in shape if extent != -1)
    resolved = [math.prod(value.shape) // known if extent == -1 else int(extent) for extent in shape]
    if tuple(resolved) == value.shape:
        return value
    return value.with_expr(context.emit(relax.op.reshape(value.expr, resolved), "reshape"))


def permuted(context: ImportContext, value: Tensor, axes: Sequence[int]) -> Tensor:
    """Returns the tensor whose dimension i is the given one's axes[i]."""
    if list(axes) == list(range(len(value.shape))):
        return value
    return value.with_expr(context.emit(relax.op.permute_dims(value.expr, list(axes)), "permute"))


def sliced(context: ImportContext, value: Tensor, axis: int, begin: int, end: int, step: int = 1) -> Tensor:
    """Returns the part from begin to end along an axis."""
    if (begin, end, step) == (0, value.shape[axis], 1):
        return value
    return value.with_expr(context.emit(relax.op.strided_slice(value.expr, [axis], [begin], [end], [step]), "slice"))


def without_axis(context: ImportContext, value: Tensor, axis: int) -> Tensor:
    """Returns the tensor without a dimension of extent 1."""
    return value.with_expr(context.emit(relax.op.squeeze(value.expr, [axis]), "squeeze"))


def taken(context: ImportContext, value: Tensor, axis: int, index: npt.ArrayLike) -> Tensor:
    """Returns what lies at the given positions of an axis, known at import and inside the extent."""
    positions = np.asarray(index, np.int32)
    if np.array_equal(positions, np.arange(value.shape[axis])):
        return value
    chosen = relax.op.take(value.expr, relax.const(positions, "int32"), axis=axis, mode="clip")
    return value.with_expr(context.emit(chosen, "take"))


def checked(context: ImportContext, node: Node, index: Any, data: Any, axis: int, *, wraps: bool = False) -> Any:
    """Returns indices into an axis of data as int64, counted from 0; one out of range raises when the program runs.

    wraps: whether -1 is the last.
    """
    op = f"{node.op}{location(node)}"
    return context.emit(checked_indices(index, data, axis=axis, wraps=wraps, op=op), "index")


def chosen(
    context: ImportContext, node: Node, value: Tensor, axis: int, index: TensorValue, *, wraps: bool = False
) -> Tensor:
    """Returns what lies at positions of an axis that are known at run time; they replace the axis. wraps as above."""
    places = checked(context, node, index.expr, value.expr, axis, wraps=wraps)
    # "clip" finds nothing to clip: the indices are checked
    return value.with_expr(context.emit(relax.op.take(value.expr, places, axis=axis, mode="clip"), "take"))


def broadcast(context: ImportContext, value: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the tensor repeated along new dimensions and those of extent 1; -1 keeps an extent."""
    offset = len(shape) - len(value.shape)
    resolved = [value.shape[i - offset] if extent == -1 else int(extent) for i, extent in enumerate(shape)]
    if tuple(resolved) == value.shape:
        return value
    return value.with_expr(context.emit(relax.op.broadcast_to(value.expr, resolved), "expand"))
