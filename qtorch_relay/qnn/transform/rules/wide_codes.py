"""Quantizing with two roundings, and int32 codes: what PyTorch does per channel and in qint32."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import cast, constant, round_value, rounded_product
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import operand_along
from qtorch_relay.qparams import code_range


def quantize_rounded(data: Expr, inverse_scale: Expr, zero_point: Expr, dtype: str) -> Expr:
    """Returns rne(float32(data * inverse_scale) + zero_point), clamped; NaN becomes 0, or the lowest code of int32."""
    unordered = relax.op.isnan(data)
    low, high = code_range(dtype)
    product = rounded_product(relax.op.where(unordered, constant(0, "float32"), data), inverse_scale)
    rounded = round_value(relax.op.add(product, zero_point), "TONEAREST_EVEN")
    # float64 holds both bounds of int32
    bounded = relax.op.clip(cast(rounded, "float64"), float(low), float(high))
    codes = cast(cast(bounded, "int32"), dtype)
    return relax.op.where(unordered, constant(low if dtype == "int32" else 0, dtype), codes)


def centered_int32(operands: Operands, rank: int, axis: int) -> Expr:
    """Returns float32(data - input_zero_point) of int32 codes: a difference that wraps, or is float32 per channel."""
    data, zero_point = operands["data"], operand_along(operands, "input_zero_point", rank, axis)
    if len(operands.shape("input_scale")) == 1:
        return relax.op.subtract(cast(data, "float32"), cast(zero_point, "float32"))
    # int32 arithmetic may not overflow in TVM's code; int64 cut to int32 is the wrap
    wide = relax.op.subtract(cast(data, "int64"), cast(zero_point, "int64"))
    return cast(cast(wide, "int32"), "float32")
