"""The converter of quantized::softmax. numerics/softmax.py has the arithmetic; this is it in relax ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.arithmetic_int32 import refuse_int32
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.numerics.softmax import LANES, QNNPACK_OUTPUT, exp_table, qnnpack_table
from qtorch_relay.qnn import quantize
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import code_range


@converter(
    "quantized::softmax",
    lowering="a table of exponentials, float32 sums in PyTorch's order, qnn.quantize",
    note="PyTorch with AVX2 alone adds in another order than with AVX-512, which ours follows: a few codes in 10**6 "
    "differ. On qnnpack PyTorch reads wrong elements of a slice whose dim has stride 1; ours reads the slice",
)
def quantized_softmax(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::softmax(Tensor qx, int dim, float output_scale, int output_zero_point) -> Tensor

    Source: aten/src/ATen/native/quantized/cpu/qsoftmax.cpp.
    """
    value = context.quantized(node, "qx")
    refuse_int32(node, value)
    output = context.output_qparams(node, value.qparams.dtype, "output_scale", "output_zero_point")
    rank = len(value.shape)
    axis = context.axis(node, "dim", rank)
    low, _ = code_range(value.qparams.dtype)
    index = context.emit(relax.op.subtract(cast(value.expr, "int32"), constant(low, "int32")))
    top = context.emit(relax.op.max(index, axis=[axis], keepdims=True))
    layer = node.scope or "softmax"
    if context.engine == "qnnpack" and low == 0 and (output.scale, output.zero_point) == QNNPACK_OUTPUT:
        expr = _integers(context, value, index, top, axis)
    else:
        real = context.emit(_reals(context, value, index, top, axis))
        expr = quantize(real, output.scale, output.zero_point, out_dtype=output.dtype, arithmetic="fused")
    return QuantizedValue(context.emit(expr, layer), output)


def _integers(context: ImportContext, value: QuantizedValue, index: Any, top: Any, axis: int) -> Any:
    """Returns numerics.softmax.softmax_qnnpack."""
    table = qnnpack_table(value.qparams.scale, value.shape[axis])
    place = relax.op.subtract(relax.op.add(index, constant(255, "int32")), top)
    terms = context.emit(relax.op.take(constant(table, "int64"), context.emit(place), axis=0, mode="clip"))
    total = context.emit(relax.op.sum(terms, axis=[axis], keepdims=True))
    half = relax.op.right_shift(total, constant(1, "int64"))
    scaled = relax.op.add(relax.op.multiply(terms, constant(256, "int64")), half)
    return cast(relax.op.minimum(relax.op.floor_divide(scaled, total), constant(255, "int64")), "uint8")


def _reals(context: ImportContext, value: QuantizedValue, index: Any, top: Any, axis: int) -> Any:
    """Returns the float32 softmax of numerics.softmax.softmax."""
    place = context.emit(relax.op.add(relax.op.multiply(top, constant(256, "int32")), index))
    last = axis == len(value.shape) - 1
    inner = int(np.prod(value.shape[axis + 1 :]))
    outer = int(np.prod(value.shape[:axis]))
    split = inner if last else inner // LANES * LANES
    flat = context.emit(relax.op.reshape(place, (outer, value.shape[axis], inner)))
    parts = []
    for begin, end in ((0, split), (split, inner)):
        if begin == end:
            continue
        columns = flat if end - begin == inner else context.emit(relax.op.strided_slice(flat, [2], [begin], [end]))
        table = exp_table(value.qparams, vectorized=end == split).reshape(-1)
        parts.append(context.emit(relax.op.take(constant(table, "float32"), columns, axis=0, mode="clip")))
    terms = parts[0] if len(parts) == 1 else context.emit(relax.op.concat(parts, axis=2))
    if last:
        reciprocal = context.emit(relax.op.divide(constant(1.0, "float32"), _sum_of_lanes(context, terms)))
        result = relax.op.multiply(terms, reciprocal)
    else:
        result = relax.op.divide(terms, context.emit(relax.op.sum(terms, axis=[1], keepdims=True)))
    return relax.op.reshape(context.emit(result), value.shape)


def _sum_of_lanes(context: ImportContext, terms: Any) -> Any:
    """Returns numerics.softmax.sum_last_axis of terms [outer, count, 1] along the second axis, which stays.

    Relax's sum over one axis adds from the first element to the last.
    """
    outer, count, _ = static_shape(terms)
    if count < LANES:
        return context.emit(relax.op.sum(terms, axis=[1], keepdims=True))
    rows = -(-count // LANES)
    if rows * LANES > count:
        zeros = constant(np.zeros((outer, rows * LANES - count, 1)), "float32")
        terms = context.emit(relax.op.concat([terms, zeros], axis=1))
    lanes = context.emit(relax.op.sum(relax.op.reshape(terms, (outer, rows, LANES)), axis=[1]))
    width = LANES
    while width > 1:
        width //= 2
        halves = [relax.op.strided_slice(lanes, [1], [begin], [begin + width]) for begin in (0, width)]
        lanes = context.emit(relax.op.add(*halves))
    return context.emit(relax.op.reshape(lanes, (outer, 1, 1)))
