"""qnn.concatenate: tensors of codes that each have their own scale and zero point, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import (
    CODES_8BIT,
    Expr,
    Operands,
    as_scale,
    as_zero_point,
    check_choice,
    check_scale,
    check_zero_point,
    define_op,
    static_shape,
    tensor_type,
)

CONCATENATE_EXTENSIONS = {"lookup": ("tables",)}
CONCATENATE_ARITHMETICS = ("relay", *CONCATENATE_EXTENSIONS)


def _concatenate_type(operands: Operands) -> Any:
    shapes = [static_shape(field) for field in operands["data"].fields]
    axis = operands.attrs["axis"]
    extent = sum(shape[axis] for shape in shapes)
    first = shapes[0]
    axis %= len(first)
    return tensor_type((*first[:axis], extent, *first[axis + 1 :]), str(operands["data"].fields[0].ty.dtype))


def _check_concatenate(operands: Operands) -> None:
    check_choice(operands, "arithmetic", CONCATENATE_ARITHMETICS)
    fields = operands["data"].fields
    if operands.attrs["arithmetic"] == "lookup" and operands.shape("tables") != (len(fields), 256):
        raise VerifyError(
            f"qnn.concatenate: tables must have shape ({len(fields)}, 256), found {operands.shape('tables')}"
        )
    dtypes = {str(field.ty.dtype) for field in fields}
    if len(dtypes) != 1 or not dtypes <= set(CODES_8BIT):
        raise VerifyError(f"qnn.concatenate: all inputs must be uint8 or all int8, found {sorted(dtypes)}")
    axis = operands.attrs["axis"]
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in map(static_shape, fields)}
    if len(others) != 1:
        raise VerifyError(f"qnn.concatenate: inputs {[static_shape(f) for f in fields]} differ outside axis {axis}")
    for group in ("input_scales", "input_zero_points"):
        if len(operands[group].fields) != len(fields):
            raise VerifyError(f"qnn.concatenate: {len(fields)} inputs, but {len(operands[group].fields)} {group}")
    check_scale(operands, "output_scale")
    check_zero_point(operands, "output_zero_point", dtypes.pop())


_CONCATENATE = define_op(
    "qnn.concatenate",
    ("data", "input_scales", "input_zero_points", "output_scale", "output_zero_point"),
    ("axis", "arithmetic"),
    _concatenate_type,
    _check_concatenate,
    "codes of several tensors, each brought to the output's scale and zero point, one after another",
    extensions=CONCATENATE_EXTENSIONS,
)


def concatenate(
    data: Sequence[Expr],
    input_scales: Sequence[Any],
    input_zero_points: Sequence[Any],
    output_scale: Any,
    output_zero_point: Any,
    axis: int,
    *,
    tables: np.ndarray[Any, Any] | None = None,
) -> Expr:
    """qnn.concatenate along axis (counted from 0); an input whose parameters equal the output's is copied.

    tables: None requantizes each input as Relay does. Else (ours, PyTorch's) row i gives the output's code for each of
    the 256
    codes of input i: in PyTorch an input's way to the output's parameters depends on its memory layout.
    """
    extension = {} if tables is None else {"tables": relax.const(tables, str(tables.dtype))}
    return _CONCATENATE(
        {
            **extension,
            "data": relax.Tuple(list(data)),
            "input_scales": relax.Tuple([as_scale(scale) for scale in input_scales]),
            "input_zero_points": relax.Tuple([as_zero_point(point) for point in input_zero_points]),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
        },
        {"axis": axis, "arithmetic": "relay" if tables is None else "lookup"},
    )
