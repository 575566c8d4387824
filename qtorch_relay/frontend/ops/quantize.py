"""Converters between real tensors and codes, whatever their scheme; parameters may be run-time values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node, TensorConstant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.float_qparams import dequantize_float_qparams, quantize_float_qparams
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import (
    AnyQuantized,
    ChannelwiseValue,
    QuantizedValue,
    RunTimeQuantizedValue,
    TensorValue,
)
from qtorch_relay.qnn import dequantize, quantize
from qtorch_relay.qparams import PerChannel, PerChannelFloat, PerTensor

# torch.dtype as TorchScript stores it (c10/core/ScalarType.h).
QUANTIZED_DTYPES = {12: "int8", 13: "uint8", 14: "int32"}
SUB_BYTE_BITS = {16: 4, 17: 2}


def code_dtype(context: ImportContext, node: Node) -> str:
    """Returns the dtype of the codes that a node is asked for."""
    dtype = QUANTIZED_DTYPES.get(context.integer(node, "dtype"))
    if dtype is None:
        raise context.unsupported(node, "only quint8, qint8 and qint32 can be quantized to")
    return dtype


def arithmetic_of(dtype: str) -> str:
    """Returns how PyTorch rounds codes of one scale: FBGEMM has vector code for 8 bits only."""
    return "rounded" if dtype == "int32" else "fused"


@converter(
    "aten::quantize_per_tensor",
    "aten::quantize_per_tensor.tensor_qparams",
    lowering="qnn.quantize",
    note="what is beyond the range saturates; NaN is the highest code of 8 bits and the lowest of 32",
)
def quantize_per_tensor(context: ImportContext, node: Node) -> QuantizedValue | RunTimeQuantizedValue:
    """aten::quantize_per_tensor(Tensor self, float scale, int zero_point, ScalarType dtype) -> Tensor

    Source: FBGEMM src/QuantUtilsAvx2.cc, QuantizeAvx2 (the float is multiplied by 1 / scale); src/QuantUtils.cc.
    """
    value, dtype = context.tensor(node, "self"), code_dtype(context, node)
    scale, zero_point = (_number_or_value(context, node, node.args[name]) for name in ("scale", "zero_point"))
    return emit_quantize(context, value, scale, zero_point, dtype)


@converter("aten::quantize_per_tensor.tensors", lowering="qnn.quantize of each")
def quantize_list(context: ImportContext, node: Node) -> list[QuantizedValue | RunTimeQuantizedValue]:
    """aten::quantize_per_tensor.tensors(Tensor[] tensors, Tensor scales, Tensor zero_points, ScalarType dtype) ->
    Tensor[]
    """
    values, dtype = context.argument(node, "tensors"), code_dtype(context, node)
    columns = [_elements(context, node, name, len(values)) for name in ("scales", "zero_points")]
    return [
        emit_quantize(context, value, scale, zero_point, dtype)
        for value, scale, zero_point in zip(values, *columns, strict=True)
    ]


def _elements(context: ImportContext, node: Node, name: str, count: int) -> Sequence[Any]:
    """Returns the numbers of a vector, or its elements as run-time values."""
    operand = node.args[name]
    if isinstance(operand, TensorConstant):
        return [number.item() for number in operand.array.reshape(-1)]
    vector = context.tensor(node, name)
    if vector.shape != (count,):
        raise context.unsupported(node, f"{name} must have one entry for each of {count} tensors, found {vector.shape}")
    elements = [relax.op.take(vector.expr, relax.const(i, "int64"), axis=0, mode="clip") for i in range(count)]
    return [TensorValue(context.emit(element, name)) for element in elements]


def _number_or_value(context: ImportContext, node: Node, operand: Any) -> float | TensorValue:
    """Returns a number known at import, or a tensor of one element."""
    if isinstance(operand, TensorConstant) and operand.array.size == 1:
        number: float = operand.array.reshape(-1)[0].item()
        return number
    value = context.resolve(operand)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0].item()
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, TensorValue) and int(np.prod(value.shape)) == 1:
        return value
    raise context.unsupported(node, f"a scale or zero point must be one number, found {describe(value)}")


def emit_quantize(
    context: ImportContext, value: TensorValue, scale: float | TensorValue, zero_point: float | TensorValue, dtype: str
) -> QuantizedValue | RunTimeQuantizedValue:
    """Returns the codes of a float tensor, with parameters known at import or not."""
    arithmetic = arithmetic_of(dtype)
    if not isinstance(scale, TensorValue) and not isinstance(zero_point, TensorValue):
        qparams = PerTensor(float(scale), int(zero_point), dtype)
        codes = _quantize(value, (qparams.scale, qparams.zero_point), dtype, arithmetic)
        return QuantizedValue(context.emit(codes, "quantized"), qparams)
    scale_expr = _one_number(context, scale, "float64")
    point_expr = _one_number(context, zero_point, "int64")
    operands = (_cast(context, scale_expr, "float32"), _cast(context, point_expr, "int32"))
    codes = context.emit(_quantize(value, operands, dtype, arithmetic), "quantized")
    return RunTimeQuantizedValue(codes, scale_expr, point_expr, dtype)


def _quantize(value: TensorValue, parameters: tuple[Any, Any], dtype: str, arithmetic: str, axis: int = -1) -> Any:
    scale, zero_point = parameters
    if value.shape:
        return quantize(value.expr, scale, zero_point, axis=axis, out_dtype=dtype, arithmetic=arithmetic)
    # The op has an axis, so a tensor without dimensions is quantized as a vector of one.
    data = relax.op.reshape(value.expr, (1,))
    return relax.op.reshape(quantize(data, scale, zero_point, out_dtype=dtype, arithmetic=arithmetic), ())


def _one_number(context: ImportContext, value: float | TensorValue, dtype: str) -> Any:
    if not isinstance(value, TensorValue):
        return relax.const(np.asarray(value, dtype), dtype)
    return value.expr if value.shape == () else context.emit(relax.op.reshape(value.expr, ()), "parameter")


def _cast(context: ImportContext, expr: Any, dtype: str) -> Any:
    return expr if str(expr.ty.dtype) == dtype else context.emit(relax.op.astype(expr, dtype), "parameter")


@converter(
    "aten::quantize_per_channel",
    lowering="qnn.quantize along the axis",
    note="NaN is code 0 here (the lowest of qint32), while per tensor it is the highest. Float zero points: a quotient "
    "beyond int32 wraps, as in PyTorch; those of qint32 are refused, PyTorch crashes on them",
)
def quantize_per_channel(context: ImportContext, node: Node) -> ChannelwiseValue | RunTimeQuantizedValue:
    """aten::quantize_per_channel(Tensor self, Tensor scales, Tensor zero_points, int axis, ScalarType dtype) -> Tensor

    Float zero_points make the scheme per_channel_affine_float_qparams, of quint8, qint8, quint4x2 and quint2x4.
    Source: quantized/cpu/kernels/QuantizedOpKernels.cpp quantize_tensor_per_channel_impl (x86: quantize_val).
    """
    value, axis = context.tensor(node, "self"), context.integer(node, "axis")
    if not 0 <= axis < len(value.shape):
        raise context.unsupported(node, f"axis {axis} is outside a tensor of {len(value.shape)} dimensions")
    scales, zero_points = (_vector(context, node, name, value.shape[axis]) for name in ("scales", "zero_points"))
    if _is_float(zero_points):
        bits = SUB_BYTE_BITS.get(context.integer(node, "dtype"))
        dtype = "uint8" if bits is not None else code_dtype(context, node)
        if dtype == "int32":
            raise context.unsupported(node, "qint32 with float zero points, which PyTorch itself cannot quantize to")
        return quantize_float_qparams(context, value, scales, zero_points, axis, dtype, bits or 8)
    dtype = code_dtype(context, node)
    if isinstance(scales, np.ndarray) and isinstance(zero_points, np.ndarray):
        qparams = PerChannel(scales.astype(np.float64), zero_points.astype(np.int64), axis, dtype)
        codes = _quantize(value, (qparams.scales, qparams.zero_points), dtype, "rounded", axis)
        return ChannelwiseValue(context.emit(codes, "quantized"), qparams)
    scale, zero_point = _expr(scales), _expr(zero_points)
    operands = (_cast(context, scale, "float32"), _cast(context, zero_point, "int32"))
    codes = context.emit(_quantize(value, operands, dtype, "rounded", axis), "quantized")
    return RunTimeQuantizedValue(codes, scale, zero_point, dtype, axis)


def _vector(context: ImportContext, node: Node, name: str, length: int) -> np.ndarray[Any, Any] | TensorValue:
    """Returns a vector of parameters: its numbers, or a run-time value."""
    operand = node.args[name]
    if isinstance(operand, TensorConstant) and operand.array.size == length:
        return operand.array.reshape(-1)
    value = context.tensor(node, name)
    if value.shape != (length,):
        raise context.unsupported(node, f"{name} must be a vector of {length}, found {describe(value)} {value.shape}")
    return value


def _is_float(parameters: np.ndarray[Any, Any] | TensorValue) -> bool:
    return str(parameters.dtype).startswith("float")


def _expr(parameters: np.ndarray[Any, Any] | TensorValue) -> Any:
    if isinstance(parameters, TensorValue):
        return parameters.expr
    return relax.const(parameters, str(parameters.dtype))


@converter("aten::dequantize.self", "aten::dequantize.tensor", lowering="qnn.dequantize")
def dequantize_tensor(context: ImportContext, node: Node) -> TensorValue:
    """aten::dequantize.self(Tensor self) -> Tensor

    A tensor that is float already passes through, as in PyTorch.
    """
    return dequantized(context, node, context.argument(node, next(iter(node.args))))


@converter("aten::dequantize.tensors", lowering="qnn.dequantize of each")
def dequantize_list(context: ImportContext, node: Node) -> list[TensorValue]:
    """aten::dequantize.tensors(Tensor[] tensors) -> Tensor[]"""
    return [dequantized(context, node, value) for value in context.argument(node, "tensors")]


def dequantized(context: ImportContext, node: Node, value: Any) -> TensorValue:
    """Returns the real values of a quantized tensor of any scheme; a tensor that is not quantized is left alone."""
    if isinstance(value, TensorValue):
        return value
    if isinstance(value, AnyQuantized):
        return emit_dequantize(context, value)
    raise context.unsupported(node, f"a tensor can be dequantized, found {describe(value)}")


def emit_dequantize(context: ImportContext, value: AnyQuantized) -> TensorValue:
    """Returns the real values of a quantized tensor."""
    if isinstance(value, QuantizedValue):
        real = dequantize(value.expr, value.qparams.scale, value.qparams.zero_point)
        return TensorValue(context.emit(real, "dequantized"))
    if isinstance(value, ChannelwiseValue):
        qparams = value.qparams
        if isinstance(qparams, PerChannelFloat):
            return dequantize_float_qparams(context, value.expr, qparams.scales, qparams.zero_points, qparams.axis)
        scales: Any = relax.const(qparams.scales, "float64")
        return _dequantize_channels(context, value.expr, scales, qparams.zero_points, qparams.axis)
    if value.axis is None:
        scale, zero_point = (
            _cast(context, value.scale, "float32"),
            _cast(context, value.zero_point, "int32"),
        )
        return TensorValue(context.emit(dequantize(value.expr, scale, zero_point), "dequantized"))
    if str(value.zero_point.ty.dtype).startswith("float"):
        return dequantize_float_qparams(context, value.expr, value.scale, value.zero_point, value.axis)
    return _dequantize_channels(context, value.expr, value.scale, value.zero_point, value.axis)


def _dequantize_channels(context: ImportContext, codes: Any, scales: Any, zero_points: Any, axis: int) -> TensorValue:
    """Returns float32((float32(code) - zero_point) * scale), the product in float64, as PyTorch keeps these scales."""
    exact = str(scales.ty.dtype) == "float32"
    if not exact and hasattr(scales, "value"):
        numbers = scales.value.numpy()
        # A product of two float32 numbers is the same in float32 and in float64.
        exact = bool((numbers.astype(np.float32) == numbers).all())
        scales = relax.const(numbers.astype(np.float32), "float32") if exact else scales
    if exact:
        points = zero_points if isinstance(zero_points, np.ndarray) else _cast(context, zero_points, "int32")
        return TensorValue(context.emit(dequantize(codes, scales, points, axis=axis), "dequantized"))
    differences = context.emit(dequantize(codes, np.ones(1, np.float32), 0), "codes")
    points = relax.const(zero_points, "int64") if isinstance(zero_points, np.ndarray) else zero_points
    rank = len(codes.ty.shape.values)
    others = [dim for dim in range(rank) if dim != axis]
    points = context.emit(relax.op.expand_dims(_cast(context, points, "float32"), others), "zero_points")
    factors = context.emit(relax.op.expand_dims(_cast(context, scales, "float64"), others), "scales")
    wide = relax.op.astype(relax.op.subtract(differences, points), "float64")
    return TensorValue(context.emit(relax.op.astype(relax.op.multiply(wide, factors), "float32"), "dequantized"))
