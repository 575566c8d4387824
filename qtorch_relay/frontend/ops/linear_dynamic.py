"""Converters of linear layers that quantize their float input when they run."""

from __future__ import annotations

from typing import Any

from qtorch_relay.capture.graph import LinearParams, Node
from qtorch_relay.engine_constants import resolve_x86
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import layer_name, weight_qparams
from qtorch_relay.frontend.ops.dynamic import dequantize_sums, quantize_at_run_time
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import RunTimeQuantizedValue, TensorValue
from qtorch_relay.qnn import dense

LOWERING = "qnn.choose_qparams + qnn.quantize + qnn.dense + qnn.dequantize"


@converter("quantized::linear_dynamic", "_quantized::linear_dynamic", lowering=LOWERING)
def quantized_linear_dynamic(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_dynamic(Tensor X, LinearPackedParamsBase W_prepack, bool reduce_range=False) -> Tensor Y

    Shapes: X float32 [..., K]; W [N, K] s8, per tensor or per channel on axis 0; Y float32 [..., N].
    Source: aten/src/ATen/native/quantized/cpu/qlinear_dynamic.cpp.
    """
    return _linear_dynamic(context, node, relu=False)


@converter("quantized::linear_relu_dynamic", lowering=f"{LOWERING} + relu")
def quantized_linear_relu_dynamic(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_relu_dynamic(Tensor X, LinearPackedParamsBase W_prepack, bool reduce_range=False) -> Tensor Y

    Shapes and source: as quantized::linear_dynamic.
    """
    return _linear_dynamic(context, node, relu=True)


def _linear_dynamic(context: ImportContext, node: Node, *, relu: bool) -> TensorValue:
    value = context.tensor(node, "X")
    params = context.linear_params(node, "W_prepack")
    layer = layer_name(node, params.name)
    reduce_range = bool(context.argument(node, "reduce_range"))
    engine = linear_engine(context, params)
    codes = quantize_at_run_time(context, value, engine=engine, reduce_range=reduce_range, name=layer)
    return apply_dynamic(context, codes, params, engine=engine, layer=layer, relu=relu)


def linear_engine(context: ImportContext, params: LinearParams) -> str:
    """Returns the engine that computes a linear layer."""
    return resolve_x86("linear", params.weight.qparams) if context.engine == "x86" else context.engine


def apply_dynamic(
    context: ImportContext,
    codes: RunTimeQuantizedValue,
    params: LinearParams,
    *,
    engine: str,
    layer: str,
    relu: bool = False,
) -> TensorValue:
    """Returns a linear layer's float output for codes whose parameters are run-time values."""
    scales, zero_points = weight_qparams(params.weight, channel_axis=0)
    weight: Any = context.param(f"{layer}_weight", params.weight.codes)
    units = params.weight.codes.shape[0]
    product = dense(codes.expr, weight, codes.zero_point, zero_points, codes.scale, scales, units=units)
    sums = context.emit(product, f"{layer}_sum")
    axis = len(codes.shape) - 1
    return dequantize_sums(
        context, sums, codes, scales, params.bias, engine=engine, kind="linear", axis=axis, layer=layer, relu=relu
    )
