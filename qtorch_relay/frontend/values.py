"""What a graph value is while it is imported: a quantized tensor with its parameters, a plain tensor, or a Python
value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerChannel, PerChannelFloat, PerTensor


@dataclass(frozen=True, eq=False)
class QuantizedValue:
    """Codes together with the parameters that give them meaning; the two never part.

    channels_last: PyTorch holds this tensor in channels-last memory (layout.Layout.is_channels_last); some of its
        kernels round differently there.
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
class ChannelwiseValue:
    """Codes quantized per channel; a class of its own, because most ops take codes of one scale only."""

    expr: Any
    qparams: PerChannel | PerChannelFloat

    @property
    def shape(self) -> tuple[int, ...]:
        """The static shape."""
        return static_shape(self.expr)


@dataclass(frozen=True, eq=False)
class RunTimeQuantizedValue:
    """Codes of one scale and zero point, or of one a channel, that the program computes.

    scale: float32 or float64; zero_point: an integer dtype, or float32 in the scheme of PerChannelFloat; both without
    dimensions, or vectors along axis.
    """

    expr: Any
    scale: Any
    zero_point: Any
    dtype: str
    axis: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The static shape."""
        return static_shape(self.expr)


AnyQuantized: TypeAlias = QuantizedValue | ChannelwiseValue | RunTimeQuantizedValue


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
