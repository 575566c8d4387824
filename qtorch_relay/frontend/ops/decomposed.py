"""Converters of quantized_decomposed ops: quantization on plain tensors, as PT2E and reference graphs write it."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant, round_value
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.fake_quantize import Parameter, along, parameter_of
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import TensorValue

_HOW = "float ops; clamp(rne(x * (1 / scale)) + zero_point)"


@converter("quantized_decomposed::quantize_per_tensor", lowering=_HOW)
def quantize_per_tensor(context: ImportContext, node: Node) -> TensorValue:
    """quantized_decomposed::quantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, int
    quant_max, ScalarType dtype) -> Tensor

    Also .tensor, .tensor2. The zero point is added after rounding, unlike aten::quantize_per_tensor.
    Source: torch/ao/quantization/fx/_decomposed.py.
    """
    return _quantize(context, node, "scale", "zero_point", None)


@converter("quantized_decomposed::quantize_per_channel", lowering=_HOW)
def quantize_per_channel(context: ImportContext, node: Node) -> TensorValue:
    """quantized_decomposed::quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, int
    quant_min, int quant_max, ScalarType dtype) -> Tensor
    """
    return _quantize(context, node, "scales", "zero_points", context.integer(node, "axis"))


@converter("quantized_decomposed::dequantize_per_tensor", lowering="float ops; (code - zero_point) * scale")
def dequantize_per_tensor(context: ImportContext, node: Node) -> TensorValue:
    """quantized_decomposed::dequantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, int
    quant_max, ScalarType dtype, *, ScalarType? out_dtype=None) -> Tensor

    Also .tensor, .tensor2.
    """
    return _dequantize(context, node, "scale", "zero_point", None)


@converter("quantized_decomposed::dequantize_per_channel", lowering="float ops; (code - zero_point) * scale")
def dequantize_per_channel(context: ImportContext, node: Node) -> TensorValue:
    """quantized_decomposed::dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, int
    quant_min, int quant_max, ScalarType dtype, *, ScalarType? out_dtype=None) -> Tensor
    """
    return _dequantize(context, node, "scales", "zero_points", context.integer(node, "axis"))


def _work_dtype(scale: Parameter, axis: int | None) -> str:
    """Returns the dtype PyTorch computes in: a vector of float64 scales promotes, one number does not."""
    return "float64" if axis is not None and str(scale.dtype) == "float64" else "float32"


def _quantize(context: ImportContext, node: Node, scale_name: str, point_name: str, axis: int | None) -> TensorValue:
    value = context.tensor(node, "input")
    if value.dtype != "float32":
        raise context.unsupported(node, f"input must be float32, found {value.dtype}")
    rank = len(value.shape)
    scale, zero_point = (parameter_of(context, node, name) for name in (scale_name, point_name))
    dtype = _work_dtype(scale, axis)
    if isinstance(scale, TensorValue):
        wide = "float64" if axis is None else dtype
        inverse = cast(relax.op.divide(constant(1, wide), along(scale, wide, rank, axis)), dtype)
    else:
        # one scale is inverted as a Python number, several in their own dtype
        wide = "float64" if axis is None else str(scale.dtype)
        inverse = along(np.asarray(np.ones((), wide) / scale.astype(wide)), dtype, rank, axis)
    steps = round_value(relax.op.multiply(cast(value.expr, dtype), inverse), "TONEAREST_EVEN")
    shifted = relax.op.add(steps, along(zero_point, dtype, rank, axis))
    low, high = (context.integer(node, name) for name in ("quant_min", "quant_max"))
    codes = cast(relax.op.clip(shifted, float(low), float(high)), _codes_of(context, node))
    return TensorValue(context.emit(codes, "quantized"))


def _codes_of(context: ImportContext, node: Node) -> str:
    """Returns the dtype of the codes (c10/core/ScalarType.h)."""
    dtype = {0: "uint8", 1: "int8", 2: "int16", 3: "int32"}.get(context.integer(node, "dtype"))
    if dtype is None:
        raise context.unsupported(node, "codes are uint8, int8, int16 or int32")
    return dtype


def _dequantize(context: ImportContext, node: Node, scale_name: str, point_name: str, axis: int | None) -> TensorValue:
    if context.argument(node, "out_dtype") not in (None, 6):
        raise context.unsupported(node, "out_dtype must be float32")
    value = context.tensor(node, "input")
    rank = len(value.shape)
    scale = parameter_of(context, node, scale_name)
    dtype = _work_dtype(scale, axis)
    has_points = context.argument(node, point_name) is not None
    zero_point = parameter_of(context, node, point_name) if has_points else np.asarray(0)
    if axis is None:
        centered: Any = relax.op.subtract(cast(value.expr, "float32"), along(zero_point, "float32", rank, None))
    else:
        # integers, as PyTorch subtracts the zero points before it turns to floats
        point_axis = axis if has_points else None
        difference = relax.op.subtract(cast(value.expr, "int64"), along(zero_point, "int64", rank, point_axis))
        centered = cast(difference, dtype)
    real = relax.op.multiply(centered, along(scale, dtype, rank, axis))
    return TensorValue(context.emit(cast(real, "float32"), "dequantized"))
