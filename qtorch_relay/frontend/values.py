"""What a graph value is while it is imported: a quantized tensor with its parameters, a plain tensor, or a Python
value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerTensor


@dataclass(frozen=True, eq=False)
class QuantizedValue:
    """Codes together with the parameters that give them meaning; the two never part.

    channels_last: PyTorch holds this tensor in channels-last memory (layout.Layout.is_channels_last); some of its kernels round differently there.
    """

    expr: Any
    qparams: PerTensor
    channels_last: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The static shape."""
        return static_shape(self.expr)

    def with_expr(self, expr: Any) -> QuantizedValue:
        """Returns other codes of the same parameters, for ops that only move or choose codes."""
        return replace(self, expr=expr)


@dataclass(frozen=True, eq=False)
class TensorValue:
    """A tensor that is not quantized."""

    expr: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The static shape."""
        return static_shape(self.expr)

    @property
    def dtype(self) -> str:
        """The dtype, such as "float32"."""
        return str(self.expr.ty.dtype)

    def with_expr(self, expr: Any) -> TensorValue:
        """Returns another tensor that is not quantized."""
        return TensorValue(expr)
