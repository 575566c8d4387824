"""Canonicalization of quantize, dequantize, requantize and lookup."""

from __future__ import annotations

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import (
    canonicalization,
    cast,
    constant,
    fused_multiply_add,
    look_up,
    operand_along,
    per_axis,
    product,
    rank_and_axis,
    round_value,
    saturate,
    shifted,
    wide_along,
)


@canonicalization("qnn.quantize")
def quantize(operands: Operands) -> Expr:
    """rne(fma(data, 1 / scale, zero_point)), clamped; NaN becomes the highest code, as in PyTorch."""
    rank, axis = rank_and_axis(operands)
    inverse_scale = per_axis(np.float32(1) / operands.constant("output_scale"), rank, axis, "float32")
    zero_point = per_axis(operands.constant("output_zero_point"), rank, axis, "float32")
    data = operands["data"]
    ordered = relax.op.where(relax.op.isnan(data), constant(np.inf, "float32"), data)
    value = fused_multiply_add((ordered, inverse_scale), zero_point)
    # An infinite product has no error term: TwoSum gives NaN, and the plain product is right
    infinite = relax.op.isinf(ordered)
    value = relax.op.where(infinite, ordered, value)
    return saturate(round_value(value, "TONEAREST_EVEN"), 0, operands.attrs["out_dtype"])


@canonicalization("qnn.dequantize")
def dequantize(operands: Operands) -> Expr:
    """float32(data - zero_point) * scale."""
    rank, axis = rank_and_axis(operands)
    real = cast(shifted(operands["data"], operands.constant("input_zero_point"), rank, axis), "float32")
    return relax.op.multiply(real, per_axis(operands.constant("input_scale"), rank, axis, "float32"))


@canonicalization("qnn.requantize")
def requantize(operands: Operands) -> Expr:
    """The arithmetic that the call asks for, see qnn.requantize."""
    attrs = operands.attrs
    rank, axis = rank_and_axis(operands)
    output_zero_point = int(operands.scalar("output_zero_point"))
    compute = attrs["compute_dtype"]
    value = cast(shifted(operands["data"], operands.constant("input_zero_point"), rank, axis), compute)
    if attrs["arithmetic"] == "accumulator":
        return _requantize_accumulator(operands, value, rank, axis, output_zero_point)
    if attrs["arithmetic"] == "real":
        return _requantize_real(operands, value, rank, axis, output_zero_point)
    output_scale = operands.scalar("output_scale").astype(compute)
    ratio = per_axis(operands.constant("input_scale").astype(compute) / output_scale, rank, axis, compute)
    rounded = round_value(relax.op.multiply(value, ratio), attrs["rounding"])
    return saturate(rounded, output_zero_point, attrs["out_dtype"])


def _requantize_accumulator(operands: Operands, value: Expr, rank: int, axis: int, zero_point: int) -> Expr:
    addend = operand_along(operands, "addend", rank, axis)
    if (operands.constant("addend_factor") == 1).all():
        # fma(addend, 1, x) is the one rounding of addend + x
        value = relax.op.add(value, addend)
    else:
        value = fused_multiply_add((addend, operand_along(operands, "addend_factor", rank, axis)), value)
    multiplier = per_axis(operands.constant("multiplier"), rank, axis, "float32")
    rounded = round_value(relax.op.multiply(value, multiplier), "TONEAREST_EVEN")
    return saturate(rounded, zero_point, operands.attrs["out_dtype"])


def _requantize_real(operands: Operands, value: Expr, rank: int, axis: int, zero_point: int) -> Expr:
    value = relax.op.multiply(value, per_axis(operands.constant("input_factor"), rank, axis, "float32"))
    value = product(value, wide_along(operands, "kernel_factor", rank, axis))
    value = relax.op.add(value, operand_along(operands, "addend", rank, axis))
    value = product(value, wide_along(operands, "output_factor", rank, axis))
    value = relax.op.add(value, constant(zero_point, "float32"))
    return saturate(round_value(value, "TONEAREST_EVEN"), 0, operands.attrs["out_dtype"])


@canonicalization("qnn.lookup")
def lookup(operands: Operands) -> Expr:
    """table[data - least code]."""
    return look_up(operands["data"], operands.constant("table"))
