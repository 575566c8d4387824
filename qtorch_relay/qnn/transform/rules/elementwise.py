"""Canonicalization of add, mul and concatenate."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, relax
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import (
    canonicalization,
    cast,
    constant,
    look_up,
    round_value,
    saturate,
    shifted,
)
from qtorch_relay.qparams import code_range


@canonicalization("qnn.add")
def add(operands: Operands) -> Expr:
    """The sum with the arithmetic that the call asks for."""
    dtype = operands.dtype("lhs")
    output_scale, output_zero_point = operands.scalar("output_scale"), int(operands.scalar("output_zero_point"))
    rounding = operands.attrs["rounding"]
    if operands.attrs["arithmetic"] == "float32":
        total = relax.op.add(_dequantize_fused(operands, "lhs"), _dequantize_fused(operands, "rhs"))
        scaled = relax.op.multiply(total, constant(np.float32(1) / output_scale, "float32"))
        return saturate(round_value(scaled, rounding), output_zero_point, dtype)
    if operands.attrs["arithmetic"] == "fixed_point":
        return _add_fixed_point(operands, output_zero_point, dtype)
    sides = []
    for side in ("lhs", "rhs"):
        codes = shifted(operands[side], operands.constant(f"{side}_zero_point"), 0, 0)
        ratio = operands.scalar(f"{side}_scale") / output_scale
        scaled = relax.op.multiply(cast(codes, "float32"), constant(ratio, "float32"))
        sides.append(round_value(scaled, rounding))
    return saturate(relax.op.add(*sides), output_zero_point, dtype)


def _add_fixed_point(operands: Operands, output_zero_point: int, dtype: str) -> Expr:
    """One rounding shift, half away from zero: a remainder above half, less one below zero, adds one.

    |(q - z) * multiplier| <= 255 * 2**22 on each side, and the smaller side's multiplier is no larger: the sum fits
    int32.
    """
    terms = []
    for side in ("lhs", "rhs"):
        codes = shifted(operands[side], operands.constant(f"{side}_zero_point"), 0, 0)
        terms.append(relax.op.multiply(codes, constant(operands.scalar(f"{side}_multiplier"), "int32")))
    total = relax.op.add(*terms)
    shift = int(operands.scalar("shift"))
    mask = (1 << shift) - 1
    negative = cast(relax.op.less(total, constant(0, "int32")), "int32")
    remainder = relax.op.subtract(relax.op.bitwise_and(total, constant(mask, "int32")), negative)
    up = cast(relax.op.greater(remainder, constant(mask >> 1, "int32")), "int32")
    rounded = relax.op.add(relax.op.right_shift(total, constant(shift, "int32")), up)
    low, high = code_range(dtype)
    shifted_codes = relax.op.add(rounded, constant(output_zero_point, "int32"))
    return cast(
        relax.op.minimum(relax.op.maximum(shifted_codes, constant(low, "int32")), constant(high, "int32")), dtype
    )


def _dequantize_fused(operands: Operands, side: str) -> Expr:
    """Returns float32(scale * code + (-zero_point * scale)), rounded once.

    In float64 the product has 24 + 8 bits and the sum is a multiple of the scale's last bit below 2**34 of it, so it is
    exact; the cast is the one rounding of a float32 fused multiply-add.
    """
    scale, zero_point = np.float32(operands.scalar(f"{side}_scale")), np.float32(operands.scalar(f"{side}_zero_point"))
    offset = np.float64(-zero_point * scale)
    wide = cast(operands[side], "float64")
    scaled = relax.op.multiply(wide, constant(np.float64(scale), "float64"))
    return cast(relax.op.add(scaled, constant(offset, "float64")), "float32")


@canonicalization("qnn.mul")
def mul(operands: Operands) -> Expr:
    """round(float((qa - za) * (qb - zb)) * multiplier) + zy; the product has at most 17 bits."""
    sides = [shifted(operands[side], operands.constant(f"{side}_zero_point"), 0, 0) for side in ("lhs", "rhs")]
    if operands.attrs["arithmetic"] == "float32":
        ratio = operands.scalar("multiplier")
    else:
        ratio = operands.scalar("lhs_scale") * operands.scalar("rhs_scale") / operands.scalar("output_scale")
    product = cast(relax.op.multiply(*sides), "float32")
    rounded = round_value(relax.op.multiply(product, constant(ratio, "float32")), operands.attrs["rounding"])
    return saturate(rounded, int(operands.scalar("output_zero_point")), operands.dtype("lhs"))


@canonicalization("qnn.concatenate")
def concatenate(operands: Operands) -> Expr:
    """Each input brought to the output's parameters, then one concat of codes."""
    fields = operands["data"].fields
    if operands.attrs["arithmetic"] == "lookup":
        pieces = [look_up(data, table) for data, table in zip(fields, operands.constant("tables"), strict=True)]
    else:
        scales, zero_points = operands["input_scales"].fields, operands["input_zero_points"].fields
        pieces = [
            _requantize(operands, data, _number(scale), _number(zero_point))
            for data, scale, zero_point in zip(fields, scales, zero_points, strict=True)
        ]
    return relax.op.concat(pieces, axis=operands.attrs["axis"])


def _number(expr: Expr) -> Any:
    return constant_array(expr).reshape(-1)[0]


def _requantize(operands: Operands, data: Expr, scale: Any, zero_point: Any) -> Expr:
    output_scale, output_zero_point = operands.scalar("output_scale"), int(operands.scalar("output_zero_point"))
    if scale == output_scale and int(zero_point) == output_zero_point:
        return data
    value = cast(shifted(data, np.asarray(zero_point), 0, 0), "float32")
    scaled = relax.op.multiply(value, constant(scale / output_scale, "float32"))
    return saturate(round_value(scaled, "UPWARD"), output_zero_point, str(data.ty.dtype))
