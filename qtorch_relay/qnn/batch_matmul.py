"""qnn.batch_matmul: the exact int32 products of two batches of matrices of codes less their zero points."""

from __future__ import annotations

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
    check_zero_point,
    define_op,
    tensor_type,
)


def _batch_matmul_type(operands: Operands) -> Any:
    x, y = operands.shape("x"), operands.shape("y")
    if len(x) != 3 or len(y) != 3 or x[2] != y[2] or (x[0] != y[0] and 1 not in (x[0], y[0])):
        raise VerifyError(f"qnn.batch_matmul: x must be [B, M, K] and y [B, N, K], found {x} and {y}")
    return tensor_type((max(x[0], y[0]), x[1], y[1]), operands.attrs["out_dtype"])


def _check_batch_matmul(operands: Operands) -> None:
    check_choice(operands, "out_dtype", ("int32",))
    for name in ("x", "y"):
        check_dtype(operands, name, CODES_8BIT)
        check_scale(operands, f"{name}_scale")
        check_zero_point(operands, f"{name}_zero_point", operands.dtype(name))


_BATCH_MATMUL = define_op(
    "qnn.batch_matmul",
    ("x", "y", "x_zero_point", "y_zero_point", "x_scale", "y_scale"),
    ("out_dtype",),
    _batch_matmul_type,
    _check_batch_matmul,
    "the exact int32 products of batches of matrices of codes less their zero points",
)


def batch_matmul(
    x: Expr, y: Expr, x_zero_point: Any, y_zero_point: Any, x_scale: Any, y_scale: Any, out_dtype: str = "int32"
) -> Expr:
    """qnn.batch_matmul: sum over k of (x[b, m, k] - x_zero_point) * (y[b, n, k] - y_zero_point).

    Shapes: x [B, M, K], y [B, N, K] (transposed, as in Relay), either B may be 1; out [B, M, N]; uint8 or int8.
    """
    return _BATCH_MATMUL(
        {
            "x": x,
            "y": y,
            "x_zero_point": as_zero_point(x_zero_point),
            "y_zero_point": as_zero_point(y_zero_point),
            "x_scale": as_scale(x_scale),
            "y_scale": as_scale(y_scale),
        },
        {"out_dtype": out_dtype},
    )
