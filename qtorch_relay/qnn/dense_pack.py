"""qnn.contrib_dense_pack: qnn.dense with the weight packed in tiles."""

from __future__ import annotations

import re
from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import Expr, Operands, tensor_type
from qtorch_relay.qnn.product import call_product, check_product, define_product


def _type(operands: Operands) -> Any:
    data, weight = operands.shape("data"), operands.shape("weight")
    if len(data) != 2 or len(weight) != 4:
        raise VerifyError(f"qnn.contrib_dense_pack: data must be [M, K] and the weight 4-D, found {data} and {weight}")
    return tensor_type((data[0], weight[0] * weight[2]), operands.attrs["out_dtype"])


def _check(operands: Operands) -> None:
    tiles = re.fullmatch(r"NC(\d+)n(\d+)c", operands.attrs["kernel_layout"])
    outer_n, outer_c, inner_n, inner_c = operands.shape("weight")
    if tiles is None or (int(tiles[1]), int(tiles[2])) != (inner_n, inner_c):
        raise VerifyError(
            f"qnn.contrib_dense_pack: kernel_layout must be NC{inner_n}n{inner_c}c for a weight of shape "
            f"{operands.shape('weight')}, found {operands.attrs['kernel_layout']!r}"
        )
    features = outer_c * inner_c
    if features != operands.shape("data")[1]:
        raise VerifyError(
            f"qnn.contrib_dense_pack: data {operands.shape('data')} must end in the weight's {features} features"
        )
    units = outer_n * inner_n
    if operands.attrs["units"] not in (None, units):
        raise VerifyError(
            f"qnn.contrib_dense_pack: units is {operands.attrs['units']}, the weight has {units} output features"
        )
    check_product(operands, units, run_time_input=False)


_DENSE_PACK = define_product(
    "qnn.contrib_dense_pack",
    "weight",
    ("kernel_layout", "units", "out_dtype"),
    _type,
    _check,
    "the exact int32 product of codes less their zero points, with a packed weight",
)


def contrib_dense_pack(
    data: Expr,
    weight: Expr,
    input_zero_point: Any,
    kernel_zero_point: Any,
    input_scale: Any,
    kernel_scale: Any,
    kernel_layout: str = "NC",
    units: int | None = None,
    out_dtype: str = "int32",
) -> Expr:
    """qnn.contrib_dense_pack: qnn.dense with weight[N // n, C // c, n, c], kernel_layout "NC<n>n<c>c".

    Relay has the op for Hexagon and no canonicalization of it; ours is that of qnn.dense. Relay's default layout "NC"
    fits no weight that its own type rule accepts, and is refused.

    Shapes: data [M, K] uint8 or int8; weight [N // n, K // c, n, c]; out [M, N].
    """
    return call_product(
        _DENSE_PACK,
        data,
        weight,
        input_zero_point,
        kernel_zero_point,
        input_scale,
        kernel_scale,
        {"kernel_layout": kernel_layout, "units": units, "out_dtype": out_dtype},
    )
