"""Converters of linear layers that quantize their float input when they run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import LinearFp16Params, LinearParams, Node, TensorConstant
from qtorch_relay.engine_constants import resolve_x86
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.accumulator import layer_name, weight_qparams
from qtorch_relay.frontend.ops.dynamic import dequantize_sums, quantize_at_run_time
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import RunTimeQuantizedValue, TensorValue
from qtorch_relay.qnn import dense
from qtorch_relay.tir.linear_fp16 import linear_fp16

FP16_LOWERING = "torch.linear_fp16"
FP16_MAX = 65504.0
LOWERING = "qnn.choose_qparams + qnn.quantize + qnn.dense + qnn.dequantize"


NOTE = "of an input that holds NaN or infinity PyTorch raises on qnnpack, where ours computes on, as on other engines"


@converter("quantized::linear_dynamic", "_quantized::linear_dynamic", lowering=LOWERING, note=NOTE)
def quantized_linear_dynamic(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_dynamic(Tensor X, LinearPackedParamsBase W_prepack, bool reduce_range=False) -> Tensor Y

    Shapes: X float32 [..., K]; W [N, K] s8, per tensor or per channel on axis 0; Y float32 [..., N].
    Source: aten/src/ATen/native/quantized/cpu/qlinear_dynamic.cpp.
    """
    return _linear_dynamic(context, node, relu=False)


@converter("quantized::linear_relu_dynamic", lowering=f"{LOWERING} + relu", note=NOTE)
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


@converter("quantized::linear_dynamic_fp16", lowering=FP16_LOWERING, exact="fbgemm, x86 (the others have no float16)")
def quantized_linear_dynamic_fp16(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_dynamic_fp16(Tensor X, LinearPackedParamsBase W_prepack) -> Tensor Y

    Shapes: X float32 [..., K]; W [N, K] f16; Y float32 [..., N].
    Source: aten/src/ATen/native/quantized/cpu/qlinear_dynamic.cpp; FBGEMM include/fbgemm/FbgemmFPCommon.h.
    """
    return _linear_fp16(context, node)


@converter("quantized::linear_relu_dynamic_fp16", lowering=f"{FP16_LOWERING} + relu", exact="fbgemm, x86")
def quantized_linear_relu_dynamic_fp16(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_relu_dynamic_fp16(Tensor X, LinearPackedParamsBase W_prepack) -> Tensor Y

    Shapes and source: as quantized::linear_dynamic_fp16.
    """
    value = _linear_fp16(context, node)
    return value.with_expr(context.emit(relax.op.nn.relu(value.expr), node.scope))


@converter("quantized::linear_dynamic_fp16_unpacked_weight", lowering=FP16_LOWERING)
def linear_dynamic_fp16_unpacked_weight(context: ImportContext, node: Node) -> TensorValue:
    """quantized::linear_dynamic_fp16_unpacked_weight(Tensor X, Tensor weight, Tensor? bias) -> Tensor Y

    The weight, a float32 constant, is rounded to float16 and saturates at 65504.
    Shapes and source: as quantized::linear_dynamic_fp16; it packs the weight for FBGEMM whatever the engine.
    """
    weight, bias = node.args["weight"], node.args["bias"]
    if not isinstance(weight, TensorConstant) or not (bias is None or isinstance(bias, TensorConstant)):
        raise context.unsupported(node, "weight and bias must be constants of the model")
    halves = np.clip(weight.array, -FP16_MAX, FP16_MAX).astype(np.float16)
    layer = node.scope or weight.name or "linear_fp16"
    params = LinearFp16Params(halves, None if bias is None else bias.array, layer)
    return apply_fp16(context, context.tensor(node, "X"), params, layer=layer)


def _linear_fp16(context: ImportContext, node: Node) -> TensorValue:
    params = context.argument(node, "W_prepack")
    if not isinstance(params, LinearFp16Params):
        raise context.unsupported(node, f"W_prepack must be packed float16 weights, found {describe(params)}")
    return apply_fp16(context, context.tensor(node, "X"), params, layer=node.scope or params.name)


def apply_fp16(context: ImportContext, value: TensorValue, params: LinearFp16Params, *, layer: str) -> TensorValue:
    """Returns a linear layer with float16 weights: FBGEMM's sums, then the bias.

    The weights are held as float32, which is exact, because not every CPU converts float16.
    """
    units, features = params.weight.shape
    weight = context.param(f"{layer}_weight", np.ascontiguousarray(params.weight.T.astype(np.float32)))
    rows = context.emit(relax.op.reshape(value.expr, (math.prod(value.shape[:-1]), features)))
    product = context.emit(linear_fp16(rows, weight), f"{layer}_product")
    result = context.emit(relax.op.reshape(product, (*value.shape[:-1], units)))
    if params.bias is not None:
        result = context.emit(relax.op.add(result, context.param(f"{layer}_bias", params.bias)), layer)
    return TensorValue(result)
