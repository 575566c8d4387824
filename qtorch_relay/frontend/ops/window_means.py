"""Means of windows of codes: qnn.avg_pool2d where all windows of a map are alike, plain sums for the others.

PyTorch has a kernel for each engine, op and memory layout, and they round differently; qnn.avg_pool2d names the ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import constant, shifted
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.moves import reshaped
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.numerics.windows import Windows
from qtorch_relay.qnn import avg_pool2d
from qtorch_relay.qnn.transform.rules.pooling import mean_of_sums


@dataclass(frozen=True, eq=False)
class Mean:
    """How a window's sum becomes a code: an arithmetic of qnn.avg_pool2d and its factor, one number or an array over
    the outputs."""

    arithmetic: str
    factor: npt.NDArray[np.float32] | np.float32


@dataclass(frozen=True)
class Window:
    """Windows that are alike: kernel, strides and padding (top, left, bottom, right) of a map."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


def over(*lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the number of elements of every window from those along each dimension; one number if all agree."""
    counts: npt.NDArray[np.int64] = reduce(np.multiply.outer, lengths)
    return counts.reshape(-1)[0] if (counts == counts.reshape(-1)[0]).all() else counts


def emit_map_mean(
    context: ImportContext, node: Node, value: QuantizedValue, window: Window, mean: Mean
) -> QuantizedValue:
    """Returns the means of a map [N, C, H, W] as qnn.avg_pool2d."""
    scale, zero_point = value.qparams.scale, value.qparams.zero_point
    expr = avg_pool2d(
        value.expr,
        scale,
        zero_point,
        scale,
        zero_point,
        window.kernel,
        window.strides,
        window.padding,
        layout="NCHW",
        arithmetic=mean.arithmetic,
        factor=mean.factor,
    )
    return value.with_expr(context.emit(expr, node.scope or "avg_pool2d"))


def emit_window_mean(
    context: ImportContext, node: Node, value: QuantizedValue, windows: Sequence[Windows], mean: Mean
) -> QuantizedValue:
    """Returns the means of windows along the last dimensions, one Windows for each, which need not be alike."""
    of_codes = mean.arithmetic in ("codes", "quotient")
    zero_point = value.qparams.zero_point
    total = shifted(value.expr, np.asarray(0 if of_codes else zero_point), 0, 0)
    first = len(value.shape) - len(windows)
    for axis, along in enumerate(windows, first):
        total = _sums(context, context.emit(total), axis, along)
    expr = mean_of_sums(context.emit(total), np.asarray(mean.factor), mean.arithmetic, zero_point, value.qparams.dtype)
    return value.with_expr(context.emit(expr, node.scope or "mean"))


def _sums(context: ImportContext, expr: Any, axis: int, windows: Windows) -> Any:
    """Returns the sums over windows along one axis: what lies in a window is taken side by side, and added up."""
    widest = int(windows.length.max())
    places = np.add.outer(windows.start, np.arange(widest))
    inside = places < windows.stop[:, np.newaxis]
    index = constant(np.where(inside, places, 0).reshape(-1), "int32")
    taken = context.emit(relax.op.take(expr, index, axis=axis, mode="clip"))
    shape = [int(extent) for extent in expr.ty.shape.values]
    stacked = context.emit(relax.op.reshape(taken, (*shape[:axis], windows.count, widest, *shape[axis + 1 :])))
    if not inside.all():
        mask = inside.reshape(windows.count, widest, *[1] * (len(shape) - axis - 1))
        stacked = relax.op.multiply(stacked, constant(mask, "int32"))
    return relax.op.sum(stacked, axis=[axis + 1])


def by_lanes(
    context: ImportContext,
    value: QuantizedValue,
    lanes: int,
    vectorized: Callable[[QuantizedValue], QuantizedValue],
    scalar: Callable[[QuantizedValue], QuantizedValue],
) -> QuantizedValue:
    """Returns what vectorized gives for channels (dimension 1) up to a multiple of lanes, and scalar for the rest."""
    channels = value.shape[1]
    split = channels // lanes * lanes
    if split in (0, channels):
        return (vectorized if split else scalar)(value)
    parts = []
    for begin, end, emit in ((0, split, vectorized), (split, channels, scalar)):
        part = context.emit(relax.op.strided_slice(value.expr, [1], [begin], [end]))
        parts.append(emit(value.with_expr(part)).expr)
    return value.with_expr(context.emit(relax.op.concat(parts, axis=1), "channels"))


def as_map(context: ImportContext, value: QuantizedValue) -> QuantizedValue:
    """Returns [C, H, W] as [1, C, H, W], and a map as it is."""
    shaped = value if len(value.shape) == 4 else reshaped(context, value, (1, *value.shape))
    assert isinstance(shaped, QuantizedValue)
    return shaped
