"""What canonicalizations are made of: the registry, and operands of a call by name as expressions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.expressions import along, cast, constant, per_axis, shifted
from qtorch_relay.qnn.op_def import Expr, Operands

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


def operand_along(operands: Operands, name: str, rank: int, axis: int) -> Expr:
    """Returns an operand of one number or a vector, constant or not, shaped to broadcast along axis."""
    value = operands[name]
    if is_constant(value):
        return per_axis(constant_array(value), rank, axis, operands.dtype(name))
    return along(value, rank, axis) if operands.shape(name) else value


def shifted_operand(operands: Operands, name: str, zero_point: str, rank: int, axis: int) -> Expr:
    """Returns int32(operand) - zero_point for operands by name; the zero point may be known only at run time."""
    if is_constant(operands[zero_point]):
        return shifted(operands[name], operands.constant(zero_point), rank, axis)
    return relax.op.subtract(cast(operands[name], "int32"), operand_along(operands, zero_point, rank, axis))


def wide_along(operands: Operands, name: str, rank: int, axis: int) -> Expr:
    """Returns a float32 constant operand as the float64 tensor that product wants, shaped to broadcast along axis."""
    factor = operands.constant(name).astype(np.float64)
    shape = [1] * max(rank, 1)
    if factor.size > 1:
        shape[axis] = factor.size
    return constant(factor.reshape(shape), "float64")


def rank_and_axis(operands: Operands, name: str = "data") -> tuple[int, int]:
    """Returns an operand's rank and the op's axis counted from 0."""
    rank = len(operands.shape(name))
    return rank, operands.attrs["axis"] % max(rank, 1)
