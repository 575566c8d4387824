"""Converters of unary ops: comparisons with the zero point, and tables of 256 codes made by PyTorch itself."""

from __future__ import annotations

import numpy as np

from qtorch_relay.capture.graph import Node
from qtorch_relay.capture.unary_table import unary_table
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops import floating_elementwise
from qtorch_relay.frontend.ops.accumulator import clamp_below_zero
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qnn import lookup
from qtorch_relay.qparams import is_identity


@converter("aten::relu", "aten::relu_", lowering="maximum with the zero point, or with 0")
def relu(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::relu(Tensor self) -> Tensor"""
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_elementwise.unary(context, node, value)
    return clamp_below_zero(context, value)


@converter(
    "aten::hardsigmoid",
    "aten::hardsigmoid_",
    "aten::sigmoid",
    "aten::tanh",
    "aten::hardtanh",
    "aten::hardtanh_",
    "aten::relu6",
    "aten::clamp",
    "aten::leaky_relu",
    "aten::hardswish",
    "aten::hardswish_",
    "aten::elu",
    "aten::gelu",
    "aten::silu",
    lowering="qnn.lookup, or float arithmetic",
)
def unary_of_self(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::<op>(Tensor self, ...) -> Tensor

    For a quantized tensor the table holds what PyTorch returns for each of the 256 codes, output parameters included
    (fixed ones for sigmoid, hardsigmoid and tanh).
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_elementwise.unary(context, node, value)
    return _table(context, node, "self")


@converter("quantized::hardswish", lowering="qnn.lookup")
def quantized_hardswish(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::hardswish(Tensor input, float output_scale, int output_zero_point) -> Tensor"""
    return _table(context, node, "input")


@converter("quantized::relu6", "quantized::leaky_relu", "quantized::elu", "quantized::sigmoid", lowering="qnn.lookup")
def quantized_unary(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::<op>(Tensor, ...) -> Tensor, a unary op whose first argument is the tensor."""
    return _table(context, node, next(iter(node.args)))


@converter(
    "quantized::add.Scalar",
    "quantized::add_relu.Scalar",
    "quantized::mul.Scalar",
    "quantized::mul_relu.Scalar",
    lowering="qnn.lookup",
)
def quantized_with_scalar(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::<op>.Scalar(Tensor qa, Scalar b) -> Tensor qc

    PyTorch moves the scale and zero point where it can, and keeps the codes.
    """
    return _table(context, node, "qa")


def _table(context: ImportContext, node: Node, tensor_name: str) -> QuantizedValue:
    value = context.quantized(node, tensor_name)
    others = {name: context.argument(node, name) for name in node.args if name != tensor_name}
    table = unary_table(node.op, others, value.qparams, context.engine)
    function = node.name.split("::")[1].rstrip("_")
    if table.output_qparams == value.qparams and is_identity(table.codes):
        return value
    expr = lookup(
        value.expr,
        table.codes,
        np.float32(value.qparams.scale),
        value.qparams.zero_point,
        np.float32(table.output_qparams.scale),
        table.output_qparams.zero_point,
        function,
    )
    return QuantizedValue(context.emit(expr, node.scope or function), table.output_qparams)
