"""Converters of ops on two quantized tensors, add and mul, and of their forms with a number."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import fixed_point_add_factors, mul_multiplier
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops import arithmetic_int32
from qtorch_relay.frontend.ops.accumulator import clamp_below_zero
from qtorch_relay.frontend.ops.table import emit_table
from qtorch_relay.frontend.registry import converter_of
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import add, mul
from qtorch_relay.qparams import PerTensor

_TAIL = (
    "the last numel % 64 elements of a run (all, where operands lie differently in memory) go through scalar code in "
    "PyTorch, which rounds ties and products otherwise; ours is the vector code everywhere"
)
_WRAPS = "of qint32: a result beyond 32 bits wraps in PyTorch's vector code and saturates in ours"


def _scale_args(lhs: QuantizedValue, rhs: QuantizedValue, output: PerTensor) -> tuple[Any, ...]:
    """Returns scales and zero points in the order of Relay's binary ops."""
    return (
        np.float32(lhs.qparams.scale),
        lhs.qparams.zero_point,
        np.float32(rhs.qparams.scale),
        rhs.qparams.zero_point,
        np.float32(output.scale),
        output.zero_point,
    )


def _operands(context: ImportContext, node: Node) -> tuple[QuantizedValue, QuantizedValue]:
    lhs, rhs = context.quantized(node, "qa"), context.quantized(node, "qb")
    if lhs.qparams.dtype != rhs.qparams.dtype:
        raise context.unsupported(node, f"operands of {lhs.qparams.dtype} and {rhs.qparams.dtype}; PyTorch wants one")
    return lhs, rhs


def _out_qparams(context: ImportContext, node: Node, operand: QuantizedValue) -> PerTensor:
    """Returns the parameters of the tensor that a form with out writes to."""
    out = context.quantized(node, "out")
    if out.qparams.dtype != operand.qparams.dtype:
        raise context.unsupported(node, f"an out of {out.qparams.dtype} for operands of {operand.qparams.dtype}")
    return out.qparams


def _forms_with_out(function: str) -> dict[str, bool]:
    """Returns the forms of add or mul that write to a tensor, and whether they end in a ReLU."""
    return {f"quantized::{function}{relu}{out}": bool(relu) for relu in ("", "_relu") for out in (".out", "_out")}


@converter_of({"quantized::add": False, "quantized::add_relu": True}, lowering="qnn.add (+ maximum)", note=_TAIL)
def quantized_add(context: ImportContext, node: Node, relu: bool) -> QuantizedValue:
    """quantized::add(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor qc

    Source: aten/src/ATen/native/quantized/cpu/BinaryOps.cpp; qnnpack's own kernel where shapes and dtypes allow it.
    """
    lhs, rhs = _operands(context, node)
    output = context.output_qparams(node, lhs.qparams.dtype, "scale", "zero_point")
    fixed_point = context.engine == "qnnpack" and lhs.qparams.dtype == "uint8" and lhs.shape == rhs.shape
    return _activated(context, _add(context, node, lhs, rhs, output, fixed_point=fixed_point), relu)


@converter_of(_forms_with_out("add"), lowering="qnn.add (+ maximum)", note=_TAIL)
def quantized_add_out(context: ImportContext, node: Node, relu: bool) -> QuantizedValue:
    """quantized::add.out(Tensor qa, Tensor qb, Tensor(a!) out) -> Tensor(a!) out

    The result has the parameters of out; whoever uses out afterwards gets it (capture.mutation). qnnpack's kernel is
    not used.
    """
    lhs, rhs = _operands(context, node)
    value = _add(context, node, lhs, rhs, _out_qparams(context, node, lhs), fixed_point=False)
    return _activated(context, value, relu)


def _add(
    context: ImportContext,
    node: Node,
    lhs: QuantizedValue,
    rhs: QuantizedValue,
    output: PerTensor,
    *,
    fixed_point: bool,
) -> QuantizedValue:
    if output.dtype == "int32":
        total = arithmetic_int32.emit_add(context, lhs, rhs, output)
        return QuantizedValue(context.emit(total, node.scope or "add"), output)
    factors = {}
    if fixed_point:
        factors = fixed_point_add_factors(lhs.qparams.scale, rhs.qparams.scale, output.scale).operands()
    expr = add(
        lhs.expr,
        rhs.expr,
        *_scale_args(lhs, rhs, output),
        arithmetic="fixed_point" if fixed_point else "float32",
        rounding="TONEAREST_EVEN",
        factors=factors,
    )
    return QuantizedValue(context.emit(expr, node.scope or "add"), output)


@converter_of({"quantized::mul": False, "quantized::mul_relu": True}, lowering="qnn.mul (+ maximum)", note=_WRAPS)
def quantized_mul(context: ImportContext, node: Node, relu: bool) -> QuantizedValue:
    """quantized::mul(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor qc

    Source: aten/src/ATen/native/quantized/cpu/qmul.cpp; the same on every engine.
    """
    lhs, rhs = _operands(context, node)
    output = context.output_qparams(node, lhs.qparams.dtype, "scale", "zero_point")
    return _activated(context, _mul(context, node, lhs, rhs, output), relu)


@converter_of(_forms_with_out("mul"), lowering="qnn.mul (+ maximum)", note=_WRAPS)
def quantized_mul_out(context: ImportContext, node: Node, relu: bool) -> QuantizedValue:
    """quantized::mul.out(Tensor qa, Tensor qb, Tensor(a!) out) -> Tensor(a!) out

    The result has the parameters of out; whoever uses out afterwards gets it (capture.mutation).
    """
    lhs, rhs = _operands(context, node)
    return _activated(context, _mul(context, node, lhs, rhs, _out_qparams(context, node, lhs)), relu)


def _mul(
    context: ImportContext, node: Node, lhs: QuantizedValue, rhs: QuantizedValue, output: PerTensor
) -> QuantizedValue:
    if output.dtype == "int32":
        product = arithmetic_int32.emit_mul(lhs, rhs, output)
        return QuantizedValue(context.emit(product, node.scope or "mul"), output)
    multiplier = mul_multiplier(lhs.qparams.scale, rhs.qparams.scale, output.scale)
    expr = mul(
        lhs.expr,
        rhs.expr,
        *_scale_args(lhs, rhs, output),
        arithmetic="float32",
        rounding="TONEAREST_EVEN",
        factors={"multiplier": multiplier},
    )
    return QuantizedValue(context.emit(expr, node.scope or "mul"), output)


def _activated(context: ImportContext, value: QuantizedValue, relu: bool) -> QuantizedValue:
    return clamp_below_zero(context, value) if relu else value


def _forms_with_number(function: str) -> dict[str, str]:
    """Returns for every form of add or mul with a number the one that computes the same; the older have no overload."""
    forms: dict[str, str] = {}
    for relu in ("", "_relu"):
        same = f"quantized::{function}{relu}.Scalar"
        forms |= {f"quantized::{function}{relu}.{form}": same for form in ("Scalar", "Scalar2", "Scalar_out")}
        forms |= {f"quantized::{function}_scalar{relu}{out}": same for out in ("", "_out")}
    return forms


# PyTorch's add_scalar_relu.Tensor calls the function of add_scalar (BinaryOps.cpp, qadd_scalar_tensor)
_FORGETS_RELU = {f"quantized::add_scalar_relu{out}.Tensor": "quantized::add.Scalar" for out in ("", "_out")}


@converter_of(
    _forms_with_number("add") | _forms_with_number("mul") | _FORGETS_RELU,
    lowering="qnn.lookup",
    note="mul_relu's forms with out leave out as it was when b > 0, and return a new tensor; with ours both are new. "
    "add_scalar_relu.Tensor and add_scalar_relu_out.Tensor apply no ReLU, in PyTorch and in ours",
)
def with_number(context: ImportContext, node: Node, same: str) -> QuantizedValue:
    """quantized::<op>.Scalar(Tensor qa, Scalar b) -> Tensor qc, and every other form of it

    PyTorch moves the scale and zero point where it can, and keeps the codes. A form with out gives out the very
    parameters that the form without has. b is a number, or a tensor of one element (.Tensor).
    """
    value = context.quantized(node, "qa")
    if "out" in node.args:
        out = context.quantized(node, "out")
        if (out.shape, out.qparams.dtype) != (value.shape, value.qparams.dtype):
            raise context.unsupported(node, f"an out of {out.qparams.dtype} {out.shape} for {value.shape}")
    return emit_table(context, node, value, {"b": context.number(node, "b")}, op=same)
