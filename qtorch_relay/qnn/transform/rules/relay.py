"""Relay's own arithmetic: requantize in int64 fixed point, float32 and float64, and quantize.

Where Relay leaves its codes open, ours are these:
- Float requantize: LLVM fuses a * b + c on targets with FMA instructions, so that Relay's codes depend on the target.
  Here every operation is rounded, as on a target without.
- A float past the range of int32 is cast to it, which LLVM does not define. Here it saturates.
- TONEAREST adds 0.5 on targets without SSE4.1, which rounds 0.49999997 up, and rounds on those with it. Here it rounds.
- Fixed point: a multiplier of exactly 1 that is not skipped shifts by -1, one below 2**-33 shifts past 63 bits, both
  not defined. Here they give the products they stand for.
- qnn.mul reads past the end of one side's scales if only the other's are a vector. Here one number goes with each.
- A call's rounding and compute_dtype are overwritten by the first config it is canonicalized under. Here never.
Source: TVM 0.17, src/relay/qnn/op/requantize.cc, quantize.cc and src/relay/qnn/utils.cc.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import cast, constant, per_axis
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.requantize_config import UNSET, resolve
from qtorch_relay.qparams import code_range

Array = np.ndarray[Any, Any]
# A fixed point number has 31 fractional bits.
_FRACTION = 31


@dataclass(frozen=True, eq=False)
class Parameters:
    """scale (float32) and zero_point (int32) of codes: one number each, or a vector along axis."""

    scale: Array
    zero_point: Array
    axis: int = 0

    @staticmethod
    def of(operands: Operands, side: str, axis: int = 0) -> Parameters:
        """Returns the parameters in the operands <side>_scale and <side>_zero_point."""
        prefix = f"{side}_" if side else ""
        return Parameters(operands.constant(f"{prefix}scale"), operands.constant(f"{prefix}zero_point"), axis)

    def equal(self, other: Parameters) -> bool:
        """Says whether both are single numbers and the same."""
        return self.same_scale(other) and bool(self.zero_point.size == 1 and self.zero_point == other.zero_point)

    def same_scale(self, other: Parameters) -> bool:
        """Says whether both scales are single numbers and the same: then Relay does not multiply."""
        return bool(self.scale.size == 1 and other.scale.size == 1 and self.scale == other.scale)


def requantize(
    data: Expr,
    rank: int,
    source: Parameters,
    target: Parameters,
    out_dtype: str,
    rounding: str = UNSET,
    compute_dtype: str = UNSET,
) -> Expr:
    """Returns codes of source's parameters as codes of target's, which are single numbers.

    compute_dtype "int64": fixed point, rounded before the zero point is added; a float: rounded after.
    """
    rounding, compute_dtype = resolve(rounding, compute_dtype)
    if compute_dtype == "int64":
        return _requantize_fixed_point(data, rank, source, target, out_dtype, rounding)
    value = cast(data, compute_dtype)
    if source.zero_point.any():
        value = relax.op.subtract(value, per_axis(source.zero_point, rank, source.axis, compute_dtype))
    if not source.same_scale(target):
        # The ratio is taken in float64 and rounded once.
        ratio = source.scale.astype(np.float64) / np.float64(target.scale.reshape(()))
        value = unfused(relax.op.multiply(value, per_axis(ratio, rank, source.axis, compute_dtype)), compute_dtype)
    if target.zero_point.any():
        value = relax.op.add(value, per_axis(target.zero_point, 0, 0, compute_dtype))
    return saturate_float(round_float(value, rounding, compute_dtype), out_dtype)


def requantize_or_upcast(data: Expr, rank: int, source: Parameters, target: Parameters, rounding: str = UNSET) -> Expr:
    """Returns int32 codes of target's parameters, not clamped; only cast if the parameters are the same."""
    if source.equal(target):
        return cast(data, "int32")
    return requantize(data, rank, source, target, "int32", rounding)


def _requantize_fixed_point(
    data: Expr, rank: int, source: Parameters, target: Parameters, out_dtype: str, rounding: str
) -> Expr:
    value = cast(data, "int32")
    if source.zero_point.any():
        value = relax.op.subtract(value, per_axis(source.zero_point, rank, source.axis, "int32"))
    if not source.same_scale(target):
        ratio = source.scale.astype(np.float64) / np.float64(target.scale.reshape(()))
        value = fixed_point_multiply(value, ratio, rank, source.axis, rounding)
    if target.zero_point.any():
        value = relax.op.add(value, per_axis(target.zero_point, 0, 0, "int32"))
    return value if out_dtype == "int32" else saturate_int(value, out_dtype)


def fixed_point(multiplier: float) -> tuple[int, int]:
    """Returns (significand, exponent) with multiplier = significand / 2**31 * 2**exponent, significand rounded.

    For example (2**30, 0) for 0.5; (0, 0) for 0.
    """
    fraction, exponent = math.frexp(multiplier)
    significand = math.floor(fraction * 2**_FRACTION + 0.5)
    return (significand // 2, exponent + 1) if significand == 2**_FRACTION else (significand, exponent)


def fixed_point_multiply(value: Expr, multipliers: Array, rank: int, axis: int, rounding: str = "UPWARD") -> Expr:
    """Returns int32 value * multipliers in 64-bit fixed point; multipliers: one float64 or a vector along axis.

    rounding "UPWARD" adds half of the last place, "TONEAREST" a little less below zero, before the shift.
    """
    pairs = [fixed_point(float(multiplier)) for multiplier in multipliers.reshape(-1)]
    significands = np.array([pair[0] for pair in pairs], np.int64)
    exponents = np.array([pair[1] for pair in pairs], np.int64)
    left, right = np.maximum(exponents, 0), np.maximum(-exponents, 0) + _FRACTION
    # |value * significand| <= 2**62: shifted by more than 62 it rounds to 0, and a shift past 63 is not defined
    significands, right = np.where(right > 62, 0, significands), np.minimum(right, 62)
    wide = cast(value, "int64")
    if left.any():
        wide = relax.op.left_shift(wide, per_axis(left, rank, axis, "int64"))
    product = relax.op.multiply(wide, per_axis(significands, rank, axis, "int64"))
    half = per_axis(1 << (right - 1), rank, axis, "int64")
    if rounding == "TONEAREST":
        less = per_axis((1 << (right - 1)) - 1, rank, axis, "int64")
        half = relax.op.where(relax.op.greater_equal(product, constant(0, "int64")), half, less)
    shifted = relax.op.right_shift(relax.op.add(product, half), per_axis(right, rank, axis, "int64"))
    return cast(shifted, "int32")


def fixed_point_product(value: int, multiplier: float) -> int:
    """Returns what fixed_point_multiply UPWARD gives for one number."""
    significand, exponent = fixed_point(multiplier)
    right = max(-exponent, 0) + _FRACTION
    return ((value << max(exponent, 0)) * significand + (1 << (right - 1))) >> right


def unfused(value: Expr, dtype: str) -> Expr:
    """Returns value so that LLVM cannot fuse the multiplication it ends in with an addition that follows.

    The clamp to the finite numbers is what stands between them; finite values pass through it unchanged.
    """
    greatest = float(np.finfo(dtype).max)
    return relax.op.clip(value, -greatest, greatest)


def round_float(value: Expr, rounding: str, dtype: str) -> Expr:
    """Returns a float value rounded to an integer: UPWARD floor(v + 0.5), TONEAREST half away from zero, or half to
    even."""
    if rounding == "TONEAREST_EVEN":
        return relax.op.round(value)
    if rounding == "UPWARD":
        return relax.op.floor(relax.op.add(value, constant(0.5, dtype)))
    # value - whole is exact, where |value| + 0.5 would round 0.49999997 up
    whole = relax.op.trunc(value)
    is_half = relax.op.greater_equal(relax.op.abs(relax.op.subtract(value, whole)), constant(0.5, dtype))
    one = relax.op.where(relax.op.less(value, constant(0, dtype)), constant(-1, dtype), constant(1, dtype))
    return relax.op.where(is_half, relax.op.add(whole, one), whole)


def saturate_float(rounded: Expr, out_dtype: str) -> Expr:
    """Returns a float with an integer value as codes; values past the range saturate."""
    low, high = code_range(out_dtype)
    # the greatest int32 is no float32
    wide = cast(rounded, "float64") if out_dtype == "int32" else rounded
    return relax.op.astype(relax.op.clip(wide, float(low), float(high)), out_dtype)


def saturate_int(value: Expr, out_dtype: str) -> Expr:
    """Returns an int32 value as codes; values past the range saturate."""
    low, high = code_range(out_dtype)
    clamped = relax.op.minimum(relax.op.maximum(value, constant(low, "int32")), constant(high, "int32"))
    return relax.op.astype(clamped, out_dtype)


def quantize(data: Expr, scale: Expr, zero_point: Expr, out_dtype: str) -> Expr:
    """Returns clamp(round(data / scale) + zero_point), half away from zero; NaN becomes the highest code.

    scale float32 and zero_point int32 broadcast against data.
    """
    rounded = round_float(relax.op.divide(data, scale), "TONEAREST", "float32")
    codes = relax.op.add(rounded, cast(zero_point, "float32"))
    # a clip keeps NaN; Relay's gives the highest code on x86, and casting NaN is not defined
    number = relax.op.where(relax.op.isnan(codes), constant(np.inf, "float32"), codes)
    return saturate_float(number, out_dtype)
