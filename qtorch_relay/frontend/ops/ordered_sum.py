"""Sums of float32 in PyTorch's order, as plain Relax ops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import constant, product, shifted
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.layout import Layout
from qtorch_relay.numerics.sum import ordered_sum
from qtorch_relay.qnn.op_def import static_shape


class _RelaxArrays:
    """numerics.sum.Arrays of Relax expressions; Relax's sum over one axis adds from the first element to the last."""

    def __init__(self, context: ImportContext) -> None:
        self._emit = context.emit

    def shape(self, x: Any) -> tuple[int, ...]:
        return static_shape(x)

    def permute(self, x: Any, axes: Sequence[int]) -> Any:
        return x if list(axes) == list(range(len(axes))) else self._emit(relax.op.permute_dims(x, list(axes)))

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return x if static_shape(x) == tuple(shape) else self._emit(relax.op.reshape(x, list(shape)))

    def part(self, x: Any, axis: int, begin: int, end: int) -> Any:
        if (begin, end) == (0, static_shape(x)[axis]):
            return x
        return self._emit(relax.op.strided_slice(x, [axis], [begin], [end]))

    def join(self, parts: Sequence[Any], axis: int) -> Any:
        return self._emit(relax.op.concat(list(parts), axis=axis))

    def add(self, x: Any, y: Any) -> Any:
        return self._emit(relax.op.add(x, y))

    def sum_last(self, x: Any) -> Any:
        return self._emit(relax.op.sum(x, axis=[-1]))


def emit_ordered_sum(context: ImportContext, expr: Any, layout: Layout, axes: Iterable[int]) -> Any:
    """Returns the sum of a float32 tensor over axes, which are gone, as PyTorch adds up one of this layout."""
    return ordered_sum(_RelaxArrays(context), expr, layout, axes)


def emit_addends(context: ImportContext, value: QuantizedValue) -> Any:
    """Returns the real values of a quantized tensor, rounded to float32 before they are added to anything."""
    scale = constant([np.float32(value.qparams.scale)], "float64")
    codes = shifted(value.expr, np.asarray(value.qparams.zero_point), 0, 0)
    return context.emit(product(relax.op.astype(codes, "float32"), scale))
