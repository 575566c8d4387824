"""Canonicalization of add, subtract, mul and concatenate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qtorch_relay._tvm import constant_array, relax
from qtorch_relay.expressions import cast, constant, look_up, round_value, saturate, shifted
from qtorch_relay.qnn.binary import side_axis
from qtorch_relay.qnn.op_def import Expr, Operands, static_shape
from qtorch_relay.qnn.transform.rules.common import canonicalization
from qtorch_relay.qnn.transform.rules.relay import Parameters, requantize, requantize_or_upcast, saturate_int
from qtorch_relay.qparams import code_range


def side_parameters(operands: Operands, side: str) -> Parameters:
    """Returns the parameters of lhs or rhs with their axis."""
    return Parameters.of(operands, side, side_axis(operands, side))


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
    return _relay_sum(operands, relax.op.add, relax.op.subtract)


@canonicalization("qnn.subtract")
def subtract(operands: Operands) -> Expr:
    """Relay's difference, the only arithmetic that the op has."""
    return _relay_sum(operands, relax.op.subtract, relax.op.add)


def _relay_sum(operands: Operands, combine: Callable[..., Expr], correct: Callable[..., Expr]) -> Expr:
    """Each side requantized to the output's parameters in int32, combined, the zero point corrected, clamped."""
    target = Parameters.of(operands, "output")
    sides = [
        requantize_or_upcast(
            operands[side],
            len(operands.shape(side)),
            side_parameters(operands, side),
            target,
            operands.attrs["rounding"],
        )
        for side in ("lhs", "rhs")
    ]
    total = combine(*sides)
    if target.zero_point.any():
        total = correct(total, constant(target.zero_point.reshape(()), "int32"))
    return saturate_int(total, operands.dtype("lhs"))


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
    if operands.attrs["arithmetic"] == "relay":
        return _relay_product(operands)
    sides = [shifted(operands[side], operands.constant(f"{side}_zero_point"), 0, 0) for side in ("lhs", "rhs")]
    product = cast(relax.op.multiply(*sides), "float32")
    scaled = relax.op.multiply(product, constant(operands.scalar("multiplier"), "float32"))
    rounded = round_value(scaled, operands.attrs["rounding"])
    return saturate(rounded, int(operands.scalar("output_zero_point")), operands.dtype("lhs"))


def _relay_product(operands: Operands) -> Expr:
    """The product of the shifted codes, requantized from the product of the scales (float32)."""
    rank = len(static_shape(operands.call))
    lhs, rhs = (side_parameters(operands, side) for side in ("lhs", "rhs"))
    sides = [
        shifted(operands[side], parameters.zero_point, len(operands.shape(side)), parameters.axis)
        for side, parameters in (("lhs", lhs), ("rhs", rhs))
    ]
    axis = rhs.axis if lhs.scale.size == 1 else lhs.axis
    source = Parameters(lhs.scale * rhs.scale, np.zeros((), np.int32), axis)
    rounding = operands.attrs["rounding"]
    target = Parameters.of(operands, "output")
    return requantize(relax.op.multiply(*sides), rank, source, target, operands.dtype("lhs"), rounding)


@canonicalization("qnn.concatenate")
def concatenate(operands: Operands) -> Expr:
    """Each input brought to the output's parameters, then one concat of codes."""
    fields = operands["data"].fields
    if operands.attrs["arithmetic"] == "lookup":
        pieces = [look_up(data, table) for data, table in zip(fields, operands.constant("tables"), strict=True)]
    else:
        target = Parameters.of(operands, "output")
        groups = (fields, operands["input_scales"].fields, operands["input_zero_points"].fields)
        pieces = [
            _requantize_field(data, Parameters(constant_array(scale), constant_array(zero_point)), target)
            for data, scale, zero_point in zip(*groups, strict=True)
        ]
    return relax.op.concat(pieces, axis=operands.attrs["axis"])


def _requantize_field(data: Expr, source: Parameters, target: Parameters) -> Expr:
    if source.equal(target):
        return data
    return requantize(data, len(static_shape(data)), source, target, str(data.ty.dtype))
