"""Converters of dynamic convolutions: floats in and out, the scale and zero point chosen from the input as it runs.

PyTorch quantizes the input, runs the static convolution with an output of the input's own scale and zero point, and
dequantizes: results beyond the input's range saturate there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.conv_sums import ConvLayer, check_input, conv_layer, convolution_sums
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.numerics.dynamic import greatest_code
from qtorch_relay.qnn import choose_qparams, dequantize, quantize, requantize
from qtorch_relay.qnn.op_def import static_shape


@converter(
    *(f"quantized::{kind}{dims}d_dynamic" for kind in ("conv", "conv_transpose") for dims in (1, 2, 3)),
    lowering="qnn.choose_qparams + qnn.quantize + qnn.conv2d + qnn.requantize + qnn.dequantize",
    note="wrong in PyTorch where the static form is; ours exact",
)
def quantized_conv_dynamic(context: ImportContext, node: Node) -> TensorValue:
    """quantized::conv2d_dynamic(Tensor qx, Conv2dPackedParamsBase packed_weight, bool reduce_range=False) -> Tensor

    Shapes: as the static form, with float32 qx and result. qnnpack ignores reduce_range.
    Source: aten/src/ATen/native/quantized/cpu/qconv_dynamic.cpp.
    """
    value, layer = context.tensor(node, "qx"), conv_layer(context, node)
    if value.dtype != "float32":
        raise context.unsupported(node, f"qx must be float32, found {value.dtype}")
    check_input(node, value.shape, "uint8", layer)
    high = greatest_code(layer.engine, bool(context.argument(node, "reduce_range")))
    qparams = context.emit(choose_qparams(value.expr, 0, high, arithmetic="float64"), f"{layer.name}_qparams")
    exact_scale = context.emit(relax.TupleGetItem(qparams, 0), f"{layer.name}_exact_scale")
    zero_point = context.emit(relax.TupleGetItem(qparams, 1), f"{layer.name}_zero_point")
    scale = context.emit(relax.op.astype(exact_scale, "float32"), f"{layer.name}_scale")
    codes = context.emit(
        quantize(value.expr, scale, zero_point, out_dtype="uint8", arithmetic="fused"), f"{layer.name}_codes"
    )
    sums, planes = convolution_sums(context, layer, codes, zero_point, scale)
    result = _requantize(context, layer, sums, exact_scale, scale, zero_point)
    real = context.emit(dequantize(result, scale, zero_point), layer.name)
    return TensorValue(planes.restore(context, real))


def _requantize(
    context: ImportContext, layer: ConvLayer, sums: Any, exact_scale: Any, scale: Any, zero_point: Any
) -> Any:
    """Returns codes of the input's own parameters; engine_constants.requantize_factors says the same of constants.

    exact_scale: float64; scale: the same in float32.
    """
    op, bias = relax.op, layer.params.bias
    weight_scale = relax.const(np.asarray(layer.scales, np.float32), "float32")
    accumulator_scale = context.emit(op.multiply(scale, weight_scale), f"{layer.name}_sum_scale")
    one = relax.const(1.0, "float32")
    addend = np.zeros(1, np.float32) if bias is None else context.param(f"{layer.name}_bias", bias)
    arithmetic = "accumulator"
    if layer.engine == "onednn":
        arithmetic = "real"
        reciprocal = op.astype(op.divide(relax.const(1.0, "float64"), exact_scale), "float32")
        input_factor = context.emit(op.divide(one, reciprocal))
        output_factor = context.emit(op.divide(one, input_factor))
        factors = {
            "input_factor": input_factor,
            "kernel_factor": np.asarray(layer.scales, np.float32),
            "addend": addend,
            "output_factor": output_factor,
        }
    elif layer.engine == "qnnpack":
        multiplier = context.emit(op.multiply(accumulator_scale, op.divide(one, scale)))
        factors = {"addend": np.zeros(1, np.float32), "addend_factor": np.ones(1, np.float32), "multiplier": multiplier}
        if bias is not None:
            sums = context.emit(
                op.add(sums, _integer_bias(context, layer, exact_scale, addend)), f"{layer.name}_biased"
            )
    else:
        multiplier = context.emit(op.divide(accumulator_scale, scale))
        if np.ndim(layer.scales) == 1:
            addend = addend if bias is None else context.emit(op.divide(addend, accumulator_scale))
            factors = {"addend": addend, "addend_factor": np.ones(1, np.float32), "multiplier": multiplier}
        else:
            reciprocal = context.emit(op.divide(one, accumulator_scale))
            factors = {"addend": addend, "addend_factor": reciprocal, "multiplier": multiplier}
    codes = requantize(
        sums,
        accumulator_scale,
        0,
        scale,
        zero_point,
        axis=1,
        rounding="TONEAREST_EVEN",
        compute_dtype="float32",
        out_dtype="uint8",
        arithmetic=arithmetic,
        factors=factors,
    )
    return context.emit(codes, f"{layer.name}_requantized")


def _integer_bias(context: ImportContext, layer: ConvLayer, exact_scale: Any, bias: Any) -> Any:
    """Returns qnnpack's bias: int32 codes of scale input * weight, [O, 1, 1].

    Source: aten/src/ATen/native/quantized/cpu/QuantUtils.h QuantizeBias: the scales' product is float64, its reciprocal
    float32.
    """
    op = relax.op
    scales = relax.const(np.asarray(layer.scales, np.float64), "float64")
    product = op.astype(op.multiply(exact_scale, scales), "float32")
    codes = op.round(op.multiply(bias, op.divide(relax.const(1.0, "float32"), product)))
    # clamped in float64, where the bounds of int32 are numbers
    bounded = op.clip(op.astype(codes, "float64"), -(2.0**31), 2.0**31 - 1)
    channels = static_shape(bias)[0]
    return context.emit(op.reshape(op.astype(bounded, "int32"), (channels, 1, 1)), f"{layer.name}_bias_codes")
