"""Converters of ops on several quantized tensors: add, mul, cat."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import fixed_point_add_factors, mul_multiplier
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import clamp_below_zero
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.numerics import concatenate_table
from qtorch_relay.qnn import add, concatenate, mul
from qtorch_relay.qparams import PerTensor

CAT_LANES = 8  # channels that PyTorch's channels-last concatenation takes at a time; the rest goes through scalar code


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


def _operands(context: ImportContext, node: Node) -> tuple[QuantizedValue, QuantizedValue, PerTensor]:
    lhs, rhs = context.quantized(node, "qa"), context.quantized(node, "qb")
    return lhs, rhs, context.output_qparams(node, lhs.qparams.dtype, "scale", "zero_point")


@converter("quantized::add", lowering="qnn.add")
def quantized_add(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::add(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor qc

    Source: aten/src/ATen/native/quantized/cpu/BinaryOps.cpp; qnnpack's own kernel where shapes and dtypes allow it.
    """
    lhs, rhs, output = _operands(context, node)
    arithmetic, factors = "float32", {}
    if context.engine == "qnnpack" and lhs.qparams.dtype == "uint8" and lhs.shape == rhs.shape:
        arithmetic = "fixed_point"
        factors = fixed_point_add_factors(lhs.qparams.scale, rhs.qparams.scale, output.scale).operands()
    expr = add(
        lhs.expr,
        rhs.expr,
        *_scale_args(lhs, rhs, output),
        arithmetic=arithmetic,
        rounding="TONEAREST_EVEN",
        factors=factors,
    )
    return QuantizedValue(context.emit(expr, node.scope or "add"), output)


@converter("quantized::add_relu", lowering="qnn.add + maximum")
def quantized_add_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::add_relu(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor qc"""
    return clamp_below_zero(context, quantized_add(context, node))


@converter("quantized::mul", lowering="qnn.mul")
def quantized_mul(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::mul(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor qc

    Source: aten/src/ATen/native/quantized/cpu/qmul.cpp; the same on every engine for quint8.
    """
    lhs, rhs, output = _operands(context, node)
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


@converter("quantized::mul_relu", lowering="qnn.mul + maximum")
def quantized_mul_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::mul_relu(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor qc"""
    return clamp_below_zero(context, quantized_mul(context, node))


@converter("quantized::cat", lowering="qnn.concatenate")
def quantized_cat(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::cat(Tensor[] qx, int dim, float? scale, int? zero_point) -> Tensor

    Without scale or zero_point the first tensor's are taken.
    """
    values = _quantized_list(context, node, "qx")
    first = values[0].qparams
    scale = first.scale if context.argument(node, "scale") is None else context.number(node, "scale")
    zero_point = (
        first.zero_point if context.argument(node, "zero_point") is None else context.integer(node, "zero_point")
    )
    return _concatenate(context, node, values, PerTensor(scale, zero_point, first.dtype))


@converter("aten::cat", lowering="qnn.concatenate, or concat of float tensors")
def aten_cat(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::cat(Tensor[] tensors, int dim=0) -> Tensor

    Quantized tensors take the first one's parameters.
    """
    values = context.argument(node, "tensors")
    if all(isinstance(value, TensorValue) for value in values):
        return TensorValue(context.emit(relax.op.concat([v.expr for v in values], axis=context.integer(node, "dim"))))
    quantized = _quantized_list(context, node, "tensors")
    return _concatenate(context, node, quantized, quantized[0].qparams)


def _quantized_list(context: ImportContext, node: Node, name: str) -> list[QuantizedValue]:
    values = context.argument(node, name)
    if not values or not all(isinstance(value, QuantizedValue) for value in values):
        raise UnsupportedOpError(f"{node.op}: {name} must be a list of quantized tensors")
    return list(values)


def _concatenate(context: ImportContext, node: Node, values: list[QuantizedValue], output: PerTensor) -> QuantizedValue:
    axis = context.integer(node, "dim") % len(values[0].shape)
    channels_last = axis == 1 and all(value.channels_last for value in values)
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
