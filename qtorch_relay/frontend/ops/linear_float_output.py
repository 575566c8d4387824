"""Converters of linear layers whose float input is quantized with given parameters and whose output is float, and of
oneDNN's layers that apply a function before they quantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import LinearParams, Node
from qtorch_relay.expressions import rounded_product
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import layer_name
from qtorch_relay.frontend.ops.linear_dynamic import apply_dynamic, linear_engine
from qtorch_relay.frontend.registry import converter, refuse
from qtorch_relay.frontend.values import QuantizedValue, RunTimeQuantizedValue, TensorValue
from qtorch_relay.qnn import quantize
from qtorch_relay.qnn.op_def import as_scale, as_zero_point
from qtorch_relay.tir.ops import tanh

F32 = np.float32
LOWERING = "qnn.quantize + qnn.dense + qnn.dequantize"

refuse(
    "_quantized::wrapped_quantized_linear",
    "_quantized::_wrapped_linear_prepack",
    "_quantized::_wrapped_quantized_linear_prepacked",
    "_quantized::wrapped_fbgemm_linear_fp16_weight",
    "_quantized::wrapped_fbgemm_pack_gemm_matrix_fp16",
    "aten::_wrapped_linear_prepack",
    "aten::_wrapped_quantized_linear_prepacked",
    "aten::fbgemm_linear_fp16_weight",
    "aten::fbgemm_linear_fp16_weight_fp32_activation",
    "aten::fbgemm_linear_int8_weight",
    "aten::fbgemm_linear_int8_weight_fp32_activation",
    "aten::fbgemm_linear_quantize_weight",
    reason="its packed weights are the bytes of a pointer, which cannot be read back",
    nearest="quantized::linear_dynamic_fp16, quantized::linear",
)
refuse(
    *(f"sparse::qlinear{form}" for form in ("", "_dynamic", "_relu", "_relu_dynamic", "_prepack", "_unpack")),
    reason="weights in blocks of zeros, which PyTorch packs for QNNPACK in a form of its own",
    nearest="quantized::linear, quantized::linear_dynamic",
)


@converter(
    "quantized::linear_with_input_q_dq_qweight_dq_output_fp32",
    lowering=LOWERING,
    exact="fbgemm, x86 (only they run it)",
)
def linear_with_given_qparams(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_with_input_q_dq_qweight_dq_output_fp32(Tensor X, float X_scale, int X_zero_point,
    LinearPackedParamsBase W_prepack) -> Tensor Y

    Shapes: X float32 [..., K]; W [N, K] s8, per tensor or per channel on axis 0; Y float32 [..., N].
    Source: aten/src/ATen/native/quantized/cpu/qlinear.cpp apply_with_input_q_dq_qweight_dq_output_fp32_impl.
    """
    return _given(context, node, relu=False)


@converter(
    "quantized::linear_with_input_q_dq_qweight_dq_relu_output_fp32",
    lowering=f"{LOWERING} + relu",
    exact="fbgemm, x86 (only they run it)",
)
def linear_relu_with_given_qparams(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_with_input_q_dq_qweight_dq_relu_output_fp32(Tensor X, float X_scale, int X_zero_point,
    LinearPackedParamsBase W_prepack) -> Tensor Y

    Shapes and source: as the form without ReLU.
    """
    return _given(context, node, relu=True)


def _given(context: ImportContext, node: Node, *, relu: bool) -> TensorValue:
    value = context.tensor(node, "X")
    params = context.linear_params(node, "W_prepack")
    engine = linear_engine(context, params)
    if engine != "fbgemm":
        raise context.unsupported(node, f"PyTorch runs it on fbgemm and x86 only, not on {engine}")
    layer = layer_name(node, params.name)
    given = context.output_qparams(node, "uint8", "X_scale", "X_zero_point")
    codes = context.emit(
        quantize(value.expr, given.scale, given.zero_point, out_dtype="uint8", arithmetic="fused"), f"{layer}_codes"
    )
    quantized = RunTimeQuantizedValue(codes, as_scale(given.scale), as_zero_point(given.zero_point), "uint8")
    return apply_dynamic(context, quantized, params, engine=engine, layer=layer, relu=relu)


@converter(
    "quantized::linear_leaky_relu", lowering="qnn.dense + qnn.dequantize + leaky ReLU + qnn.quantize", exact="onednn"
)
def linear_leaky_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::linear_leaky_relu(Tensor X, LinearPackedParamsBase W_prepack, float Y_scale_i, int Y_zero_point_i,
    float negative_slope) -> Tensor Y

    Shapes: X [..., K] u8 or s8; W [N, K] s8, per tensor or per channel on axis 0; Y [..., N].
    Source: aten/src/ATen/native/quantized/cpu/qlinear.cpp; oneDNN's eltwise post-op. PyTorch runs it on onednn only.
    """
    slope = relax.const(F32(context.number(node, "negative_slope")), "float32")

    def leaky(real: Any) -> Any:
        return relax.op.where(relax.op.greater(real, relax.const(F32(0))), real, rounded_product(real, slope))

    return _with_function(context, node, leaky)


@converter(
    "quantized::linear_tanh",
    lowering="qnn.dense + qnn.dequantize + torch.tanh + qnn.quantize",
    exact="onednn, but for sums within 1e-6 of a tie, where the last bits of oneDNN's tanh decide",
)
def linear_tanh(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::linear_tanh(Tensor X, LinearPackedParamsBase W_prepack, float Y_scale_i, int Y_zero_point_i) -> Tensor
    Y

    Shapes and source: as quantized::linear_leaky_relu.
    """
    return _with_function(context, node, tanh)


def _with_function(context: ImportContext, node: Node, function: Callable[[Any], Any]) -> QuantizedValue:
    """Returns the codes of function(sums as floats), as oneDNN's post-ops compute them."""
    value = context.quantized(node, "X")
    params: LinearParams = context.linear_params(node, "W_prepack")
    if context.engine != "onednn":
        raise context.unsupported(node, f"PyTorch runs it on onednn only, not on {context.engine}")
    layer = layer_name(node, params.name)
    # scales pass through reciprocals on their way to oneDNN (engine_constants.py)
    scale = F32(1) / F32(1 / value.qparams.scale)
    zero_point = as_zero_point(value.qparams.zero_point)
    quantized = RunTimeQuantizedValue(value.expr, as_scale(scale), zero_point, value.qparams.dtype)
    real = apply_dynamic(context, quantized, params, engine="onednn", layer=layer)
    result = context.emit(function(real.expr), layer)
    output = context.output_qparams(node, value.qparams.dtype, "Y_scale_i", "Y_zero_point_i")
    inverted = F32(1) / F32(1 / output.scale)
    codes = quantize(result, inverted, output.zero_point, out_dtype=output.dtype, arithmetic="rounded")
    return QuantizedValue(context.emit(codes, f"{layer}_codes"), output)
