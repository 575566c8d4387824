"""qnn.leaky_relu and qnn.softmax, with Relay's integer arithmetic."""

from __future__ import annotations

from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import (
    CODES_8BIT,
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


def _codes_like_x(operands: Operands) -> Any:
    return tensor_type(operands.shape("x"), operands.dtype("x"))


def _check_leaky_relu(operands: Operands) -> None:
    check_dtype(operands, "x", CODES_8BIT)
    if not 0 < operands.attrs["alpha"] < 1:
        raise VerifyError(f"qnn.leaky_relu: alpha must lie between 0 and 1, found {operands.attrs['alpha']}")
    for side in ("input", "output"):
        check_scale(operands, f"{side}_scale")
        check_zero_point(operands, f"{side}_zero_point", operands.dtype("x"))


_LEAKY_RELU = define_op(
    "qnn.leaky_relu",
    ("x", "input_scale", "input_zero_point", "output_scale", "output_zero_point"),
    ("alpha",),
    _codes_like_x,
    _check_leaky_relu,
    "codes of x where x is at least 0, of alpha * x elsewhere",
)


def leaky_relu(
    x: Expr, alpha: float, input_scale: Any, input_zero_point: Any, output_scale: Any, output_zero_point: Any
) -> Expr:
    """qnn.leaky_relu, as Relay computes it: requantized to the output's parameters, then alpha in fixed point.

    With r = requantize(x) in int32, unclamped, and mul the rounded product in 64-bit fixed point:
    clamp(mul(r, alpha) + mul(output_zero_point, 1 - alpha)) where x < input_zero_point, clamp(r) elsewhere.
    PyTorch's leaky_relu is a qnn.lookup.

    Shapes: x uint8 or int8 [...]; scales and zero points one number each; 0 < alpha < 1.
    """
    return _LEAKY_RELU(
        {
            "x": x,
            "input_scale": as_scale(input_scale),
            "input_zero_point": as_zero_point(input_zero_point),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
        },
        {"alpha": float(alpha)},
    )


def _check_softmax(operands: Operands) -> None:
    check_dtype(operands, "x", ("int8",))
    rank, axis = len(operands.shape("x")), operands.attrs["axis"]
    if not -rank <= axis < rank:
        raise VerifyError(f"qnn.softmax: axis {axis} is outside a tensor of rank {rank}")
    for prefix in ("", "output_"):
        check_scale(operands, f"{prefix}scale")
        check_zero_point(operands, f"{prefix}zero_point", "int8")
    if operands.scalar("scale") > 1:
        raise VerifyError(f"qnn.softmax: scale must be at most 1, found {operands.scalar('scale'):g}")


_SOFTMAX = define_op(
    "qnn.softmax",
    ("x", "scale", "zero_point", "output_scale", "output_zero_point"),
    ("axis",),
    _codes_like_x,
    _check_softmax,
    "codes of the softmax along axis, by shifts of integers",
)


def softmax(x: Expr, scale: Any, zero_point: Any, output_scale: Any, output_zero_point: Any, axis: int = -1) -> Expr:
    """qnn.softmax, as Relay computes it: exp by shifts of int32 with a resolution of 2**-7 (arXiv 2207.01405).

    An approximation. PyTorch dequantizes, takes the float softmax and quantizes; its importer writes that.

    Shapes: x int8 [...]; scale at most 1; scales and zero points one number each.
    """
    return _SOFTMAX(
        {
            "x": x,
            "scale": as_scale(scale),
            "zero_point": as_zero_point(zero_point),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
        },
        {"axis": axis},
    )
