"""Converters of linear layers with packed parameters."""

from __future__ import annotations

from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import resolve_x86
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import layer_name, requantize_accumulator, weight_qparams
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import dense


@converter("quantized::linear", "_quantized::linear", lowering="qnn.dense + qnn.requantize")
def quantized_linear(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::linear(Tensor X, LinearPackedParamsBase W_prepack, float Y_scale_i, int Y_zero_point_i) -> Tensor Y

    Shapes: X [..., K] u8 or s8; W [N, K] s8, per tensor or per channel on axis 0; Y [..., N].
    Source: aten/src/ATen/native/quantized/cpu/qlinear.cpp.
    """
    return _linear(context, node, relu=False)


@converter("quantized::linear_relu", lowering="qnn.dense + qnn.requantize + maximum")
def quantized_linear_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::linear_relu(Tensor X, LinearPackedParamsBase W_prepack, float Y_scale_i, int Y_zero_point_i) -> Tensor
    Y

    The ReLU is a clamp of the codes from below at the output's zero point.
    """
    return _linear(context, node, relu=True)


def _linear(context: ImportContext, node: Node, *, relu: bool) -> QuantizedValue:
    value = context.quantized(node, "X")
    params = context.linear_params(node, "W_prepack")
    layer = layer_name(node, params.name)
    scales, zero_points = weight_qparams(params.weight, channel_axis=0)
    accumulator = context.emit(
        dense(
            value.expr,
            context.param(f"{layer}_weight", params.weight.codes),
            value.qparams.zero_point,
            zero_points,
            value.qparams.scale,
            scales,
            units=params.weight.codes.shape[0],
        ),
        f"{layer}_sum",
    )
    output = context.output_qparams(node, value.qparams.dtype, "Y_scale_i", "Y_zero_point_i")
    engine = resolve_x86("linear", params.weight.qparams) if context.engine == "x86" else context.engine
    return requantize_accumulator(
        context,
        accumulator,
        value.qparams,
        scales,
        output,
        params.bias,
        layer=layer,
        engine=engine,
        kind="linear",
        axis=len(value.shape) - 1,
        relu=relu,
    )
