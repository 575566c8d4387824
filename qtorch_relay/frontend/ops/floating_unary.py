"""Float functions of one tensor that no quantized tensor has: exp, log, sqrt, powers, softplus, ...

Reciprocals and roundings are exact; exp, log, sin and their like come from another library than PyTorch's and may
differ by a step of float32. So may sqrt: ours is correctly rounded, PyTorch's (Intel MKL's) is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.floating_elementwise import float_tensor
from qtorch_relay.frontend.ops.moves import sliced
from qtorch_relay.frontend.registry import converter, converter_of
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.tir.ops import sigmoid

LIBRARY = "within rounding: exp, log, sin, sqrt, ... are another library's"

Function = Callable[[Any], Any]


def _number(expr: Any, value: float) -> Any:
    return constant(value, str(expr.ty.dtype))


def _reciprocal(expr: Any) -> Any:
    return relax.op.divide(_number(expr, 1), expr)


def _rsqrt(expr: Any) -> Any:
    return relax.op.divide(_number(expr, 1), relax.op.sqrt(expr))


def _wide(function: Function) -> Function:
    """Returns a function that computes in float64 and rounds once: near 0 its parts would cancel in float32."""

    def compute(expr: Any) -> Any:
        return cast(function(cast(expr, "float64")), str(expr.ty.dtype))

    return compute


def _log_with(base: float) -> Function:
    return _wide(lambda expr: relax.op.divide(relax.op.log(expr), constant(np.log(base), "float64")))


EXACT: dict[str, Function] = {
    "abs": relax.op.abs,
    "ceil": relax.op.ceil,
    "floor": relax.op.floor,
    "neg": relax.op.negative,
    "reciprocal": _reciprocal,
    "round": relax.op.round,
    "rsqrt": _rsqrt,
    "sign": relax.op.sign,
    "square": lambda expr: relax.op.multiply(expr, expr),
    "trunc": relax.op.trunc,
}
ROUNDED: dict[str, Function] = {
    "cos": relax.op.cos,
    "erf": relax.op.erf,
    "exp": relax.op.exp,
    "exp2": _wide(lambda expr: relax.op.exp(relax.op.multiply(expr, constant(np.log(2), "float64")))),
    "expm1": _wide(lambda expr: relax.op.subtract(relax.op.exp(expr), constant(1, "float64"))),
    "log": relax.op.log,
    "log10": _log_with(10),
    "log1p": _wide(lambda expr: relax.op.log(relax.op.add(expr, constant(1, "float64")))),
    "log2": _log_with(2),
    "log_sigmoid": _wide(lambda expr: relax.op.negative(_softplus(relax.op.negative(expr)))),
    "mish": _wide(lambda expr: relax.op.multiply(expr, relax.op.tanh(_softplus(expr)))),
    "sin": relax.op.sin,
    "sqrt": relax.op.sqrt,
}


def _softplus(expr: Any) -> Any:
    """Returns log(1 + exp(x)) of float64, which does not overflow: max(x, 0) + log(1 + exp(-|x|))."""
    power = relax.op.exp(relax.op.negative(relax.op.abs(expr)))
    rest = relax.op.log(relax.op.add(power, constant(1, "float64")))
    return relax.op.add(relax.op.maximum(expr, constant(0, "float64")), rest)


def _convert(functions: dict[str, Function], exact: str) -> None:
    ops = {f"aten::{name}{in_place}": function for name, function in functions.items() for in_place in ("", "_")}

    @converter_of(ops, lowering="float function", exact=exact)
    def unary(context: ImportContext, node: Node, function: Function) -> TensorValue:
        """aten::<op>(Tensor self) -> Tensor"""
        value = float_tensor(context, node, "self")
        return value.with_expr(context.emit(function(value.expr), node.scope or node.function))


_convert(EXACT, "all engines")
_convert(ROUNDED, LIBRARY)


@converter("aten::softplus", lowering="exp and log in float64", exact=LIBRARY)
def softplus(context: ImportContext, node: Node) -> TensorValue:
    """aten::softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor"""
    value = float_tensor(context, node, "self")
    beta, threshold = (constant(context.number(node, name), "float64") for name in ("beta", "threshold"))
    scaled = context.emit(relax.op.multiply(cast(value.expr, "float64"), beta))
    soft = context.emit(cast(relax.op.divide(_softplus(scaled), beta), value.dtype))
    chosen = relax.op.where(relax.op.greater(scaled, threshold), value.expr, soft)
    return value.with_expr(context.emit(chosen, node.scope or "softplus"))


@converter("aten::pow.Tensor_Scalar", "aten::pow_.Scalar", lowering="products, roots or power", exact=LIBRARY)
def power(context: ImportContext, node: Node) -> TensorValue:
    """aten::pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor

    Source: aten/src/ATen/native/cpu/PowKernel.cpp (0.5, 2, 3, -0.5, -1 and -2 are roots, products and reciprocals).
    """
    value, exponent = float_tensor(context, node, "self"), context.number(node, "exponent")
    return value.with_expr(context.emit(_power(context, value.expr, exponent), node.scope or "pow"))


def _power(context: ImportContext, expr: Any, exponent: float) -> Any:
    if exponent in (-1, -2, -0.5):
        return _reciprocal(context.emit(_power(context, expr, -exponent)))
    if exponent == 0.5:
        return relax.op.sqrt(expr)
    if exponent == 1:
        return expr
    if exponent in (2, 3):
        square = context.emit(relax.op.multiply(expr, expr))
        return square if exponent == 2 else relax.op.multiply(square, expr)
    return relax.op.power(expr, _number(expr, exponent))


@converter("aten::glu", lowering="multiply, sigmoid", exact="halves in whole vectors of 32; else within 1 ulp")
def gated(context: ImportContext, node: Node) -> TensorValue:
    """aten::glu(Tensor self, int dim=-1) -> Tensor, the first half times the sigmoid of the second

    Source: aten/src/ATen/native/cpu/Activation.cpp glu_kernel.
    """
    value = float_tensor(context, node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    half = value.shape[axis] // 2
    taken, gate = (sliced(context, value, axis, begin, begin + half).expr for begin in (0, half))
    open_gate = context.emit((sigmoid if value.dtype == "float32" else relax.op.sigmoid)(gate))
    return value.with_expr(context.emit(relax.op.multiply(taken, open_gate), node.scope or "glu"))
