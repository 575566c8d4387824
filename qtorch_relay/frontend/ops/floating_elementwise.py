"""Arithmetic on tensors that are not quantized, element by element, rounded as PyTorch rounds it.

What is computed here may be quantized next, so float32 sums and products must be PyTorch's to the bit. It rounds a
product before it is added; TVM lets LLVM contract the two into one fused multiply-add. Products therefore go through
float64 (qnn.transform.rules.common has the proof).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node, TensorConstant
from qtorch_relay.expressions import cast, constant, fused_multiply_add, product
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.tir import gelu as tir_gelu
from qtorch_relay.tir import ops as tir_ops

Number = bool | int | float
Operand = TensorValue | Number

FLOAT_DTYPES = ("float32", "float64")


# ---- two operands


@converter(
    "aten::add.Tensor", "aten::add.Scalar", "aten::add_.Tensor", "aten::add_.Scalar", lowering="add of float tensors"
)
def add(context: ImportContext, node: Node) -> Operand:
    """aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor

    Source: aten/src/ATen/native/cpu/BinaryOpsKernel.cpp (alpha is applied with a fused multiply-add).
    """
    lhs, rhs = _operands(context, node)
    alpha = context.number(node, "alpha")
    return _binary(context, node, lhs, rhs, lambda a, b: a + alpha * b, lambda a, b: _add_scaled(a, b, alpha))


@converter(
    "aten::sub.Tensor", "aten::sub.Scalar", "aten::sub_.Tensor", "aten::sub_.Scalar", lowering="add of float tensors"
)
def subtract(context: ImportContext, node: Node) -> Operand:
    """aten::sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    lhs, rhs = _operands(context, node)
    alpha = context.number(node, "alpha")
    return _binary(context, node, lhs, rhs, lambda a, b: a - alpha * b, lambda a, b: _add_scaled(a, b, -alpha))


@converter("aten::rsub.Tensor", "aten::rsub.Scalar", lowering="add of float tensors")
def subtract_reversed(context: ImportContext, node: Node) -> Operand:
    """aten::rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor, which is other - alpha * self."""
    rhs, lhs = _operands(context, node)
    alpha = context.number(node, "alpha")
    return _binary(context, node, lhs, rhs, lambda a, b: a - alpha * b, lambda a, b: _add_scaled(a, b, -alpha))


@converter(
    "aten::mul.Tensor", "aten::mul.Scalar", "aten::mul_.Tensor", "aten::mul_.Scalar", lowering="multiply, rounded once"
)
def multiply(context: ImportContext, node: Node) -> Operand:
    """aten::mul.Tensor(Tensor self, Tensor other) -> Tensor"""
    lhs, rhs = _operands(context, node)
    return _binary(context, node, lhs, rhs, operator.mul, _multiply)


@converter(
    "aten::div.Tensor", "aten::div.Scalar", "aten::div_.Tensor", "aten::div_.Scalar", lowering="divide of float tensors"
)
def divide(context: ImportContext, node: Node) -> Operand:
    """aten::div.Tensor(Tensor self, Tensor other) -> Tensor"""
    lhs, rhs = _operands(context, node)
    return _binary(context, node, lhs, rhs, operator.truediv, relax.op.divide, whole=False)


@converter("aten::div.Tensor_mode", "aten::div.Scalar_mode", lowering="divide, then floor or trunc")
def divide_rounded(context: ImportContext, node: Node) -> Operand:
    """aten::div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor"""
    lhs, rhs = _operands(context, node)
    mode = context.argument(node, "rounding_mode")
    if mode is None:
        return _binary(context, node, lhs, rhs, operator.truediv, relax.op.divide, whole=False)
    if mode == "floor":
        return _binary(context, node, lhs, rhs, operator.floordiv, relax.op.floor_divide)
    return _binary(context, node, lhs, rhs, _truncated_quotient, _divide_truncated)


def _truncated_quotient(lhs: Number, rhs: Number) -> Number:
    quotient = abs(lhs) // abs(rhs)
    return quotient if (lhs < 0) == (rhs < 0) else -quotient


def _divide_truncated(lhs: Any, rhs: Any) -> Any:
    quotient = relax.op.divide(lhs, rhs)
    return relax.op.trunc(quotient) if str(lhs.ty.dtype) in FLOAT_DTYPES else quotient


def _operands(context: ImportContext, node: Node) -> tuple[Operand, Operand]:
    return read_operand(context, node, "self"), read_operand(context, node, "other")


def read_operand(context: ImportContext, node: Node, name: str) -> Operand:
    """Returns a tensor, or the number that a Python number or a constant without dimensions is.

    A float64 constant stays a tensor, because it would promote integers to float64 and a number would not.
    """
    operand = node.args[name]
    if isinstance(operand, TensorConstant) and operand.array.ndim == 0 and operand.array.dtype != np.float64:
        number: Number = operand.array.item()
        return number
    value = context.resolve(operand)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    if isinstance(value, TensorValue | bool | int | float):
        return value
    raise context.unsupported(node, f"{name} must be a number or a tensor that is not quantized, not {describe(value)}")


def _binary(
    context: ImportContext,
    node: Node,
    lhs: Operand,
    rhs: Operand,
    on_numbers: Callable[[Any, Any], Number],
    on_tensors: Callable[[Any, Any], Any],
    *,
    whole: bool = True,
) -> Operand:
    """Returns the result on numbers at import, on tensors in the program.

    whole: integers give integers; otherwise they become float32 first, as for a true division.
    """
    if not isinstance(lhs, TensorValue) and not isinstance(rhs, TensorValue):
        return on_numbers(lhs, rhs)
    dtype = common_dtype(lhs, rhs)
    if not whole and dtype not in FLOAT_DTYPES:
        dtype = "float32"
    expr = on_tensors(as_expr(context, lhs, dtype), as_expr(context, rhs, dtype))
    if node.name.endswith("_") and isinstance(lhs, TensorValue) and lhs.dtype != dtype:
        raise context.unsupported(node, f"an in-place result of {dtype} in {describe(lhs)}")
    result = context.emit(expr, node.scope or node.function)
    if all(operand.shape == () for operand in (lhs, rhs) if isinstance(operand, TensorValue)):
        result = _without_dimensions(context, result)
    return TensorValue(result)


def _without_dimensions(context: ImportContext, expr: Any) -> Any:
    """Returns a tensor of one element without the dimension that a number brought (see as_expr)."""
    return context.emit(relax.op.squeeze(expr, [0])) if static_shape(expr) else expr


def common_dtype(lhs: Operand, rhs: Operand) -> str:
    """Returns the dtype PyTorch computes in: float before integer before bool; of the operands of the winning kind
    tensors with dimensions decide, else those without (a trace has numbers as such tensors), else numbers.

    Source: c10/core/ScalarType.h, aten/src/ATen/native/TypeProperties.cpp (result_type).
    """
    tensors = [value for value in (lhs, rhs) if isinstance(value, TensorValue)]
    numbers = [value for value in (lhs, rhs) if not isinstance(value, TensorValue)]
    levels = (
        [value.dtype for value in tensors if value.shape],
        [value.dtype for value in tensors if not value.shape],
        [{float: "float32", bool: "bool"}.get(type(number), "int64") for number in numbers],
    )
    greatest = max(_kind(dtype) for level in levels for dtype in level)
    deciding = next(found for level in levels if (found := [d for d in level if _kind(d) == greatest]))
    return str(np.result_type(*deciding))


def _kind(dtype: str) -> int:
    """Returns 0 for bool, 1 for integers, 2 for floats."""
    return 2 if dtype in FLOAT_DTYPES else int(dtype != "bool")


def as_expr(context: ImportContext, operand: Operand, dtype: str) -> Any:
    """Returns a number or tensor as a tensor of this dtype."""
    if isinstance(operand, TensorValue):
        return operand.expr if operand.dtype == dtype else context.emit(cast(operand.expr, dtype))
    # of rank 1, so that it stays a tensor of the program (common.product says why); it broadcasts against any rank
    return constant([operand], dtype)


def _add_scaled(lhs: Any, rhs: Any, factor: Number) -> Any:
    """Returns lhs + factor * rhs, rounded once."""
    if factor == 1:
        return relax.op.add(lhs, rhs)
    if factor == -1:
        return relax.op.subtract(lhs, rhs)
    dtype = str(rhs.ty.dtype)
    if dtype != "float32":
        return relax.op.add(lhs, relax.op.multiply(rhs, constant(factor, dtype)))
    return fused_multiply_add((rhs, constant([factor], "float32")), lhs)


def _multiply(lhs: Any, rhs: Any) -> Any:
    """Returns lhs * rhs, for float32 rounded before anything is added to it.

    The product of two float32 is exact in float64. Multiplied by a 1 that is read from memory, LLVM cannot see that the
    operands fit float32 and narrow the multiplication again.
    """
    if str(lhs.ty.dtype) != "float32":
        return relax.op.multiply(lhs, rhs)
    exact = relax.op.multiply(cast(lhs, "float64"), cast(rhs, "float64"))
    return product(exact, constant([1.0], "float64"))


# ---- one operand


def float_tensor(context: ImportContext, node: Node, name: str) -> TensorValue:
    """Returns an argument that must be a float tensor."""
    value = context.tensor(node, name)
    if value.dtype not in FLOAT_DTYPES:
        raise context.unsupported(node, f"{name} must be a float tensor, found {describe(value)}")
    return value


Unary = Callable[[ImportContext, Node, Any], Any]


def unary(context: ImportContext, node: Node, value: TensorValue) -> TensorValue:
    """Returns aten::<op>(Tensor self, ...) of a float tensor, for the ops in UNARY."""
    if value.dtype not in FLOAT_DTYPES:
        raise context.unsupported(node, f"self must be a float tensor, found {describe(value)}")
    return value.with_expr(context.emit(UNARY[node.function](context, node, value.expr), node.scope or node.function))


def _clamp_to(expr: Any, low: float | None, high: float | None) -> Any:
    dtype = str(expr.ty.dtype)
    bounded = expr if low is None else relax.op.maximum(expr, constant(low, dtype))
    return bounded if high is None else relax.op.minimum(bounded, constant(high, dtype))


def _hardtanh(context: ImportContext, node: Node, expr: Any) -> Any:
    return _clamp_to(expr, context.number(node, "min_val"), context.number(node, "max_val"))


def _clamp(context: ImportContext, node: Node, expr: Any) -> Any:
    low, high = (None if node.args[name] is None else context.number(node, name) for name in ("min", "max"))
    return _clamp_to(expr, low, high)


def _gate(context: ImportContext, expr: Any) -> Any:
    """Returns clamp(x + 3, 0, 6)."""
    return _clamp_to(context.emit(relax.op.add(expr, constant(3, str(expr.ty.dtype)))), 0, 6)


def _hardsigmoid(context: ImportContext, node: Node, expr: Any) -> Any:
    return relax.op.divide(_gate(context, expr), constant(6, str(expr.ty.dtype)))


def _hardswish(context: ImportContext, node: Node, expr: Any) -> Any:
    return relax.op.divide(relax.op.multiply(expr, _gate(context, expr)), constant(6, str(expr.ty.dtype)))


def _leaky_relu(context: ImportContext, node: Node, expr: Any) -> Any:
    return relax.op.nn.leakyrelu(expr, context.number(node, "negative_slope"))


def _elu(context: ImportContext, node: Node, expr: Any) -> Any:
    dtype = str(expr.ty.dtype)
    alpha, scale, input_scale = (context.number(node, name) for name in ("alpha", "scale", "input_scale"))
    power = relax.op.exp(relax.op.multiply(expr, constant(input_scale, dtype)))
    below = relax.op.multiply(relax.op.subtract(power, constant(1, dtype)), constant(alpha * scale, dtype))
    above = relax.op.multiply(expr, constant(scale, dtype))
    return relax.op.where(relax.op.greater(expr, constant(0, dtype)), above, below)


def _gelu(context: ImportContext, node: Node, expr: Any) -> Any:
    if context.argument(node, "approximate") == "tanh":
        return relax.op.nn.gelu_tanh(expr)
    return gelu_of(expr)


def gelu_of(expr: Any) -> Any:
    """Returns the gelu of a float tensor by erf; of float32 PyTorch's to the last bit."""
    return _by_dtype(expr, tir_gelu.gelu, relax.op.nn.gelu)


def _threshold(context: ImportContext, node: Node, expr: Any) -> Any:
    dtype = str(expr.ty.dtype)
    threshold, value = (constant(context.number(node, name), dtype) for name in ("threshold", "value"))
    return relax.op.where(relax.op.less_equal(expr, threshold), value, expr)


def _by_dtype(expr: Any, on_float32: Callable[[Any], Any], on_float64: Callable[[Any], Any]) -> Any:
    return on_float32(expr) if str(expr.ty.dtype) == "float32" else on_float64(expr)


UNARY: dict[str, Unary] = {
    "clamp": _clamp,
    "clip": _clamp,
    "elu": _elu,
    "gelu": _gelu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "relu": lambda context, node, expr: relax.op.nn.relu(expr),
    "relu6": lambda context, node, expr: _clamp_to(expr, 0, 6),
    "sigmoid": lambda context, node, expr: _by_dtype(expr, tir_ops.sigmoid, relax.op.sigmoid),
    "silu": lambda context, node, expr: _by_dtype(expr, tir_ops.silu, relax.op.nn.silu),
    "tanh": lambda context, node, expr: _by_dtype(expr, tir_ops.tanh, relax.op.tanh),
    "threshold": _threshold,
}
