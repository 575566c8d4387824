"""Exact building blocks in plain Relax, for converters and canonicalizations.

Two facts shape them:
- TVM lets LLVM contract a * b + c into one fused multiply-add. Where PyTorch rounds the product first, the product is
  computed in float64 from a float64 tensor constant and cast to float32: exact product (24 + 24 bits <= 53), one
  rounding, and nothing left to contract.
- Where PyTorch does fuse, the op torch.fma (tir/ops.py) says so.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.qparams import code_range, is_identity
from qtorch_relay.tir.ops import fma

Expr: TypeAlias = Any


def constant(value: Any, dtype: str) -> Expr:
    """Returns a constant of this dtype."""
    return relax.const(np.asarray(value, dtype=dtype), dtype)


def cast(expr: Expr, dtype: str) -> Expr:
    """Returns the value cast; a known dtype that is right already costs nothing."""
    if not expr.ty.is_missing() and str(expr.ty.dtype) == dtype:
        return expr
    return relax.op.astype(expr, dtype)


def per_axis(vector: np.ndarray[Any, Any], rank: int, axis: int, dtype: str) -> Expr:
    """Returns a constant of one number, or of a vector shaped to broadcast along axis."""
    if vector.size == 1:
        return constant(vector.reshape(()), dtype)
    shape = [1] * rank
    shape[axis] = vector.size
    return constant(vector.reshape(shape), dtype)


def along(vector: Expr, rank: int, axis: int) -> Expr:
    """Returns a vector with dimensions of 1 around it, to broadcast along axis."""
    return relax.op.expand_dims(vector, [other for other in range(rank) if other != axis])


def fused_multiply_add(factors: tuple[Expr, Expr], addend: Expr) -> Expr:
    """Returns float32(factors[0] * factors[1] + addend) with one rounding, for float32 operands, on any target."""
    return fma(*factors, addend)


def shifted(expr: Expr, zero_point: np.ndarray[Any, Any], rank: int, axis: int) -> Expr:
    """Returns int32(expr) - zero_point; a zero point of 0 costs nothing."""
    wide = cast(expr, "int32")
    if not zero_point.any():
        return wide
    return relax.op.subtract(wide, per_axis(zero_point, rank, axis, "int32"))


def product(expr: Expr, factor: Expr) -> Expr:
    """Returns expr * factor rounded to float32, safe from contraction with a following addition (the module says how).

    factor must be a float64 tensor of rank 1 or more: a scalar would be written into the code, where the code generator
    sees that it fits float32 and narrows the multiplication again.
    """
    return cast(relax.op.multiply(cast(expr, "float64"), factor), "float32")


def rounded_product(lhs: Expr, rhs: Expr) -> Expr:
    """Returns lhs * rhs of float32 values known only at run time, rounded before anything is added to it.

    The product of two float32 is exact in float64. Multiplied by a 1 that is read from memory, LLVM cannot see that the
    operands fit float32 and narrow the multiplication again.
    """
    exact = relax.op.multiply(cast(lhs, "float64"), cast(rhs, "float64"))
    return product(exact, constant([1.0], "float64"))


def round_value(expr: Expr, rounding: str) -> Expr:
    """Returns a float expression rounded to an integer value."""
    if rounding == "TONEAREST_EVEN":
        return relax.op.round(expr)
    half = constant(0.5, "float32")
    if rounding == "UPWARD":
        return relax.op.floor(relax.op.add(expr, half))
    magnitude = relax.op.floor(relax.op.add(relax.op.abs(expr), half))
    return relax.op.multiply(relax.op.sign(expr), magnitude)


def saturate(rounded: Expr, zero_point: int, dtype: str) -> Expr:
    """Returns clamp(rounded + zero_point) as codes.

    The clamp is done on the float, before the cast, so values past int32 saturate too; the bounds are integers of at
    most 33 bits around the zero point and exact in float32 for 8-bit codes.
    """
    low, high = code_range(dtype)
    bounded = relax.op.clip(rounded, float(low - zero_point), float(high - zero_point))
    codes = cast(bounded, "int32")
    if zero_point:
        codes = relax.op.add(codes, constant(zero_point, "int32"))
    return cast(codes, dtype)


def saturate_at(rounded: Expr, zero_point: Expr, dtype: str) -> Expr:
    """Returns clamp(rounded + zero_point) as 8-bit codes for an int32 zero point known only at run time.

    The zero point is a code: what lies outside of +-512 saturates with any of them.
    """
    low, high = code_range(dtype)
    codes = relax.op.add(cast(relax.op.clip(rounded, -512.0, 512.0), "int32"), zero_point)
    least, greatest = constant(low, "int32"), constant(high, "int32")
    return cast(relax.op.minimum(relax.op.maximum(codes, least), greatest), dtype)


def look_up(data: Expr, table: np.ndarray[Any, Any]) -> Expr:
    """Returns table[data - least code] for 8-bit codes; a table that changes nothing costs nothing."""
    if str(table.dtype) == str(data.ty.dtype) and is_identity(table):
        return data
    low, _ = code_range(str(data.ty.dtype))
    index = cast(data, "int32")
    if low:
        index = relax.op.subtract(index, constant(low, "int32"))
    return relax.op.take(constant(table, str(table.dtype)), index, axis=0, mode="clip")
