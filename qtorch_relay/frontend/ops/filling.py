"""Converters of ops that fill a tensor or copy into one; numbers become codes as PyTorch's scalar code rounds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant, product, saturate
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.conversion import DTYPES, QUANTIZED
from qtorch_relay.frontend.ops.moves import Tensor
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.numerics.core import F32, quantize_f32_scalar
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerTensor


def code_of(qparams: PerTensor, number: float) -> int:
    """Returns the code that PyTorch fills in for a number.

    Source: aten/src/ATen/quantized/QTensorImpl, quantized_copy_from_float_cpu_ and quantize_val.
    """
    return int(quantize_f32_scalar(np.asarray([number], F32), qparams)[0])


@converter("aten::fill_.Scalar", "aten::fill_.Tensor", "aten::fill.Scalar", "aten::fill.Tensor", lowering="full")
def fill(context: ImportContext, node: Node) -> Tensor:
    """aten::fill.Scalar(Tensor self, Scalar value) -> Tensor"""
    value, number = context.any_tensor(node, "self"), context.argument(node, "value")
    if isinstance(number, TensorValue) and isinstance(value, TensorValue):
        return TensorValue(into_shape(context, cast(number.expr, value.dtype), value.shape))
    return full_of(context, value, context.number(node, "value"))


@converter("aten::zero_", "aten::zero", lowering="full")
def zero(context: ImportContext, node: Node) -> Tensor:
    """aten::zero(Tensor self) -> Tensor"""
    return full_of(context, context.tensor(node, "self"), 0)


@converter("aten::full_like", lowering="full")
def full_like(context: ImportContext, node: Node) -> Tensor:
    """aten::full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _filled_like(context, node, context.number(node, "fill_value"))


@converter("aten::ones_like", lowering="full")
def ones_like(context: ImportContext, node: Node) -> Tensor:
    """aten::ones_like(Tensor self, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _filled_like(context, node, 1)


@converter("aten::zeros_like", "aten::empty_like", lowering="full")
def zeros_like(context: ImportContext, node: Node) -> Tensor:
    """aten::zeros_like(Tensor self, *, ScalarType? dtype=None, ...) -> Tensor"""
    context.tensor(node, "self")
    return _filled_like(context, node, 0)


def _filled_like(context: ImportContext, node: Node, number: float) -> Tensor:
    value, dtype = context.any_tensor(node, "self"), context.argument(node, "dtype")
    if isinstance(value, TensorValue):
        return filled(context, node, value.shape, number, DTYPES.get(dtype, "") if dtype is not None else value.dtype)
    if dtype is not None and QUANTIZED.get(dtype) != value.qparams.dtype:
        raise context.unsupported(node, f"of dtype {dtype}; accepted is that of {describe(value)}")
    return full_of(context, value, number)


def full_of(context: ImportContext, value: Tensor, number: float) -> Tensor:
    """Returns a tensor like another in shape, dtype and parameters, of one number."""
    if isinstance(value, QuantizedValue):
        dtype, filling = value.qparams.dtype, constant(code_of(value.qparams, number), value.qparams.dtype)
    else:
        dtype, filling = value.dtype, constant(number, value.dtype)
    return value.with_expr(context.emit(relax.op.full(value.shape, filling, dtype), "full"))


def filled(context: ImportContext, node: Node, shape: Sequence[int], number: float, dtype: str) -> TensorValue:
    """Returns a new tensor of one number; dtype "" is one that no tensor has here."""
    if not dtype:
        raise context.unsupported(node, f"of dtype {context.argument(node, 'dtype')}; accepted: {DTYPES}")
    return TensorValue(context.emit(relax.op.full(list(shape), constant(number, dtype), dtype), "full"))


def into_shape(context: ImportContext, expr: Any, shape: tuple[int, ...]) -> Any:
    """Returns an expression broadcast to a shape."""
    known = context.emit(expr)
    return known if static_shape(known) == shape else context.emit(relax.op.broadcast_to(known, shape), "expand")


@converter("aten::copy_", "aten::copy", lowering="nothing, astype, or quantization rounded as scalar code rounds")
def copy(context: ImportContext, node: Node) -> Tensor:
    """aten::copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor

    A quantized src brings its own parameters; a float one is quantized with self's. Shapes must agree there.
    """
    value, source = context.any_tensor(node, "self"), context.any_tensor(node, "src")
    if isinstance(value, TensorValue):
        if isinstance(source, QuantizedValue):
            raise context.unsupported(node, f"{describe(source)} into {describe(value)}; dequantize it first")
        return TensorValue(into_shape(context, cast(source.expr, value.dtype), value.shape))
    if source.shape != value.shape:
        raise context.unsupported(node, f"{source.shape} into {value.shape}, which PyTorch refuses")
    if isinstance(source, QuantizedValue):
        return source
    return value.with_expr(context.emit(scalar_codes(context, source.expr, value.qparams), "copy"))


def scalar_codes(context: ImportContext, real: Any, qparams: PerTensor) -> Any:
    """Returns the codes that PyTorch's scalar code makes of reals: rne(real * (1 / s) + z), both rounded, clamped."""
    inverse = constant([F32(1) / F32(qparams.scale)], "float64")
    steps = context.emit(product(real, inverse))
    return saturate(
        relax.op.round(relax.op.add(steps, constant([float(qparams.zero_point)], "float32"))), 0, qparams.dtype
    )
