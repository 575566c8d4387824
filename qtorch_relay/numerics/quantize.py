"""What PyTorch 2.13 computes between floats and codes outside 8-bit per-tensor quantization, in numpy, to the bit.

8-bit codes of one scale are in core.py (quantize_f32, dequantize_f32). Here: int32 codes, codes per channel with
whole and with float zero points, and fake quantization. None of it depends on the engine or on the place in a vector.
Sources are paths in PyTorch's aten/src/ATen/native/quantized.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.numerics.core import F32, Codes, Floats
from qtorch_relay.qparams import PerChannel, PerChannelFloat, PerTensor, code_range


def _along(vector: npt.NDArray[Any], axis: int, ndim: int) -> npt.NDArray[Any]:
    shape = [1] * ndim
    shape[axis] = -1
    return vector.reshape(shape)


def _rounded_sum(x: npt.ArrayLike, scale: npt.ArrayLike, zero_point: npt.ArrayLike) -> Floats:
    """Returns rne(float32(x * (1 / scale)) + zero_point): two roundings before the last."""
    with np.errstate(all="ignore"):
        product = np.asarray(x, F32) * (F32(1) / np.asarray(scale, F32))
        return np.asarray(np.rint(product + np.asarray(zero_point, F32)), F32)


def _saturate(rounded: Floats, dtype: str) -> Codes:
    """Returns codes: what is beyond the range saturates; NaN is 0, or the lowest code of int32."""
    low, high = code_range(dtype)
    wide = np.clip(rounded.astype(np.float64), low, high)
    return np.where(np.isnan(wide), low if dtype == "int32" else 0, wide).astype(dtype)


def quantize_s32(x: npt.ArrayLike, qparams: PerTensor) -> Codes:
    """Returns aten::quantize_per_tensor to qint32: clamp(rne(float32(x * (1 / s)) + float32(z))), NaN the lowest code.

    Source: FBGEMM include/fbgemm/QuantUtils.h Quantize (its vector code is for 8 bits only).
    """
    return _saturate(_rounded_sum(x, qparams.scale, qparams.zero_point), "int32")


def dequantize_s32(codes: Codes, qparams: PerTensor) -> Floats:
    """Returns s * float32(q - z), the difference wrapping in int32. Source: FBGEMM QuantUtils.h Dequantize."""
    wrapped = (codes.astype(np.int64) - qparams.zero_point).astype(np.int32)
    with np.errstate(over="ignore"):
        return np.asarray(F32(qparams.scale) * wrapped.astype(F32), F32)


def quantize_channels(x: npt.ArrayLike, qparams: PerChannel) -> Codes:
    """Returns aten::quantize_per_channel with whole zero points; NaN is 0, where per tensor it is the highest code.

    Source: cpu/kernels/QuantizedOpKernels.cpp quantize_tensor_per_channel_impl, AffineQuantizerBase.cpp quantize_val.
    """
    values = np.asarray(x, F32)
    scales, zero_points = (
        _along(vector, qparams.axis, values.ndim) for vector in (qparams.scales, qparams.zero_points)
    )
    return _saturate(_rounded_sum(values, scales, zero_points), qparams.dtype)


def dequantize_channels(codes: Codes, qparams: PerChannel) -> Floats:
    """Returns float32((float32(q) - float32(z)) * s), the product in float64, as these scales are.

    Source: cpu/kernels/QuantizedOpKernels.cpp dequantize_per_channel_affine_kernel.
    """
    scales, zero_points = (_along(vector, qparams.axis, codes.ndim) for vector in (qparams.scales, qparams.zero_points))
    with np.errstate(over="ignore"):
        return ((codes.astype(F32) - zero_points.astype(F32)).astype(np.float64) * scales).astype(F32)


def quantize_float_qparams(x: npt.ArrayLike, qparams: PerChannelFloat) -> Codes:
    """Returns aten::quantize_per_channel with float zero points: clamp(int32(rne(float32(x * (1 / s)) + z))).

    The rounded number is converted to int64 and cut to int32 before the clamp: beyond int32 it wraps. What no int64
    holds, and NaN, are 0 then: x86 converts them to -2**63.
    Source: AffineQuantizerBase.cpp quantize_val_float_qparams.
    """
    values = np.asarray(x, F32)
    scales, zero_points = (
        _along(vector, qparams.axis, values.ndim) for vector in (qparams.scales, qparams.zero_points)
    )
    rounded = _rounded_sum(values, scales, zero_points)
    whole = np.where(np.abs(rounded) < 2.0**63, rounded, F32(0)).astype(np.int64).astype(np.int32)
    return np.clip(whole, *qparams.code_range).astype(qparams.dtype)


def dequantize_float_qparams(codes: Codes, qparams: PerChannelFloat) -> Floats:
    """Returns (float32(q) - z) * s in float32. Source: as dequantize_channels."""
    scales, zero_points = (_along(vector, qparams.axis, codes.ndim) for vector in (qparams.scales, qparams.zero_points))
    return np.asarray((codes.astype(F32) - zero_points) * scales, F32)


def fake_quantize(x: npt.ArrayLike, scale: float, zero_point: int, low: int, high: int) -> Floats:
    """Returns aten::fake_quantize_per_tensor_affine: float32(clamp(z + rne(x * (1 / s))) - z) * s; NaN becomes low.

    The zero point is added after rounding, unlike in quantize_per_tensor.
    Source: cpu/kernels/QuantizedOpKernels.cpp _fake_quantize_tensor_helper.
    """
    with np.errstate(all="ignore"):
        shifted = F32(zero_point) + np.rint(np.asarray(x, F32) * (F32(1) / F32(scale)))
        codes = np.fmin(np.fmax(shifted.astype(np.float64), low), high).astype(np.int64)
    return np.asarray((codes - zero_point).astype(F32) * F32(scale), F32)


def fake_quantize_channels(
    x: npt.ArrayLike, scales: Floats, zero_points: npt.NDArray[Any], axis: int, low: int, high: int
) -> Floats:
    """Returns aten::fake_quantize_per_channel_affine: float32((clamp(q) - z) * s), in float64.

    q = z + rne(x * (1 / s)) for int32 zero points, rne(z + float32(x * (1 / s))) for float ones. NaN and what no int64
    holds, +inf too, become low. Source: as fake_quantize, _fake_quant_per_channel_cachemask_cpu_helper.
    """
    values = np.asarray(x, F32)
    scale, zero_point = (_along(vector, axis, values.ndim) for vector in (scales, zero_points))
    with np.errstate(all="ignore"):
        product = values * (F32(1) / scale)
        if zero_points.dtype.kind == "f":
            rounded = np.rint(zero_point + product)
        else:
            rounded = (zero_point.astype(F32) + np.rint(product)).astype(F32)
    whole = np.where(np.abs(rounded) < 2.0**63, rounded.astype(np.float64), low)
    centered = np.clip(whole, low, high) - zero_point.astype(np.float64)
    return np.asarray(centered * scale.astype(np.float64), F32)
