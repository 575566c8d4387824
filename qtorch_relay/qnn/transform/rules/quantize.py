"""Canonicalization of quantize, dequantize, requantize and lookup."""

from __future__ import annotations

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import (
    cast,
    constant,
    fused_multiply_add,
    look_up,
    per_axis,
    product,
    round_value,
    rounded_product,
    saturate,
    saturate_at,
    shifted,
)
from qtorch_relay.qnn.op_def import Expr, Operands, is_run_time
from qtorch_relay.qnn.transform.rules import relay
from qtorch_relay.qnn.transform.rules.common import (
    canonicalization,
    operand_along,
    rank_and_axis,
    shifted_operand,
    wide_along,
)
from qtorch_relay.qnn.transform.rules.wide_codes import centered_int32, quantize_rounded


@canonicalization("qnn.quantize")
def quantize(operands: Operands) -> Expr:
    """The arithmetic that the call asks for, see qnn.quantize."""
    rank, axis = rank_and_axis(operands)
    data = operands["data"]
    if operands.attrs["arithmetic"] == "relay":
        scale, point = (operand_along(operands, f"output_{name}", rank, axis) for name in ("scale", "zero_point"))
        return relay.quantize(data, scale, point, operands.attrs["out_dtype"])
    inverse_scale = _inverse_scale(operands, rank, axis)
    zero_point = cast(operand_along(operands, "output_zero_point", rank, axis), "float32")
    if operands.attrs["arithmetic"] == "rounded":
        return quantize_rounded(data, inverse_scale, zero_point, operands.attrs["out_dtype"])
    value = fused_multiply_add((data, inverse_scale), zero_point)
    value = relax.op.where(relax.op.isnan(value), constant(np.inf, "float32"), value)
    return saturate(round_value(value, "TONEAREST_EVEN"), 0, operands.attrs["out_dtype"])


def _inverse_scale(operands: Operands, rank: int, axis: int) -> Expr:
    if is_run_time(operands, "output_scale"):
        return relax.op.divide(constant(1, "float32"), operand_along(operands, "output_scale", rank, axis))
    return per_axis(np.float32(1) / operands.constant("output_scale"), rank, axis, "float32")


@canonicalization("qnn.dequantize")
def dequantize(operands: Operands) -> Expr:
    """float32(data - zero_point) scaled, and the addend where the call has one, see qnn.dequantize."""
    rank, axis = rank_and_axis(operands)
    arithmetic = operands.attrs["arithmetic"]
    if operands.dtype("data") == "int32":
        real = centered_int32(operands, rank, axis)
    else:
        real = cast(shifted_operand(operands, "data", "input_zero_point", rank, axis), "float32")
    if arithmetic == "real":
        factors = [operand_along(operands, name, rank, axis) for name in ("input_factor", "kernel_factor")]
        scaled = rounded_product(relax.op.multiply(real, factors[0]), factors[1])
        return relax.op.add(scaled, operand_along(operands, "addend", rank, axis))
    scale = operand_along(operands, "input_scale", rank, axis)
    if arithmetic == "relay":
        return _as_out_dtype(relax.op.multiply(real, scale), operands.attrs["out_dtype"])
    addend = operand_along(operands, "addend", rank, axis)
    if arithmetic == "fused":
        return fused_multiply_add((real, scale), addend)
    return relax.op.add(rounded_product(real, scale), addend)


def _as_out_dtype(real: Expr, dtype: str) -> Expr:
    if dtype == "float32":
        return real
    greatest = float(np.finfo(dtype).max)
    return relax.op.astype(relax.op.clip(real, -greatest, greatest), dtype)


@canonicalization("qnn.requantize")
def requantize(operands: Operands) -> Expr:
    """The arithmetic that the call asks for, see qnn.requantize."""
    attrs = operands.attrs
    rank, axis = rank_and_axis(operands)
    if attrs["arithmetic"] == "relay":
        source, target = relay.Parameters.of(operands, "input", axis), relay.Parameters.of(operands, "output")
        modes = (attrs["rounding"], attrs["compute_dtype"])
        return relay.requantize(operands["data"], rank, source, target, attrs["out_dtype"], *modes)
    value = cast(shifted(operands["data"], operands.constant("input_zero_point"), rank, axis), "float32")
    if attrs["arithmetic"] == "accumulator":
        return _requantize_accumulator(operands, value, rank, axis)
    return _requantize_real(operands, value, rank, axis)


def _requantize_accumulator(operands: Operands, value: Expr, rank: int, axis: int) -> Expr:
    addend = operand_along(operands, "addend", rank, axis)
    if not is_run_time(operands, "addend_factor") and (operands.constant("addend_factor") == 1).all():
        # fma(addend, 1, x) is the one rounding of addend + x
        value = relax.op.add(value, addend)
    else:
        value = fused_multiply_add((addend, operand_along(operands, "addend_factor", rank, axis)), value)
    multiplier = operand_along(operands, "multiplier", rank, axis)
    rounded = round_value(relax.op.multiply(value, multiplier), "TONEAREST_EVEN")
    dtype = operands.attrs["out_dtype"]
    if is_run_time(operands, "output_zero_point"):
        return saturate_at(rounded, operands["output_zero_point"], dtype)
    return saturate(rounded, int(operands.scalar("output_zero_point")), dtype)


def _requantize_real(operands: Operands, value: Expr, rank: int, axis: int) -> Expr:
    value = relax.op.multiply(value, operand_along(operands, "input_factor", rank, axis))
    value = _times(value, operands, "kernel_factor", rank, axis)
    value = relax.op.add(value, operand_along(operands, "addend", rank, axis))
    value = _times(value, operands, "output_factor", rank, axis)
    value = relax.op.add(value, cast(operand_along(operands, "output_zero_point", 0, 0), "float32"))
    return saturate(round_value(value, "TONEAREST_EVEN"), 0, operands.attrs["out_dtype"])


def _times(value: Expr, operands: Operands, name: str, rank: int, axis: int) -> Expr:
    """Returns value * a float32 operand, rounded before anything is added to it."""
    if is_run_time(operands, name):
        return rounded_product(value, operand_along(operands, name, rank, axis))
    return product(value, wide_along(operands, name, rank, axis))


@canonicalization("qnn.lookup")
def lookup(operands: Operands) -> Expr:
    """table[data - least code]."""
    return look_up(operands["data"], operands.constant("table"))
