"""Converters of concatenation: quantized::cat with its forms, and aten::cat."""

from __future__ import annotations

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import clamp_below_zero
from qtorch_relay.frontend.ops.arithmetic_int32 import CAT_LANES, emit_cat
from qtorch_relay.frontend.registry import converter, converter_of
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.numerics.core import concatenate_table
from qtorch_relay.qnn import concatenate
from qtorch_relay.qparams import PerTensor


@converter_of({"quantized::cat": False, "quantized::cat_relu": True}, lowering="qnn.concatenate (+ maximum)")
def quantized_cat(context: ImportContext, node: Node, relu: bool) -> QuantizedValue:
    """quantized::cat(Tensor[] qx, int dim, float? scale, int? zero_point) -> Tensor

    Without scale or zero_point the first tensor's is taken.
    Source: aten/src/ATen/native/quantized/cpu/TensorShape.cpp; a negative dim never takes its channels-last kernel.
    """
    values = _quantized_list(context, node, "qx")
    first = values[0].qparams
    scale = first.scale if context.argument(node, "scale") is None else context.number(node, "scale")
    zero_point = (
        first.zero_point if context.argument(node, "zero_point") is None else context.integer(node, "zero_point")
    )
    output = PerTensor(scale, zero_point, first.dtype)
    return _quantized(context, node, values, output, relu)


@converter_of({"quantized::cat_out": False, "quantized::cat_relu_out": True}, lowering="qnn.concatenate (+ maximum)")
def quantized_cat_out(context: ImportContext, node: Node, relu: bool) -> QuantizedValue:
    """quantized::cat_out(Tensor[] qx, int dim, Tensor(a!) out) -> Tensor(a!)

    The result has the parameters of out; whoever uses out afterwards gets it (capture.mutation).
    """
    values = _quantized_list(context, node, "qx")
    out = context.quantized(node, "out")
    return _quantized(context, node, values, out.qparams, relu)


@converter("aten::cat", lowering="qnn.concatenate, or concat of float tensors")
def aten_cat(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::cat(Tensor[] tensors, int dim=0) -> Tensor

    Quantized tensors take the first one's parameters.
    """
    values = context.argument(node, "tensors")
    if all(isinstance(value, TensorValue) for value in values):
        return TensorValue(context.emit(relax.op.concat([v.expr for v in values], axis=context.integer(node, "dim"))))
    quantized = _quantized_list(context, node, "tensors")
    axis = context.axis(node, "dim", len(quantized[0].shape))
    return emit_concatenate(context, node, quantized, quantized[0].qparams, axis, by_channel=axis == 1)


def _quantized(
    context: ImportContext, node: Node, values: list[QuantizedValue], output: PerTensor, relu: bool
) -> QuantizedValue:
    dim = context.integer(node, "dim")
    axis = context.axis(node, "dim", len(values[0].shape))
    result = emit_concatenate(context, node, values, output, axis, by_channel=dim == 1)
    return clamp_below_zero(context, result) if relu else result


def _quantized_list(context: ImportContext, node: Node, name: str) -> list[QuantizedValue]:
    values = context.argument(node, name)
    if not values or not all(isinstance(value, QuantizedValue) for value in values):
        raise UnsupportedOpError(f"{node.op}: {name} must be a list of quantized tensors")
    return list(values)


def emit_concatenate(
    context: ImportContext,
    node: Node,
    values: list[QuantizedValue],
    output: PerTensor,
    axis: int,
    *,
    by_channel: bool,
) -> QuantizedValue:
    """Returns the codes of all values, each brought to the output's parameters by a table.

    by_channel: PyTorch takes its channels-last kernel if all values lie so in memory.
    """
    channels_last = by_channel and all(value.channels_last for value in values)
    if output.dtype == "int32":
        codes = emit_cat(context, values, output, axis, channels_last=channels_last)
        return QuantizedValue(context.emit(codes, node.scope or "cat"), output)
    pieces: list[QuantizedValue] = []
    tables = []
    for value in values:
        same = channels_last and value.qparams == output
        split = value.shape[1] // CAT_LANES * CAT_LANES if channels_last and not same else value.shape[axis]
        for begin, end, vectorized in ((0, split, True), (split, value.shape[axis], False)):
            if begin == end:
                continue
            whole = end - begin == value.shape[axis]
            part = relax.op.strided_slice(value.expr, [axis], [begin], [end])
            pieces.append(value if whole else value.with_expr(context.emit(part)))
            tables.append(concatenate_table(value.qparams, output, vectorized=vectorized, channels_last=channels_last))
    expr = concatenate(
        [piece.expr for piece in pieces],
        [piece.qparams.scale for piece in pieces],
        [piece.qparams.zero_point for piece in pieces],
        output.scale,
        output.zero_point,
        axis,
        tables=np.stack(tables),
    )
    return QuantizedValue(context.emit(expr, node.scope or "cat"), output)
