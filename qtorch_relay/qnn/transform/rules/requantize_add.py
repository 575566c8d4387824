"""Canonicalization of requantize_add."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import (
    cast,
    constant,
    fused_multiply_add,
    per_axis,
    product,
    round_value,
    saturate,
    shifted,
)
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import canonicalization, operand_along, rank_and_axis, wide_along


@canonicalization("qnn.requantize_add")
def requantize_add(operands: Operands) -> Expr:
    """The arithmetic of qnn.requantize's "real", with one fused multiply-add between bias and output scale."""
    rank, axis = rank_and_axis(operands)
    value = cast(operands["data"], "float32")
    value = relax.op.multiply(value, per_axis(operands.constant("input_factor"), rank, axis, "float32"))
    value = product(value, wide_along(operands, "kernel_factor", rank, axis))
    value = relax.op.add(value, operand_along(operands, "addend", rank, axis))
    residual = cast(shifted(operands["residual"], operands.constant("residual_zero_point"), rank, axis), "float32")
    value = fused_multiply_add((residual, operand_along(operands, "residual_factor", rank, axis)), value)
    value = product(value, wide_along(operands, "output_factor", rank, axis))
    value = relax.op.add(value, constant(operands.scalar("output_zero_point"), "float32"))
    return saturate(round_value(value, "TONEAREST_EVEN"), 0, operands.attrs["out_dtype"])
