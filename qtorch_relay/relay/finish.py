"""How plain ops that make codes end in Relay text: one way to round, and an op that tells scale and zero point.

The dialect's rules end in `saturate(round(value))`, several lines that Relay has no short form for. Here they become

    bounded = clip(value, low, high)               the bounds are integers: rounding keeps them
    raised = clip(add(bounded, 12582912), ...)     a float32 there is an integer: the addition rounds, ties to even
    rounded = subtract(raised, 12582912)
    codes = qnn.requantize(cast(rounded), scale, 0, scale, zero_point)

Rounding by addition needs no op whose ties differ from release to release, and uses each value once: Relay's schedules
visit a value as often as there are ways to it, and took minutes where one was used four times in a row of layers. The
second clip changes nothing: it keeps Relay and LLVM from cancelling the two additions. With equal scales
qnn.requantize multiplies nothing; it adds the zero point and narrows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay import qnn
from qtorch_relay._tvm import Call, constant_array, is_constant, relax
from qtorch_relay.expressions import cast, constant
from qtorch_relay.qnn.op_def import Expr, Operands

# From 2**23 to 2**24 the float32 numbers are the integers; values of +-2**21 stay inside.
_RAISED = 1.5 * 2.0**23
_GREATEST = 2.0**21
# Scales whose products with codes are neither subnormal nor infinite.
_LEAST_SCALE, _GREATEST_SCALE = 2.0**-100, 2.0**100


def finish(operands: Operands, expr: Expr) -> Expr:
    """Returns a call's plain ops with their end as the module says, or as they are if that is not `saturate`'s."""
    codes = _argument_of(expr, "relax.astype")
    added = _argument_of(codes, "relax.add")
    bounded = _argument_of(codes if added is None else added, "relax.astype")
    rounded = _argument_of(bounded, "relax.clip")
    value = _argument_of(rounded, "relax.round")
    if codes is None or bounded is None or value is None:
        return expr
    low, high = (float(bound.value) for bound in bounded.args[1:])
    if max(abs(low), abs(high)) > _GREATEST:
        return expr
    shift = int(constant_array(codes.args[1])) if added is not None else 0
    whole = _round_within(value, low, high)
    return _with_parameters(operands, whole, shift, str(operands.call.ty.dtype))


def _round_within(value: Expr, low: float, high: float) -> Expr:
    raised = relax.op.add(relax.op.clip(value, low, high), constant(_RAISED, "float32"))
    return relax.op.subtract(relax.op.clip(raised, _RAISED + low, _RAISED + high), constant(_RAISED, "float32"))


def _with_parameters(operands: Operands, whole: Expr, shift: int, dtype: str) -> Expr:
    """Returns whole + shift as codes, by the op of Relay's that tells their scale and zero point if they are known."""
    scale, zero_point = _single(operands, "output_scale"), _single(operands, "output_zero_point")
    if scale is None or zero_point is None or shift not in (0, int(zero_point)):
        codes = cast(whole, "int32")
        return cast(relax.op.add(codes, constant(shift, "int32")) if shift else codes, dtype)
    inner = int(zero_point) - shift
    if operands.op.name == "qnn.quantize" and _LEAST_SCALE < scale < _GREATEST_SCALE:
        # code * scale, divided by scale again, is within a part in 2**22 of the code: nowhere near a tie
        steps = relax.op.subtract(whole, constant(inner, "float32")) if inner else whole
        return qnn.quantize(relax.op.multiply(steps, constant(scale, "float32")), scale, zero_point, out_dtype=dtype)
    codes = cast(whole, "int32")
    return qnn.requantize(codes, scale, inner, scale, zero_point, -1, "UPWARD", "int64", dtype)


def _single(operands: Operands, name: str) -> Any:
    """Returns an operand that is one known number, None for any other and for an op that has none of that name."""
    known = name in operands.op.operands and is_constant(operands[name])
    array: np.ndarray[Any, Any] | None = operands.constant(name) if known else None
    return array.reshape(())[()] if array is not None and array.size == 1 else None


def _argument_of(expr: Expr | None, op: str) -> Expr | None:
    """Returns the first argument of a call of this op, None for anything else."""
    if not isinstance(expr, Call) or str(getattr(expr.op, "name", "")) != op:
        return None
    return expr.args[0]
