"""qnn.requantize_add: a convolution's int32 sums plus the codes of another tensor, as codes (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import (
    CODES_8BIT,
    Expr,
    Operands,
    as_scale,
    as_zero_point,
    check_choice,
    check_dtype,
    check_scale,
    check_vector,
    check_zero_point,
    define_op,
    tensor_type,
)
from qtorch_relay.qnn.quantize import axis_length

_FACTORS = ("input_factor", "kernel_factor", "addend", "residual_factor", "output_factor")


def _type(operands: Operands) -> Any:
    return tensor_type(operands.shape("data"), operands.attrs["out_dtype"])


def _check(operands: Operands) -> None:
    check_dtype(operands, "data", ("int32",))
    check_dtype(operands, "residual", CODES_8BIT)
    check_choice(operands, "out_dtype", CODES_8BIT)
    if operands.shape("residual") != operands.shape("data"):
        raise VerifyError(
            f"{operands.op.name}: residual must have data's shape {operands.shape('data')}, "
            f"found {operands.shape('residual')}"
        )
    length = axis_length(operands)
    check_scale(operands, "input_scale", length)
    check_scale(operands, "residual_scale")
    check_zero_point(operands, "residual_zero_point", operands.dtype("residual"))
    check_scale(operands, "output_scale")
    check_zero_point(operands, "output_zero_point", operands.attrs["out_dtype"])
    for name in _FACTORS:
        check_vector(operands, name, length)


_REQUANTIZE_ADD = define_op(
    "qnn.requantize_add",
    (
        "data",
        "residual",
        "input_scale",
        "residual_scale",
        "residual_zero_point",
        "output_scale",
        "output_zero_point",
        *_FACTORS,
    ),
    ("axis", "out_dtype"),
    _type,
    _check,
    "sums of one scale plus codes of another, as codes",
)


def requantize_add(
    data: Expr,
    residual: Expr,
    input_scale: Any,
    residual_scale: Any,
    residual_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    axis: int = -1,
    out_dtype: str = "uint8",
    *,
    factors: Mapping[str, Any],
) -> Expr:
    """qnn.requantize_add (ours): what onednn does at the end of quantized::conv2d_add.

    In float32, every operation rounded, rne = round half to even:
      real = data * input_factor * kernel_factor + addend
      clamp(rne(fma(residual - residual_zero_point, residual_factor, real) * output_factor + output_zero_point))
    factors: input_factor, kernel_factor, addend, residual_factor, output_factor, float32, one number or a vector along
    axis. In stock Relay it is a bias_add, a requantize and an add, which rounds twice.

    Shapes: data int32 [...]; residual uint8 or int8 of the same shape; input_scale one number or a vector along axis.
    """
    return _REQUANTIZE_ADD(
        {
            "data": data,
            "residual": residual,
            "input_scale": as_scale(input_scale),
            "residual_scale": as_scale(residual_scale),
            "residual_zero_point": as_zero_point(residual_zero_point),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
            **{name: as_scale(factors[name]) for name in _FACTORS},
        },
        {"axis": axis, "out_dtype": out_dtype},
    )
