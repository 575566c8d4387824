"""Codes with a float scale and a float zero point per channel: PyTorch's per_channel_affine_float_qparams."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import cast, constant, round_value, rounded_product
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.values import ChannelwiseValue, RunTimeQuantizedValue, TensorValue
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerChannelFloat, code_range

Parameters = Any  # float32 numbers of an array, or a run-time vector


def quantize_float_qparams(
    context: ImportContext,
    value: TensorValue,
    scales: np.ndarray[Any, Any] | TensorValue,
    zero_points: np.ndarray[Any, Any] | TensorValue,
    axis: int,
    dtype: str,
    bits: int,
) -> ChannelwiseValue | RunTimeQuantizedValue:
    """Returns clamp(int32(rne(float32(value * (1 / scale)) + zero_point))), codes of fewer bits one a byte.

    The rounded number becomes an int64 and is cut to int32 before it is clamped: beyond int32 it wraps, and NaN and
    what no int64 holds become 0, as x86's conversion gives the lowest int64 for these.
    Source: aten/src/ATen/native/quantized/AffineQuantizerBase.cpp quantize_val_float_qparams.
    """
    rank = len(value.shape)
    scale, zero_point = (_along(item, rank, axis) for item in (scales, zero_points))
    if isinstance(scales, np.ndarray):
        inverse = _along(np.float32(1) / scales.astype(np.float32), rank, axis)
    else:
        inverse = relax.op.divide(constant(1, "float32"), scale)
    total = relax.op.add(rounded_product(value.expr, inverse), zero_point)
    rounded = context.emit(round_value(total, "TONEAREST_EVEN"), "rounded")
    inside = relax.op.less(relax.op.abs(rounded), constant(2.0**63, "float32"))
    wide = cast(relax.op.where(inside, rounded, constant(0, "float32")), "int64")
    low, high = code_range(dtype) if bits == 8 else (0, 2**bits - 1)
    codes = context.emit(cast(relax.op.clip(cast(wide, "int32"), low, high), dtype), "quantized")
    if isinstance(scales, np.ndarray) and isinstance(zero_points, np.ndarray):
        numbers = (scales.astype(np.float32), zero_points.astype(np.float32))
        return ChannelwiseValue(codes, PerChannelFloat(*numbers, axis, dtype, bits))
    return RunTimeQuantizedValue(codes, _float32(scales), _float32(zero_points), dtype, axis)


def dequantize_float_qparams(
    context: ImportContext, codes: Any, scales: Parameters, zero_points: Parameters, axis: int
) -> TensorValue:
    """Returns (float32(code) - zero_point) * scale.

    Source: quantized/cpu/kernels/QuantizedOpKernels.cpp dequantize_per_channel_affine_kernel.
    """
    rank = len(static_shape(codes))
    scale, zero_point = (_along(item, rank, axis) for item in (scales, zero_points))
    difference = relax.op.subtract(cast(codes, "float32"), zero_point)
    return TensorValue(context.emit(relax.op.multiply(difference, scale), "dequantized"))


def _float32(item: np.ndarray[Any, Any] | TensorValue) -> Any:
    return cast(item.expr, "float32") if isinstance(item, TensorValue) else constant(item, "float32")


def _along(item: Parameters, rank: int, axis: int) -> Any:
    """Returns a vector as float32, shaped to broadcast along axis."""
    if isinstance(item, np.ndarray):
        shape = [item.size if dim == axis else 1 for dim in range(rank)]
        return constant(item.astype(np.float32).reshape(shape), "float32")
    expr = item.expr if isinstance(item, TensorValue) else item
    return relax.op.expand_dims(cast(expr, "float32"), [dim for dim in range(rank) if dim != axis])
