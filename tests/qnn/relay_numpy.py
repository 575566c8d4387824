"""Relay's arithmetic in numpy, in float64 and int64 where the type does not matter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
F32 = np.float32


def half_away(values: Array) -> Array:
    """Returns values rounded to integers, ties away from zero."""
    wide = values.astype(np.float64)
    return np.copysign(np.floor(np.abs(wide) + 0.5), wide)


def saturate(values: Array, dtype: str) -> Array:
    """Returns integer values as codes."""
    info = np.iinfo(dtype)
    return np.clip(values, info.min, info.max).astype(dtype)


def requantize(
    codes: Array,
    scale: Any,
    zero_point: Any,
    output_scale: float,
    output_zero_point: int,
    dtype: str,
    config: tuple[str, str],
) -> Array:
    """Returns requantized codes; scale and zero_point broadcast against the codes; config: rounding, compute_dtype."""
    rounding, compute = config
    ratio = np.asarray(scale, F32).astype(np.float64) / np.float64(F32(output_scale))
    if compute == "int64":
        centered = codes.astype(np.int64) - zero_point
        return saturate(fixed_point_multiply(centered, ratio, rounding) + output_zero_point, dtype)
    centered = codes.astype(compute) - np.asarray(zero_point, compute)
    value = centered * ratio.astype(compute) + np.asarray(output_zero_point, compute)
    rounded = np.floor(value + np.asarray(0.5, compute)) if rounding == "UPWARD" else half_away(value)
    return saturate(rounded, dtype)


def fixed_point_multiply(values: Array, multiplier: Any, rounding: str = "UPWARD") -> Array:
    """Returns values * multiplier with a multiplier of 31 bits, rounded at the end."""
    fraction, exponent = np.frexp(np.asarray(multiplier, np.float64))
    significand = np.floor(fraction * 2**31 + 0.5).astype(np.int64)
    right = (31 - exponent).astype(np.int64)
    product = values.astype(np.int64) * significand
    half = np.int64(1) << (right - 1)
    return (product + np.where((rounding == "UPWARD") | (product >= 0), half, half - 1)) >> right


def quantize(values: Array, scale: Any, zero_point: Any, dtype: str) -> Array:
    """Returns codes: the float32 quotient rounded, then the zero point."""
    return saturate(half_away(values.astype(F32) / np.asarray(scale, F32)) + zero_point, dtype)


def softmax(codes: Array, scale: float, zero_point: int, axis: int) -> Array:
    """Returns the softmax in steps of 2**-7, by Relay's shifts."""
    one = math.floor(1 / scale + 0.5)
    x = codes.astype(np.int64) - zero_point
    x = x - x.max(axis, keepdims=True)
    power = x + (x >> 1) - (x >> 4)
    whole = np.clip(power // -one, 0, 20)
    mantissa = ((power + whole * one) >> 1) + one
    exponentials = mantissa << (whole.max(axis, keepdims=True) - whole)
    return ((2**30 // exponentials.sum(axis, keepdims=True)) * exponentials) >> 23
