"""Converters of fake quantization: quantized and back in float, as models hold it between QAT and their conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node, TensorConstant
from qtorch_relay.expressions import cast, constant, round_value, rounded_product
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.registry import converter, refuse
from qtorch_relay.frontend.values import TensorValue

Parameter = npt.NDArray[Any] | TensorValue

refuse(
    "aten::fused_moving_avg_obs_fake_quant",
    reason="its observer is on, and changes the model as it runs",
    nearest="the same model after model.apply(torch.ao.quantization.disable_observer)",
)


@converter("aten::fake_quantize_per_tensor_affine", lowering="float ops that quantize and dequantize")
def fake_quantize(context: ImportContext, node: Node) -> TensorValue:
    """aten::fake_quantize_per_tensor_affine(Tensor self, float scale, int zero_point, int quant_min, int quant_max) ->
    Tensor

    Also .tensor_qparams, whose scale and zero point are tensors, constant or not. NaN becomes quant_min.
    Source: quantized/cpu/kernels/QuantizedOpKernels.cpp _fake_quantize_tensor_helper.
    """
    scale, zero_point = (parameter_of(context, node, name) for name in ("scale", "zero_point"))
    return _per_tensor(context, node, scale, zero_point)


@converter("aten::_fake_quantize_learnable_per_tensor_affine", lowering="float ops that quantize and dequantize")
def fake_quantize_learnable(context: ImportContext, node: Node) -> TensorValue:
    """aten::_fake_quantize_learnable_per_tensor_affine(Tensor self, Tensor scale, Tensor zero_point, int quant_min, int
    quant_max, float grad_factor=1.0) -> Tensor

    The zero point is rounded, then clamped.
    """
    zero_point = _rounded(context, node, parameter_of(context, node, "zero_point"))
    return _per_tensor(context, node, parameter_of(context, node, "scale"), zero_point)


@converter("aten::fake_quantize_per_channel_affine", lowering="float ops that quantize and dequantize")
def fake_quantize_channels(context: ImportContext, node: Node) -> TensorValue:
    """aten::fake_quantize_per_channel_affine(Tensor self, Tensor scale, Tensor zero_point, int axis, int quant_min, int
    quant_max) -> Tensor

    A float zero point is added before rounding, a whole one after. NaN and what no int64 holds become quant_min.
    Source: quantized/cpu/kernels/QuantizedOpKernels.cpp _fake_quant_per_channel_cachemask_cpu_helper.
    """
    scale, zero_point = (parameter_of(context, node, name) for name in ("scale", "zero_point"))
    return _per_channel(context, node, scale, zero_point)


@converter("aten::_fake_quantize_learnable_per_channel_affine", lowering="float ops that quantize and dequantize")
def fake_quantize_learnable_channels(context: ImportContext, node: Node) -> TensorValue:
    """aten::_fake_quantize_learnable_per_channel_affine(Tensor self, Tensor scale, Tensor zero_point, int axis, int
    quant_min, int quant_max, float grad_factor=1.0) -> Tensor

    The zero points are rounded, then clamped.
    """
    zero_point = _rounded(context, node, parameter_of(context, node, "zero_point"))
    return _per_channel(context, node, parameter_of(context, node, "scale"), zero_point)


def _float_input(context: ImportContext, node: Node) -> TensorValue:
    value = context.tensor(node, "self")
    if value.dtype != "float32":
        raise context.unsupported(node, f"self must be float32, found {value.dtype}")
    return value


def parameter_of(context: ImportContext, node: Node, name: str) -> Parameter:
    """Returns a scale or zero point: its numbers, or a run-time value."""
    operand = node.args[name]
    if isinstance(operand, TensorConstant):
        return operand.array
    value = context.resolve(operand)
    if isinstance(value, bool | int | float | np.ndarray):
        return np.asarray(value)
    if isinstance(value, TensorValue):
        return value
    raise context.unsupported(node, f"{name} must be a number or a tensor, found {describe(value)}")


def _limits(context: ImportContext, node: Node) -> tuple[int, int]:
    return context.integer(node, "quant_min"), context.integer(node, "quant_max")


def _rounded(context: ImportContext, node: Node, zero_point: Parameter) -> Parameter:
    """Returns a zero point that training moved off the whole numbers, rounded and clamped."""
    low, high = _limits(context, node)
    if isinstance(zero_point, TensorValue):
        return TensorValue(context.emit(cast(relax.op.clip(relax.op.round(zero_point.expr), low, high), "int32")))
    return np.asarray(np.clip(np.rint(zero_point), low, high).astype(np.int32))


def _is_float(parameter: Parameter) -> bool:
    return str(parameter.dtype).startswith("float")


def along(parameter: Parameter, dtype: str, rank: int, axis: int | None) -> Any:
    """Returns a parameter of this dtype, shaped to broadcast with a tensor: one number, or a vector along axis."""
    shape = () if axis is None else tuple(-1 if dim == axis else 1 for dim in range(rank))
    if isinstance(parameter, TensorValue):
        length = parameter.shape[0] if axis is not None else 1
        return cast(relax.op.reshape(parameter.expr, [length if extent == -1 else extent for extent in shape]), dtype)
    return constant(parameter.astype(dtype).reshape(shape), dtype)


def _inverse(scale: Parameter, rank: int, axis: int | None) -> Any:
    if isinstance(scale, TensorValue):
        return relax.op.divide(constant(1, "float32"), along(scale, "float32", rank, axis))
    return along(np.asarray(np.float32(1) / scale.astype(np.float32)), "float32", rank, axis)


def _per_tensor(context: ImportContext, node: Node, scale: Parameter, zero_point: Parameter) -> TensorValue:
    """Returns float32(clamp(zero_point + rne(x * (1 / scale))) - zero_point) * scale."""
    value, (low, high) = _float_input(context, node), _limits(context, node)
    rank = len(value.shape)
    steps = round_value(relax.op.multiply(value.expr, _inverse(scale, rank, None)), "TONEAREST_EVEN")
    shifted = relax.op.add(steps, along(zero_point, "float32", rank, None))
    ordered = relax.op.where(relax.op.isnan(shifted), constant(low, "float32"), shifted)
    # float64 holds int64 numbers of the size of codes exactly
    bounded = relax.op.clip(cast(ordered, "float64"), float(low), float(high))
    # as integers, which have no -0.0
    centered = cast(relax.op.subtract(cast(bounded, "int64"), along(zero_point, "int64", rank, None)), "float32")
    real = relax.op.multiply(centered, along(scale, "float32", rank, None))
    return TensorValue(context.emit(real, "fake_quantized"))


def _per_channel(context: ImportContext, node: Node, scale: Parameter, zero_point: Parameter) -> TensorValue:
    """Returns float32((clamp(q) - zero_point) * scale) in float64, with q = rne(x * (1 / scale)) and the zero point."""
    value, (low, high), axis = _float_input(context, node), _limits(context, node), context.integer(node, "axis")
    rank = len(value.shape)
    inverse, point = _inverse(scale, rank, axis), along(zero_point, "float32", rank, axis)
    if _is_float(zero_point):
        total = relax.op.add(point, rounded_product(value.expr, inverse))
        shifted = round_value(total, "TONEAREST_EVEN")
    else:
        shifted = relax.op.add(point, round_value(relax.op.multiply(value.expr, inverse), "TONEAREST_EVEN"))
    # x86 converts what is no int64 to the lowest one
    inside = relax.op.less(relax.op.abs(shifted), constant(2.0**63, "float32"))
    whole = relax.op.where(inside, shifted, constant(low, "float32"))
    bounded = relax.op.clip(cast(whole, "float64"), float(low), float(high))
    centered = relax.op.subtract(bounded, cast(point, "float64"))
    real = relax.op.multiply(centered, along(scale, "float64", rank, axis))
    return TensorValue(context.emit(cast(real, "float32"), "fake_quantized"))
