"""Converters of padding: by a number, or by the tensor's own elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import constant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.filling import code_of
from qtorch_relay.frontend.ops.moves import Tensor, sliced, taken
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue

Indices = npt.NDArray[np.int64]


@converter("aten::pad", lowering="concat with a constant, or take")
def pad(context: ImportContext, node: Node) -> Tensor:
    """aten::pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor

    Of quantized tensors PyTorch pads by a number or by reflection.
    """
    value = context.any_tensor(node, "self")
    widths, mode = context.integers(node, "pad"), str(context.argument(node, "mode"))
    if mode == "constant":
        filling = context.argument(node, "value")
        return _constant(context, value, widths, 0.0 if filling is None else context.number(node, "value"))
    if mode not in _SOURCES:
        raise context.unsupported(node, f"mode {mode!r}; known are constant, {', '.join(_SOURCES)}")
    return _from_itself(context, value, widths, mode)


@converter("aten::constant_pad_nd", lowering="concat with a constant")
def constant_pad_nd(context: ImportContext, node: Node) -> Tensor:
    """aten::constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor

    The number is quantized with the tensor's parameters: 0 is the zero point.
    """
    value = context.any_tensor(node, "self")
    return _constant(context, value, context.integers(node, "pad"), context.number(node, "value"))


@converter("aten::reflection_pad1d", "aten::reflection_pad2d", lowering="take")
def reflection_pad(context: ImportContext, node: Node) -> Tensor:
    """aten::reflection_pad2d(Tensor self, SymInt[4] padding) -> Tensor"""
    return _from_itself(context, context.any_tensor(node, "self"), context.integers(node, "padding"), "reflect")


def _reflected(places: Indices, extent: int) -> Indices:
    inside = np.abs(places)
    return np.where(inside >= extent, 2 * (extent - 1) - inside, inside)


_SOURCES: dict[str, Callable[[Indices, int], Indices]] = {
    "reflect": _reflected,
    "replicate": lambda places, extent: np.clip(places, 0, extent - 1),
    "circular": lambda places, extent: places % extent,
}


def _from_itself(context: ImportContext, value: Tensor, widths: Sequence[int], mode: str) -> Tensor:
    for axis, before, after in _by_axis(value, widths):
        extent = value.shape[axis]
        value = taken(context, value, axis, _SOURCES[mode](np.arange(-before, extent + after), extent))
    return value


def _constant(context: ImportContext, value: Tensor, widths: Sequence[int], number: float) -> Tensor:
    if isinstance(value, QuantizedValue):
        filling = constant(code_of(value.qparams, number), value.qparams.dtype)
    else:
        filling = constant(number, value.dtype)
    dtype = str(value.expr.ty.dtype)
    for axis, before, after in _by_axis(value, widths):
        extent = value.shape[axis]
        kept = sliced(context, value, axis, max(-before, 0), extent - max(-after, 0))
        parts = [kept.expr]
        for place, width in ((0, before), (1, after)):
            if width > 0:
                shape = (*kept.shape[:axis], width, *kept.shape[axis + 1 :])
                parts.insert(place * len(parts), context.emit(relax.op.full(shape, filling, dtype)))
        value = kept if len(parts) == 1 else kept.with_expr(context.emit(relax.op.concat(parts, axis=axis), "pad"))
    return value


def _by_axis(value: Tensor, widths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Returns (axis, before, after), the last axis first, as PyTorch writes them."""
    rank = len(value.shape)
    return [(rank - 1 - i // 2, widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
