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
    round_value,
    saturate,
    shifted,
)


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
    sides = []
    for side in ("lhs", "rhs"):
        codes = shifted(operands[side], operands.constant(f"{side}_zero_point"), 0, 0)
        ratio = operands.scalar(f"{side}_scale") / output_scale
        scaled = relax.op.multiply(cast(codes, "float32"), constant(ratio, "float32"))
        sides.append(round_value(scaled, rounding))
    return saturate(relax.op.add(*sides), output_zero_point, dtype)


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
    """round(float((qa - za) * (qb - zb)) * (sa * sb / sy)) + zy; the product has at most 17 bits."""
    sides = [shifted(operands[side], operands.constant(f"{side}_zero_point"), 0, 0) for side in ("lhs", "rhs")]
    ratio = np.float32(
        np.float32(operands.scalar("lhs_scale") * operands.scalar("rhs_scale")) / operands.scalar("output_scale")
    )
    product = cast(relax.op.multiply(*sides), "float32")
    rounded = round_value(relax.op.multiply(product, constant(ratio, "float32")), operands.attrs["rounding"])
    return saturate(rounded, int(operands.scalar("output_zero_point")), operands.dtype("lhs"))


@canonicalization("qnn.concatenate")
def concatenate(operands: Operands) -> Expr:
    """Each input brought to the output's parameters, then one concat of codes."""
    output_scale, output_zero_point = operands.scalar("output_scale"), int(operands.scalar("output_zero_point"))
    pieces = []
    fields = zip(
        operands["data"].fields,
        operands["input_scales"].fields,
        operands["input_zero_points"].fields,
        strict=True,
    )
    for data, scale, zero_point in fields:
        pieces.append(_bring_to(operands, data, _value(scale), _value(zero_point), output_scale, output_zero_point))
    return relax.op.concat(pieces, axis=operands.attrs["axis"])


def _value(expr: Expr) -> Any:
    return constant_array(expr).reshape(-1)[0]


def _bring_to(
    operands: Operands, data: Expr, scale: Any, zero_point: Any, output_scale: Any, output_zero_point: int
) -> Expr:
    if scale == output_scale and int(zero_point) == output_zero_point:
        return data
    dtype = str(data.ty.dtype)
    real = cast(shifted(data, np.asarray(zero_point), 0, 0), "float32")
    if operands.attrs["arithmetic"] == "requantize":
        scaled = relax.op.multiply(real, constant(scale / output_scale, "float32"))
        return saturate(round_value(scaled, "UPWARD"), output_zero_point, dtype)
    dequantized = relax.op.multiply(real, constant(scale, "float32"))
    scaled = relax.op.multiply(dequantized, constant(np.float32(1) / output_scale, "float32"))
    return saturate(round_value(scaled, "TONEAREST_EVEN"), output_zero_point, dtype)
