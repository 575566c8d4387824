"""qnn.simulated_quantize and qnn.simulated_dequantize: codes kept as floats, of a dtype known at run time.

Calibration and training use them: the dtype is an operand, one of the numbers of DTYPE_CODES, so that one program
serves all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import is_constant, relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import (
    Expr,
    Operands,
    as_scale,
    as_zero_point,
    check_dtype,
    check_scale,
    check_zero_point,
    define_op,
    tensor_type,
)
from qtorch_relay.qnn.quantize import axis_length

# Relay's numbers (tvm.topi.nn.qnn.SQNN_DTYPE_TO_CODE); "disable" and any other number leave the data as it is.
DTYPE_CODES = {"disable": 0, "int8": 1, "uint8": 2, "int32": 3}
DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items() if dtype != "disable"}


def _type(operands: Operands) -> Any:
    return tensor_type(operands.shape("data"), operands.dtype("data"))


def _check(operands: Operands, dtype_name: str, side: str) -> None:
    check_dtype(operands, "data", ("float32",))
    check_dtype(operands, dtype_name, ("int32",))
    if operands.shape(dtype_name) not in ((), (1,)):
        raise VerifyError(f"{operands.op.name}: {dtype_name} must be one number, found {operands.shape(dtype_name)}")
    length = axis_length(operands)
    check_scale(operands, f"{side}_scale", length, run_time_too=True)
    known = int(operands.scalar(dtype_name)) if is_constant(operands[dtype_name]) else None
    code_dtype = DTYPES.get(known, "int32") if known is not None else "int32"
    check_zero_point(operands, f"{side}_zero_point", code_dtype, length, run_time_too=True)


_SIMULATED_QUANTIZE = define_op(
    "qnn.simulated_quantize",
    ("data", "out_dtype", "output_scale", "output_zero_point"),
    ("axis",),
    _type,
    lambda operands: _check(operands, "out_dtype", "output"),
    "the codes of data as floats",
)

_SIMULATED_DEQUANTIZE = define_op(
    "qnn.simulated_dequantize",
    ("data", "in_dtype", "input_scale", "input_zero_point"),
    ("axis",),
    _type,
    lambda operands: _check(operands, "in_dtype", "input"),
    "the real values of codes held as floats",
)


def _dtype_operand(dtype: str | Expr) -> Expr:
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPE_CODES:
        raise VerifyError(f"a simulated dtype must be one of {', '.join(DTYPE_CODES)}, found {dtype!r}")
    return relax.const(np.int32(DTYPE_CODES[dtype]), "int32")


def simulated_quantize(
    data: Expr, output_scale: Any, output_zero_point: Any, axis: int = -1, out_dtype: str | Expr = "int8"
) -> Expr:
    """qnn.simulated_quantize: clamp(round(data / output_scale) + output_zero_point) as float32, half away from zero.

    out_dtype: "int8", "uint8", "int32", "disable" (data unchanged), or an int32 tensor with a number of DTYPE_CODES.
    It is the op's second operand, as in Relay.

    Shapes: data float32 [...]; scale and zero point one number or a vector along axis, constants or run-time values.
    """
    return _SIMULATED_QUANTIZE(
        {
            "data": data,
            "out_dtype": _dtype_operand(out_dtype),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
        },
        {"axis": axis},
    )


def simulated_dequantize(
    data: Expr, input_scale: Any, input_zero_point: Any, axis: int = -1, in_dtype: str | Expr = "int8"
) -> Expr:
    """qnn.simulated_dequantize: (data - input_zero_point) * input_scale, in float32.

    in_dtype and shapes: as in simulated_quantize.
    """
    return _SIMULATED_DEQUANTIZE(
        {
            "data": data,
            "in_dtype": _dtype_operand(in_dtype),
            "input_scale": as_scale(input_scale),
            "input_zero_point": as_zero_point(input_zero_point),
        },
        {"axis": axis},
    )
