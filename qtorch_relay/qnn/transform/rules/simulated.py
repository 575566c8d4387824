"""Canonicalization of simulated_quantize and simulated_dequantize.

Source: TVM 0.17, python/tvm/topi/nn/qnn.py.
"""

from __future__ import annotations

from collections.abc import Callable

from qtorch_relay._tvm import is_constant, relax
from qtorch_relay.expressions import cast, constant
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.simulated import DTYPES
from qtorch_relay.qnn.transform.rules.common import canonicalization, operand_along, rank_and_axis
from qtorch_relay.qnn.transform.rules.relay import round_float
from qtorch_relay.qparams import code_range


@canonicalization("qnn.simulated_quantize")
def simulated_quantize(operands: Operands) -> Expr:
    """The codes of the dtype that the operand says, as floats."""
    rank, axis = rank_and_axis(operands)
    scale = operand_along(operands, "output_scale", rank, axis)
    zero_point = cast(operand_along(operands, "output_zero_point", rank, axis), "float32")
    rounded = round_float(relax.op.divide(operands["data"], scale), "TONEAREST", "float32")
    codes = relax.op.add(rounded, zero_point)

    def saturated(dtype: str) -> Expr:
        low, high = code_range(dtype)
        return relax.op.clip(codes, float(low), float(high))

    return _of_dtype(operands, "out_dtype", saturated)


@canonicalization("qnn.simulated_dequantize")
def simulated_dequantize(operands: Operands) -> Expr:
    """The real values, or the data where the operand says no dtype."""
    rank, axis = rank_and_axis(operands)
    zero_point = cast(operand_along(operands, "input_zero_point", rank, axis), "float32")
    centered = relax.op.subtract(operands["data"], zero_point)
    real = relax.op.multiply(centered, operand_along(operands, "input_scale", rank, axis))
    return _of_dtype(operands, "in_dtype", lambda _dtype: real)


def _of_dtype(operands: Operands, name: str, value: Callable[[str], Expr]) -> Expr:
    """Returns value(dtype) for the dtype that an operand says, else the data: chosen now or when the program runs."""
    data = operands["data"]
    if is_constant(operands[name]):
        dtype = DTYPES.get(int(operands.scalar(name)))
        return data if dtype is None else value(dtype)
    result = data
    for code, dtype in DTYPES.items():
        result = relax.op.where(relax.op.equal(operands[name], constant(code, "int32")), value(dtype), result)
    return result
