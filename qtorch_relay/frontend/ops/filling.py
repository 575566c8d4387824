"""Converters of ops that write values into quantized tensors, rounded as PyTorch's scalar code rounds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import constant, product, saturate
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.conversion import QUANTIZED
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.numerics.core import F32, quantize_f32_scalar
from qtorch_relay.qparams import PerTensor


def code_of(qparams: PerTensor, number: float) -> int:
    """Returns the code that PyTorch fills in for a number.

    Source: aten/src/ATen/quantized/QTensorImpl, quantized_copy_from_float_cpu_ and quantize_val.
    """
    return int(quantize_f32_scalar(np.asarray([number], F32), qparams)[0])


@converter("aten::fill_.Scalar", "aten::fill_.Tensor", "aten::fill.Scalar", "aten::fill.Tensor", lowering="full")
def fill(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::fill.Scalar(Tensor self, Scalar value) -> Tensor"""
    value = context.quantized(node, "self")
    return _full(context, value, context.number(node, "value"))


@converter("aten::full_like", lowering="full")
def full_like(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _full(context, _without_dtype(context, node), context.number(node, "fill_value"))


@converter("aten::ones_like", lowering="full")
def ones_like(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::ones_like(Tensor self, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _full(context, _without_dtype(context, node), 1.0)


def _without_dtype(context: ImportContext, node: Node) -> QuantizedValue:
    value = context.quantized(node, "self")
    dtype = context.argument(node, "dtype")
    if dtype is not None and QUANTIZED.get(dtype) != value.qparams.dtype:
        raise context.unsupported(node, f"of dtype {dtype}; accepted is that of {describe(value)}")
    return value


def _full(context: ImportContext, value: QuantizedValue, number: float) -> QuantizedValue:
    code = constant(code_of(value.qparams, number), value.qparams.dtype)
    return value.with_expr(context.emit(relax.op.full(value.shape, code, value.qparams.dtype), "full"))


@converter("aten::copy_", "aten::copy", lowering="nothing, or quantization rounded as scalar code rounds")
def copy(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor

    A quantized src brings its own parameters; a float one is quantized with self's. Shapes must agree.
    """
    value, source = context.quantized(node, "self"), context.any_tensor(node, "src")
    if source.shape != value.shape:
        raise context.unsupported(node, f"{source.shape} into {value.shape}, which PyTorch refuses")
    if isinstance(source, QuantizedValue):
        return source
    return value.with_expr(context.emit(_scalar_codes(context, source.expr, value.qparams), "copy"))


def _scalar_codes(context: ImportContext, real: Any, qparams: PerTensor) -> Any:
    """Returns rne(real * (1 / s) + z), clamped, with both roundings."""
    inverse = constant([F32(1) / F32(qparams.scale)], "float64")
    steps = context.emit(product(real, inverse))
    return saturate(
        relax.op.round(relax.op.add(steps, constant([float(qparams.zero_point)], "float32"))), 0, qparams.dtype
    )
