"""qnn.dense: the exact int32 product of codes less their zero points."""

from __future__ import annotations

from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import Expr, Operands, tensor_type
from qtorch_relay.qnn.product import call_product, check_product, define_product


def _dense_type(operands: Operands) -> Any:
    return tensor_type((*operands.shape("data")[:-1], operands.shape("weight")[0]), operands.attrs["out_dtype"])


def _check_dense(operands: Operands) -> None:
    units, features = operands.shape("weight")
    if operands.shape("data")[-1] != features:
        raise VerifyError(
            f"qnn.dense: data {operands.shape('data')} must end in the weight's {features} input features"
        )
    if operands.attrs["units"] != units:
        raise VerifyError(f"qnn.dense: units is {operands.attrs['units']}, the weight has {units} rows")
    check_product(operands, units)


_DENSE = define_product(
    "qnn.dense",
    "weight",
    ("units", "out_dtype"),
    _dense_type,
    _check_dense,
    "the exact int32 product of codes less their zero points",
)


def dense(
    data: Expr,
    weight: Expr,
    input_zero_point: Any,
    kernel_zero_point: Any,
    input_scale: Any,
    kernel_scale: Any,
    units: int,
    out_dtype: str = "int32",
) -> Expr:
    """qnn.dense: sum over k of (data[..., k] - input_zero_point) * (weight[n, k] - kernel_zero_point[n]).

    The input's scale and zero point may be run-time values, as a dynamically quantized layer has them.

    Shapes: data [..., K] (Relay's is two-dimensional; more leading dimensions are ours); weight [units, K]; out [...,
    units].
    """
    return call_product(
        _DENSE,
        data,
        weight,
        input_zero_point,
        kernel_zero_point,
        input_scale,
        kernel_scale,
        {"units": units, "out_dtype": out_dtype},
    )
