"""What canonicalizations are made of: the registry, and exact building blocks in plain Relax.

Two facts shape the blocks:
- TVM lets LLVM contract a * b + c into one fused multiply-add. Where PyTorch rounds the product first, the product is
  computed in float64 from a float64 tensor constant and cast to float32: exact product (24 + 24 bits <= 53), one
  rounding,
  and nothing left to contract.
- Where PyTorch does fuse, the op torch.fma (tir/ops.py) says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qparams import code_range, is_identity
from qtorch_relay.tir.ops import fma

Rule = Callable[[Operands], Expr]
RULES: dict[str, Rule] = {}


def canonicalization(name: str) -> Callable[[Rule], Rule]:
    """Registers the canonicalization of a qnn op."""

    def register(rule: Rule) -> Rule:
        if name in RULES:
            raise ValueError(f"{name} has two canonicalizations")
        RULES[name] = rule
        return rule

    return register


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


def operand_along(operands: Operands, name: str, rank: int, axis: int) -> Expr:
    """Returns an operand of one number or a vector, constant or not, shaped to broadcast along axis."""
    value = operands[name]
    if is_constant(value):
        return per_axis(constant_array(value), rank, axis, operands.dtype(name))
    return along(value, rank, axis) if operands.shape(name) else value


def fused_multiply_add(factors: tuple[Expr, Expr], addend: Expr) -> Expr:
    """Returns float32(factors[0] * factors[1] + addend) with one rounding, for float32 operands, on any target."""
    return fma(*factors, addend)


def shifted_operand(operands: Operands, name: str, zero_point: str, rank: int, axis: int) -> Expr:
    """Returns int32(operand) - zero_point for operands by name; the zero point may be known only at run time."""
    if is_constant(operands[zero_point]):
        return shifted(operands[name], operands.constant(zero_point), rank, axis)
    return relax.op.subtract(cast(operands[name], "int32"), operand_along(operands, zero_point, rank, axis))


def shifted(expr: Expr, zero_point: np.ndarray[Any, Any], rank: int, axis: int) -> Expr:
    """Returns int32(expr) - zero_point; a zero point of 0 costs nothing."""
    wide = cast(expr, "int32")
    if not zero_point.any():
        return wide
    return relax.op.subtract(wide, per_axis(zero_point, rank, axis, "int32"))


def product(expr: Expr, factor: Expr) -> Expr:
    """Returns expr * factor rounded to float32, safe from contraction with a following addition (see the module's
    text).

    factor must be a float64 tensor of rank 1 or more: a scalar would be written into the code, where the code generator
    sees
    that it fits float32 and narrows the multiplication again.
    """
    return cast(relax.op.multiply(cast(expr, "float64"), factor), "float32")


def rounded_product(lhs: Expr, rhs: Expr) -> Expr:
    """Returns lhs * rhs of float32 values known only at run time, rounded before anything is added to it.

    The product of two float32 is exact in float64. Multiplied by a 1 that is read from memory, LLVM cannot see that the
    operands fit float32 and narrow the multiplication again.
    """
    exact = relax.op.multiply(cast(lhs, "float64"), cast(rhs, "float64"))
    return product(exact, constant([1.0], "float64"))


def wide_along(operands: Operands, name: str, rank: int, axis: int) -> Expr:
    """Returns a float32 constant operand as the float64 tensor that product wants, shaped to broadcast along axis."""
    factor = operands.constant(name).astype(np.float64)
    shape = [1] * max(rank, 1)
    if factor.size > 1:
        shape[axis] = factor.size
    return constant(factor.reshape(shape), "float64")


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
    most
    33 bits around the zero point and exact in float32 for 8-bit codes.
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


def array_or_none(expr: Expr | None) -> np.ndarray[Any, Any] | None:
    """Returns the value of a constant expression, None for anything else."""
    if expr is None or not is_constant(expr):
        return None
    array: np.ndarray[Any, Any] = constant_array(expr)
    return array


def rank_and_axis(operands: Operands, name: str = "data") -> tuple[int, int]:
    """Returns an operand's rank and the op's axis counted from 0."""
    rank = len(operands.shape(name))
    return rank, operands.attrs["axis"] % max(rank, 1)


def look_up(data: Expr, table: np.ndarray[Any, Any]) -> Expr:
    """Returns table[data - least code] for 8-bit codes; a table that changes nothing costs nothing."""
    if str(table.dtype) == str(data.ty.dtype) and is_identity(table):
        return data
    low, _ = code_range(str(data.ty.dtype))
    index = cast(data, "int32")
    if low:
        index = relax.op.subtract(index, constant(low, "int32"))
    return relax.op.take(constant(table, str(table.dtype)), index, axis=0, mode="clip")
