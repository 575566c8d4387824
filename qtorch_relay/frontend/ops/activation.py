"""Converters of unary ops: comparisons with the zero point, and tables of 256 codes made by PyTorch itself."""

from __future__ import annotations

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops import floating_elementwise
from qtorch_relay.frontend.ops.accumulator import clamp_below_zero
from qtorch_relay.frontend.ops.table import emit_table
from qtorch_relay.frontend.registry import CODES_EXACT, converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue

_TAIL = (
    "the last numel % 64 elements of a run go through scalar code in PyTorch, which gives hardswish, leaky_relu, celu "
    "and threshold other codes for a few inputs; ours is the vector code everywhere"
)


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
    "aten::clip",
    "aten::leaky_relu",
    "aten::leaky_relu_",
    "aten::threshold",
    "aten::hardswish",
    "aten::hardswish_",
    "aten::elu",
    "aten::gelu",
    "aten::gelu_",
    "aten::silu",
    lowering="qnn.lookup, or float arithmetic",
    exact=CODES_EXACT,
    note=_TAIL,
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


_QUANTIZED = (
    "hardswish",
    "relu6",
    "leaky_relu",
    "elu",
    "celu",
    "sigmoid",
    "threshold",
    "clamp",
)


@converter(*(f"quantized::{name}" for name in _QUANTIZED), lowering="qnn.lookup", note=_TAIL)
def quantized_unary(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::<op>(Tensor, ...) -> Tensor, a unary op whose first argument is the tensor.

    On the engine qnnpack PyTorch itself refuses quantized::clamp without both bounds, and quantized::sigmoid of quint8
    with another scale than 1 / 256.
    """
    return _table(context, node, next(iter(node.args)))


@converter("quantized::dropout", lowering="nothing: the value itself")
def quantized_dropout(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::dropout(Tensor self, float output_scale, int output_zero_point, Scalar p=0.5, bool training=False)
    -> Tensor

    PyTorch returns its input, whatever the other arguments are: the output parameters too are the input's.
    Source: aten/src/ATen/native/quantized/cpu/qdropout.cpp.
    """
    return context.quantized(node, "self")


@converter("aten::hardsigmoid.out", lowering="qnn.lookup")
def hardsigmoid_out(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::hardsigmoid.out(Tensor self, *, Tensor(a!) out) -> Tensor(a!)

    For a quantized tensor, whose result has the fixed parameters of hardsigmoid, whatever out has.
    """
    return emit_table(context, node, context.quantized(node, "self"), {}, op="aten::hardsigmoid")


@converter("aten::leaky_relu.out", lowering="qnn.lookup", note=_TAIL)
def leaky_relu_out(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::leaky_relu.out(Tensor self, Scalar negative_slope=0.01, *, Tensor(a!) out) -> Tensor(a!)

    For a quantized tensor, which takes the parameters of out: it is quantized::leaky_relu with these.
    """
    value, out = context.quantized(node, "self"), context.quantized(node, "out")
    if out.qparams.dtype != value.qparams.dtype:
        raise context.unsupported(node, f"an out of {out.qparams.dtype} for {value.qparams.dtype}")
    others = {
        "negative_slope": context.number(node, "negative_slope"),
        "inplace": False,
        "output_scale": out.qparams.scale,
        "output_zero_point": out.qparams.zero_point,
    }
    return emit_table(context, node, value, others, op="quantized::leaky_relu")


def _table(context: ImportContext, node: Node, tensor_name: str) -> QuantizedValue:
    value = context.quantized(node, tensor_name)
    others = {name: context.argument(node, name) for name in node.args if name != tensor_name}
    return emit_table(context, node, value, others)
