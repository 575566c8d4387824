"""qnn.add, qnn.mul and qnn.concatenate: ops on tensors of codes that each have their own scale and zero point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
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
    check_dtype,
    check_scale,
    check_zero_point,
    define_op,
    static_shape,
    tensor_type,
)
from qtorch_relay.qnn.quantize import ROUNDINGS

ADD_EXTENSIONS = {"float32": (), "fixed_point": ("lhs_multiplier", "rhs_multiplier", "shift")}
MUL_EXTENSIONS = {"float32": ("multiplier",)}
MUL_ARITHMETICS = ("relay", *MUL_EXTENSIONS)
ADD_ARITHMETICS = ("relay", *ADD_EXTENSIONS)
CONCATENATE_EXTENSIONS = {"lookup": ("tables",)}
CONCATENATE_ARITHMETICS = ("relay", *CONCATENATE_EXTENSIONS)

_BINARY_OPERANDS = (
    "lhs",
    "rhs",
    "lhs_scale",
    "lhs_zero_point",
    "rhs_scale",
    "rhs_zero_point",
    "output_scale",
    "output_zero_point",
)


def broadcast_shape(lhs: Sequence[int], rhs: Sequence[int]) -> tuple[int, ...]:
    """Returns numpy's broadcast of two shapes, or raises VerifyError."""
    rank = max(len(lhs), len(rhs))
    left, right = (1,) * (rank - len(lhs)) + tuple(lhs), (1,) * (rank - len(rhs)) + tuple(rhs)
    for a, b in zip(left, right, strict=True):
        if a != b and 1 not in (a, b):
            raise VerifyError(f"shapes {tuple(lhs)} and {tuple(rhs)} do not broadcast")
    return tuple(max(a, b) for a, b in zip(left, right, strict=True))


def _binary_type(operands: Operands) -> Any:
    return tensor_type(broadcast_shape(operands.shape("lhs"), operands.shape("rhs")), operands.dtype("lhs"))


def _check_binary(operands: Operands) -> None:
    for side in ("lhs", "rhs"):
        check_dtype(operands, side, CODES_8BIT)
        check_scale(operands, f"{side}_scale")
        check_zero_point(operands, f"{side}_zero_point", operands.dtype(side))
    if operands.dtype("lhs") != operands.dtype("rhs"):
        raise VerifyError(f"{operands.op.name}: lhs is {operands.dtype('lhs')}, rhs is {operands.dtype('rhs')}")
    check_scale(operands, "output_scale")
    check_zero_point(operands, "output_zero_point", operands.dtype("lhs"))


def _check_add(operands: Operands) -> None:
    _check_binary(operands)
    check_choice(operands, "arithmetic", ADD_ARITHMETICS)
    check_choice(operands, "rounding", ROUNDINGS)
    for name in ADD_EXTENSIONS.get(operands.attrs["arithmetic"], ()):
        check_dtype(operands, name, ("int32",))
        operands.scalar(name)


_ADD = define_op(
    "qnn.add",
    _BINARY_OPERANDS,
    ("lhs_axis", "rhs_axis", "arithmetic", "rounding"),
    _binary_type,
    _check_add,
    "codes of the sum of two tensors",
    extensions=ADD_EXTENSIONS,
)


def _check_mul(operands: Operands) -> None:
    _check_binary(operands)
    check_choice(operands, "arithmetic", MUL_ARITHMETICS)
    check_choice(operands, "rounding", ROUNDINGS)
    for name in MUL_EXTENSIONS.get(operands.attrs["arithmetic"], ()):
        check_dtype(operands, name, ("float32",))
        operands.scalar(name)


_MUL = define_op(
    "qnn.mul",
    _BINARY_OPERANDS,
    ("lhs_axis", "rhs_axis", "arithmetic", "rounding"),
    _binary_type,
    _check_mul,
    "codes of the product of two tensors",
    extensions=MUL_EXTENSIONS,
)


def _binary_operands(
    lhs: Expr,
    rhs: Expr,
    lhs_scale: Any,
    lhs_zero_point: Any,
    rhs_scale: Any,
    rhs_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
) -> dict[str, Expr]:
    return {
        "lhs": lhs,
        "rhs": rhs,
        "lhs_scale": as_scale(lhs_scale),
        "lhs_zero_point": as_zero_point(lhs_zero_point),
        "rhs_scale": as_scale(rhs_scale),
        "rhs_zero_point": as_zero_point(rhs_zero_point),
        "output_scale": as_scale(output_scale),
        "output_zero_point": as_zero_point(output_zero_point),
    }


def add(
    lhs: Expr,
    rhs: Expr,
    lhs_scale: Any,
    lhs_zero_point: Any,
    rhs_scale: Any,
    rhs_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    lhs_axis: int = -1,
    rhs_axis: int = -1,
    *,
    arithmetic: str = "relay",
    rounding: str = "UPWARD",
    factors: Mapping[str, Any] = MappingProxyType({}),
) -> Expr:
    """qnn.add, with the way the sum is computed as an extension.

    arithmetic:
      "relay": each side is requantized to the output's parameters, then added: two roundings.
      "float32" (fbgemm, onednn): rne((fma(sa, qa, -za * sa) + fma(sb, qb, -zb * sb)) * (1 / sy)) + zy.
      "fixed_point" (qnnpack): with int32 factors lhs_multiplier, rhs_multiplier and shift,
        half_away((qa - za) * lhs_multiplier + (qb - zb) * rhs_multiplier) / 2**shift) + zy.
    In stock Relay all three become "relay": up to one code of difference.
    """
    operands = _binary_operands(
        lhs, rhs, lhs_scale, lhs_zero_point, rhs_scale, rhs_zero_point, output_scale, output_zero_point
    )
    return _ADD(
        {**operands, **{name: as_zero_point(value) for name, value in factors.items()}},
        {"lhs_axis": lhs_axis, "rhs_axis": rhs_axis, "arithmetic": arithmetic, "rounding": rounding},
    )


def mul(
    lhs: Expr,
    rhs: Expr,
    lhs_scale: Any,
    lhs_zero_point: Any,
    rhs_scale: Any,
    rhs_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    lhs_axis: int = -1,
    rhs_axis: int = -1,
    *,
    arithmetic: str = "relay",
    rounding: str = "UPWARD",
    factors: Mapping[str, Any] = MappingProxyType({}),
) -> Expr:
    """qnn.mul: round(float((qa - za) * (qb - zb)) * multiplier) + zy, clamped; rounding as in requantize.

    arithmetic "relay": multiplier = sa * sb / sy; "float32" (PyTorch): the float32 factor multiplier, (sa * sb) * (1 /
    sy).
    """
    operands = _binary_operands(
        lhs, rhs, lhs_scale, lhs_zero_point, rhs_scale, rhs_zero_point, output_scale, output_zero_point
    )
    return _MUL(
        {**operands, **{name: as_scale(value) for name, value in factors.items()}},
        {"lhs_axis": lhs_axis, "rhs_axis": rhs_axis, "arithmetic": arithmetic, "rounding": rounding},
    )


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
