"""From int32 sums to codes, the way each engine of PyTorch does it; shared by convolutions and linear layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import AccumulatorFactors, RealFactors, requantize_factors
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import requantize
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerTensor, QuantizedTensor, code_range


def layer_name(node: Node, packed_name: str) -> str:
    """Returns the name a layer's weights and values go by: its module path, or the path of its packed parameters."""
    return node.scope or packed_name.removesuffix("._packed_params").removesuffix("._packed_params")


def weight_qparams(weight: QuantizedTensor, channel_axis: int) -> tuple[Any, Any]:
    """Returns a weight's scales (float64) and int32 zero points, one number each or one per output channel.

    Raises: UnsupportedQuantSchemeError if the weight is quantized along another axis.
    """
    qparams = weight.qparams
    if isinstance(qparams, PerTensor):
        return np.float64(qparams.scale), np.int32(qparams.zero_point)
    if qparams.axis != channel_axis:
        raise UnsupportedQuantSchemeError(
            f"a weight is quantized per channel on axis {qparams.axis}; accepted is axis {channel_axis}, its outputs"
        )
    zero_points = qparams.zero_points.astype(np.int32)
    return qparams.scales, zero_points if zero_points.any() else np.int32(0)


def requantize_accumulator(
    context: ImportContext,
    accumulator: Any,
    data: PerTensor,
    weight_scales: npt.NDArray[np.float64] | np.float64,
    output: PerTensor,
    bias: npt.NDArray[np.float32] | None,
    *,
    layer: str,
    engine: str,
    kind: str,
    axis: int,
    relu: bool,
) -> QuantizedValue:
    """Returns the codes of an int32 accumulator plus bias, with this engine's arithmetic.

    layer: the name for parameters and values. kind: "conv" or "linear"; engine: "fbgemm", "onednn" or "qnnpack".
    """
    rank = len(static_shape(accumulator))
    channels = static_shape(accumulator)[axis]
    factors = requantize_factors(engine, kind, data.scale, weight_scales, output.scale, bias, channels)
    if isinstance(factors, AccumulatorFactors) and factors.integer_bias is not None:
        shape = [channels if dim == axis else 1 for dim in range(rank)]
        rounded = context.param(f"{layer}_bias", factors.integer_bias.reshape(shape))
        accumulator = context.emit(relax.op.add(accumulator, rounded), f"{layer}_biased")
    addend = context.param(f"{layer}_bias", factors.addend) if factors.addend.any() else factors.addend
    operands = {**factors.operands(), "addend": addend}
    codes = context.emit(
        requantize(
            accumulator,
            np.float32(data.scale) * np.asarray(weight_scales, np.float32),
            0,
            output.scale,
            output.zero_point,
            axis=axis,
            rounding="TONEAREST_EVEN",
            compute_dtype="float32",
            out_dtype=output.dtype,
            arithmetic="real" if isinstance(factors, RealFactors) else "accumulator",
            factors=operands,
        ),
        layer,
    )
    value = QuantizedValue(codes, output)
    return clamp_below_zero(context, value) if relu else value


def clamp_below_zero(context: ImportContext, value: QuantizedValue) -> QuantizedValue:
    """Returns ReLU of a quantized tensor: codes of at least the zero point."""
    zero_point = value.qparams.zero_point
    if zero_point == code_range(value.qparams.dtype)[0]:
        return value
    least = relax.const(np.asarray(zero_point, value.qparams.dtype), value.qparams.dtype)
    return value.with_expr(context.emit(relax.op.maximum(value.expr, least), "relu"))
