"""Converters of prelu on quantized tensors, with a quantized weight per channel."""

from __future__ import annotations

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant, round_value, saturate, shifted
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.arithmetic_int32 import saturate_wide
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.numerics.core import prelu_factors
from qtorch_relay.qparams import PerTensor


@converter("quantized::prelu", lowering="integer products, round")
def quantized_prelu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::prelu(Tensor qx, Tensor weight, float output_scale, int output_zero_point) -> Tensor

    Source: aten/src/ATen/native/quantized/cpu/qprelu.cpp.
    """
    value = context.quantized(node, "qx")
    output = context.output_qparams(node, value.qparams.dtype, "output_scale", "output_zero_point")
    return _prelu(context, node, value, output)


@converter("aten::prelu", "aten::_prelu_kernel", lowering="integer products, round; or float arithmetic")
def prelu(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::prelu(Tensor self, Tensor weight) -> Tensor

    A quantized result has the input's parameters.
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, QuantizedValue):
        return _prelu(context, node, value, value.qparams)
    weight = context.tensor(node, "weight")
    if weight.dtype != value.dtype:
        raise context.unsupported(node, f"a weight of {weight.dtype} for an input of {value.dtype}")
    slope = relax.op.reshape(weight.expr, _weight_shape(value, weight))
    below = relax.op.multiply(value.expr, slope)
    chosen = relax.op.where(relax.op.greater(value.expr, constant(0, value.dtype)), value.expr, below)
    return value.with_expr(context.emit(chosen, node.scope or "prelu"))


def _weight_shape(value: QuantizedValue | TensorValue, weight: QuantizedValue | TensorValue) -> tuple[int, ...]:
    """Returns the weight's shape as it broadcasts: a weight of other rank lies along the input's second dimension."""
    rank = len(value.shape)
    if len(weight.shape) == rank:
        return weight.shape
    count = int(np.prod(weight.shape))
    return tuple(count if axis == min(1, rank - 1) else 1 for axis in range(rank))


def _prelu(context: ImportContext, node: Node, value: QuantizedValue, output: PerTensor) -> QuantizedValue:
    """Returns clamp(rne(float(max(d, 0) * one + min(d, 0) * (qw - zw)) * multiplier) + zy) with d = qx - zx."""
    weight = context.quantized(node, "weight")
    if weight.qparams.dtype != value.qparams.dtype:
        raise context.unsupported(node, f"a weight of {weight.qparams.dtype} for an input of {value.qparams.dtype}")
    slope = relax.op.reshape(weight.expr, _weight_shape(value, weight))
    slope = shifted(context.emit(slope), np.asarray(weight.qparams.zero_point), 0, 0)
    one, multiplier = prelu_factors(value.qparams, weight.qparams, output)
    difference = context.emit(shifted(value.expr, np.asarray(value.qparams.zero_point), 0, 0))
    above = relax.op.multiply(relax.op.maximum(difference, constant(0, "int32")), constant(one, "int32"))
    below = relax.op.multiply(relax.op.minimum(difference, constant(0, "int32")), context.emit(slope))
    scaled = relax.op.multiply(cast(relax.op.add(above, below), "float32"), constant(multiplier, "float32"))
    rounded = round_value(scaled, "TONEAREST_EVEN")
    if output.dtype == "int32":
        codes = saturate_wide(rounded, output.zero_point)
    else:
        codes = saturate(rounded, output.zero_point, output.dtype)
    return QuantizedValue(context.emit(codes, node.scope or "prelu"), output)
