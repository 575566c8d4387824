"""Choices and comparisons: masked_fill, ==, < of any tensors; where, logical operations of those not quantized."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.filling import code_of
from qtorch_relay.frontend.ops.floating_elementwise import Number, Operand, as_expr, common_dtype, read_operand
from qtorch_relay.frontend.ops.quantize import emit_dequantize
from qtorch_relay.frontend.registry import converter, converter_of
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qnn.op_def import static_shape


@converter(
    "aten::masked_fill.Scalar",
    "aten::masked_fill.Tensor",
    "aten::masked_fill_.Scalar",
    "aten::masked_fill_.Tensor",
    lowering="where",
)
def masked_fill(context: ImportContext, node: Node) -> TensorValue | QuantizedValue:
    """aten::masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor

    A quantized tensor is filled with the number's code.
    """
    value, mask = context.any_tensor(node, "self"), context.tensor(node, "mask")
    number = context.number(node, "value")
    if isinstance(value, QuantizedValue):
        filling = constant(code_of(value.qparams, number), value.qparams.dtype)
    else:
        filling = constant(number, value.dtype)
    return value.with_expr(context.emit(relax.op.where(mask.expr, filling, value.expr), node.scope or "masked_fill"))


@converter(
    "aten::where.self", "aten::where.ScalarSelf", "aten::where.ScalarOther", "aten::where.Scalar", lowering="where"
)
def where(context: ImportContext, node: Node) -> TensorValue:
    """aten::where.self(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    condition = context.tensor(node, "condition")
    lhs, rhs = read_operand(context, node, "self"), read_operand(context, node, "other")
    if isinstance(lhs, TensorValue) or isinstance(rhs, TensorValue):
        dtype = common_dtype(lhs, rhs)
    else:
        dtype = "float32" if isinstance(lhs, float) or isinstance(rhs, float) else "int64"
    chosen = relax.op.where(cast(condition.expr, "bool"), as_expr(context, lhs, dtype), as_expr(context, rhs, dtype))
    return TensorValue(context.emit(chosen, node.scope or "where"))


Compare = tuple[Callable[[Any, Any], Any], Callable[[Any, Any], bool]]

COMPARISONS: dict[str, Compare] = {
    "eq": (relax.op.equal, operator.eq),
    "ne": (relax.op.not_equal, operator.ne),
    "lt": (relax.op.less, operator.lt),
    "le": (relax.op.less_equal, operator.le),
    "gt": (relax.op.greater, operator.gt),
    "ge": (relax.op.greater_equal, operator.ge),
}


@converter_of(
    {f"aten::{name}.{form}": compare for name, compare in COMPARISONS.items() for form in ("Tensor", "Scalar")},
    lowering="comparison of real values",
)
def compare(context: ImportContext, node: Node, comparison: Compare) -> TensorValue | bool:
    """aten::<op>.Tensor(Tensor self, Tensor other) -> Tensor

    Of quantized tensors the real values are compared, so the parameters may differ.
    """
    on_tensors, on_numbers = comparison
    lhs, rhs = _real(context, node, "self"), _real(context, node, "other")
    if not isinstance(lhs, TensorValue) and not isinstance(rhs, TensorValue):
        return on_numbers(lhs, rhs)
    dtype = common_dtype(lhs, rhs)
    expr = context.emit(
        on_tensors(as_expr(context, lhs, dtype), as_expr(context, rhs, dtype)), node.scope or "compared"
    )
    return TensorValue(_like(context, expr, (lhs, rhs)))


def _real(context: ImportContext, node: Node, name: str) -> Operand:
    value = context.argument(node, name)
    if isinstance(value, QuantizedValue):
        return emit_dequantize(context, value)
    return read_operand(context, node, name)


def _like(context: ImportContext, expr: Any, operands: tuple[Operand, Operand]) -> Any:
    """Returns a result without the dimension that a number brings to a tensor without dimensions (see as_expr)."""
    if all(operand.shape == () for operand in operands if isinstance(operand, TensorValue)) and static_shape(expr):
        return context.emit(relax.op.squeeze(expr, [0]))
    return expr


Combine = Callable[[Any, Any], Any]


def _boolean(context: ImportContext, node: Node, name: str) -> Any:
    """Returns an argument that must be a bool tensor."""
    value = context.tensor(node, name)
    if value.dtype != "bool":
        raise context.unsupported(node, f"{name} is {describe(value)}; accepted is bool")
    return value.expr


def _truth(context: ImportContext, node: Node, name: str) -> Any:
    """Returns where an argument is not 0, as a bool tensor."""
    value = context.tensor(node, name)
    if value.dtype == "bool":
        return value.expr
    zero: Number = 0
    return relax.op.not_equal(value.expr, constant(zero, value.dtype))


@converter_of(
    {
        "aten::logical_and": relax.op.logical_and,
        "aten::logical_or": relax.op.logical_or,
        "aten::logical_xor": relax.op.logical_xor,
    },
    lowering="logical op of bool tensors",
)
def logical(context: ImportContext, node: Node, combine: Combine) -> TensorValue:
    """aten::logical_and(Tensor self, Tensor other) -> Tensor"""
    lhs, rhs = (_truth(context, node, name) for name in ("self", "other"))
    return TensorValue(context.emit(combine(lhs, rhs), node.scope or "logical"))


@converter_of(
    {
        "aten::__and__.Tensor": relax.op.logical_and,
        "aten::__or__.Tensor": relax.op.logical_or,
        "aten::bitwise_and.Tensor": relax.op.logical_and,
        "aten::bitwise_or.Tensor": relax.op.logical_or,
    },
    lowering="logical op of bool tensors",
)
def bitwise(context: ImportContext, node: Node, combine: Combine) -> TensorValue:
    """aten::bitwise_and.Tensor(Tensor self, Tensor other) -> Tensor, of bool tensors"""
    lhs, rhs = (_boolean(context, node, name) for name in ("self", "other"))
    return TensorValue(context.emit(combine(lhs, rhs), node.scope or "logical"))


@converter_of({"aten::logical_not": _truth, "aten::bitwise_not": _boolean}, lowering="logical_not of a bool tensor")
def logical_not(context: ImportContext, node: Node, read: Callable[[ImportContext, Node, str], Any]) -> TensorValue:
    """aten::logical_not(Tensor self) -> Tensor"""
    return TensorValue(context.emit(relax.op.logical_not(read(context, node, "self")), node.scope or "logical"))
