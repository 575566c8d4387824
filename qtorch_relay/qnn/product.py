"""What the ops that multiply data with weights share: six operands, with Relay's names in Relay's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtorch_relay.qnn.op_def import (
    CODES_8BIT,
    Check,
    Expr,
    Operands,
    QnnOp,
    TypeRule,
    as_scale,
    as_zero_point,
    check_choice,
    check_dtype,
    check_scale,
    check_zero_point,
    define_op,
)

_PARAMETERS = ("input_zero_point", "kernel_zero_point", "input_scale", "kernel_scale")


def define_product(
    name: str, weight: str, attributes: tuple[str, ...], type_rule: TypeRule, check: Check, doc: str
) -> QnnOp:
    """Defines an op on data and a weight, which Relay calls "weight" or "kernel"; the rest as in define_op."""
    return define_op(name, ("data", weight, *_PARAMETERS), attributes, type_rule, check, doc)


def call_product(
    op: QnnOp,
    data: Expr,
    weight: Expr,
    input_zero_point: Any,
    kernel_zero_point: Any,
    input_scale: Any,
    kernel_scale: Any,
    attributes: Mapping[str, Any],
) -> Expr:
    """Returns a call of an op that define_product made; scales and zero points are numbers, arrays or expressions."""
    zero_points = [as_zero_point(value) for value in (input_zero_point, kernel_zero_point)]
    scales = [as_scale(value) for value in (input_scale, kernel_scale)]
    return op(dict(zip(op.operands, (data, weight, *zero_points, *scales), strict=True)), attributes)


def check_product(operands: Operands, channels: int, *, run_time_input: bool = True) -> None:
    """Refuses operands that are not 8-bit codes with their parameters, or sums that are not int32.

    channels: how many scales and zero points the weight may have. run_time_input: those of the data may be known only
    when the program runs.
    """
    _, weight = operands.names[:2]
    check_dtype(operands, "data", CODES_8BIT)
    check_dtype(operands, weight, CODES_8BIT)
    check_choice(operands, "out_dtype", ("int32",))
    check_scale(operands, "input_scale", run_time_too=run_time_input)
    check_zero_point(operands, "input_zero_point", operands.dtype("data"), run_time_too=run_time_input)
    check_scale(operands, "kernel_scale", channels)
    check_zero_point(operands, "kernel_zero_point", operands.dtype(weight), channels)
