"""Converters of ops that read what a quantized tensor is made of, or put one together."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node, TensorConstant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.registry import converter, refuse
from qtorch_relay.frontend.values import AnyQuantized, ChannelwiseValue, QuantizedValue, TensorValue
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerChannel, PerChannelFloat

# c10/core/QScheme.h
_PER_TENSOR_AFFINE, _PER_CHANNEL_AFFINE, _PER_CHANNEL_AFFINE_FLOAT = 0, 1, 4

refuse(
    "aten::_empty_affine_quantized",
    "aten::_empty_per_channel_affine_quantized",
    reason="its codes are whatever the memory held",
    nearest="aten::_make_per_tensor_quantized_tensor",
)
refuse(
    "aten::choose_qparams_optimized",
    reason="it searches a range of a tensor that is known only when the program runs",
    nearest="the same op on a constant tensor, which is run at import",
)


@converter("aten::int_repr", lowering="the codes")
def int_repr(context: ImportContext, node: Node) -> TensorValue:
    """aten::int_repr(Tensor self) -> Tensor

    Codes of 4 and 2 bits are packed densely into a flat vector of bytes, the first in the lowest bits, as PyTorch gives
    them.
    """
    value = context.quantized_of_any_scheme(node, "self")
    if isinstance(value, ChannelwiseValue) and isinstance(value.qparams, PerChannelFloat) and value.qparams.bits < 8:
        return TensorValue(_packed(context, node, value, value.qparams.bits))
    return TensorValue(value.expr)


def _packed(context: ImportContext, node: Node, value: ChannelwiseValue, bits: int) -> Any:
    count, per_byte = int(np.prod(value.shape)), 8 // bits
    if count % per_byte:
        raise context.unsupported(node, f"{count} codes of {bits} bits do not fill bytes")
    codes = relax.op.reshape(value.expr, (count // per_byte, per_byte))
    # Numbers below 2**bits times powers of it add up without a carry.
    factors = relax.const(2 ** (bits * np.arange(per_byte, dtype=np.int32)), "int32")
    wide = relax.op.multiply(relax.op.astype(codes, "int32"), factors)
    return context.emit(relax.op.astype(relax.op.sum(wide, axis=[1]), "uint8"), "packed")


@converter("aten::q_scale", lowering="computed at import")
def q_scale(context: ImportContext, node: Node) -> float | TensorValue:
    """aten::q_scale(Tensor self) -> float"""
    value = _per_tensor(context, node)
    return value.qparams.scale if isinstance(value, QuantizedValue) else TensorValue(value.scale)


@converter("aten::q_zero_point", lowering="computed at import")
def q_zero_point(context: ImportContext, node: Node) -> int | TensorValue:
    """aten::q_zero_point(Tensor self) -> int"""
    value = _per_tensor(context, node)
    return value.qparams.zero_point if isinstance(value, QuantizedValue) else TensorValue(value.zero_point)


def _per_tensor(context: ImportContext, node: Node) -> Any:
    value = context.quantized_of_any_scheme(node, "self")
    if _axis(value) is not None:
        raise context.unsupported(node, "self is quantized per channel, and has no one scale and zero point")
    return value


def _axis(value: AnyQuantized) -> int | None:
    if isinstance(value, QuantizedValue):
        return None
    return value.qparams.axis if isinstance(value, ChannelwiseValue) else value.axis


def _per_channel(context: ImportContext, node: Node) -> Any:
    value = context.quantized_of_any_scheme(node, "self")
    if _axis(value) is None:
        raise context.unsupported(node, "self is quantized per tensor, and has no scales and zero points per channel")
    return value


@converter("aten::q_per_channel_scales", lowering="a constant, or the run-time value cast to float64")
def q_per_channel_scales(context: ImportContext, node: Node) -> TensorValue:
    """aten::q_per_channel_scales(Tensor self) -> Tensor

    float64, or float32 where the zero points are floats.
    """
    value = _per_channel(context, node)
    if isinstance(value, ChannelwiseValue):
        return TensorValue(context.param("scales", value.qparams.scales))
    is_float = str(value.zero_point.ty.dtype).startswith("float")
    return TensorValue(context.emit(relax.op.astype(value.scale, "float32" if is_float else "float64"), "scales"))


@converter("aten::q_per_channel_zero_points", lowering="a constant, or the run-time value cast to int64")
def q_per_channel_zero_points(context: ImportContext, node: Node) -> TensorValue:
    """aten::q_per_channel_zero_points(Tensor self) -> Tensor

    int64, or float32 where they are floats.
    """
    value = _per_channel(context, node)
    if isinstance(value, ChannelwiseValue):
        return TensorValue(context.param("zero_points", value.qparams.zero_points))
    is_float = str(value.zero_point.ty.dtype).startswith("float")
    cast = relax.op.astype(value.zero_point, "float32" if is_float else "int64")
    return TensorValue(context.emit(cast, "zero_points"))


@converter("aten::q_per_channel_axis", lowering="computed at import")
def q_per_channel_axis(context: ImportContext, node: Node) -> int:
    """aten::q_per_channel_axis(Tensor self) -> int"""
    axis = _axis(_per_channel(context, node))
    assert axis is not None
    return axis


@converter("aten::qscheme", lowering="computed at import")
def qscheme(context: ImportContext, node: Node) -> int:
    """aten::qscheme(Tensor self) -> QScheme

    A number, as TorchScript keeps it; PyTorch's kernels make affine tensors only.
    """
    value = context.quantized_of_any_scheme(node, "self")
    if _axis(value) is None:
        return _PER_TENSOR_AFFINE
    if isinstance(value, ChannelwiseValue):
        return _PER_CHANNEL_AFFINE_FLOAT if isinstance(value.qparams, PerChannelFloat) else _PER_CHANNEL_AFFINE
    is_float = not isinstance(value, QuantizedValue) and str(value.zero_point.ty.dtype).startswith("float")
    return _PER_CHANNEL_AFFINE_FLOAT if is_float else _PER_CHANNEL_AFFINE


@converter("prim::is_quantized", "aten::is_quantized", lowering="computed at import")
def is_quantized(context: ImportContext, node: Node) -> bool:
    """prim::is_quantized(Tensor a) -> bool"""
    return isinstance(context.resolve(next(iter(node.args.values()))), AnyQuantized)


@converter("aten::_make_per_tensor_quantized_tensor", lowering="the codes")
def make_per_tensor(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::_make_per_tensor_quantized_tensor(Tensor self, float scale, int zero_point) -> Tensor"""
    value = _codes(context, node)
    return QuantizedValue(value.expr, context.output_qparams(node, value.dtype, "scale", "zero_point"))


@converter("aten::_make_per_channel_quantized_tensor", lowering="the codes")
def make_per_channel(context: ImportContext, node: Node) -> ChannelwiseValue:
    """aten::_make_per_channel_quantized_tensor(Tensor self, Tensor scale, Tensor zero_point, int axis) -> Tensor"""
    value, axis = _codes(context, node), context.integer(node, "axis")
    vectors = [node.args[name] for name in ("scale", "zero_point")]
    arrays = [item.array.reshape(-1) for item in vectors if isinstance(item, TensorConstant)]
    if len(arrays) != 2 or not 0 <= axis < len(value.shape):
        raise context.unsupported(node, "scale and zero_point must be constants, and axis one of the tensor's")
    if arrays[1].dtype.kind == "f":
        numbers = [array.astype(np.float32) for array in arrays]
        return ChannelwiseValue(value.expr, PerChannelFloat(numbers[0], numbers[1], axis, value.dtype))
    qparams = PerChannel(arrays[0].astype(np.float64), arrays[1].astype(np.int64), axis, value.dtype)
    if static_shape(value.expr)[axis] != len(qparams.scales):
        raise context.unsupported(node, f"there are {len(qparams.scales)} scales for {value.shape[axis]} channels")
    return ChannelwiseValue(value.expr, qparams)


def _codes(context: ImportContext, node: Node) -> TensorValue:
    value = context.tensor(node, "self")
    if value.dtype not in ("uint8", "int8", "int32"):
        raise context.unsupported(node, f"codes are uint8, int8 or int32, found {value.dtype}")
    return value
