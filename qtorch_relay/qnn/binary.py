"""Ops on two tensors of codes that each have their own scale and zero point: qnn.add, qnn.subtract and qnn.mul.

They differ in their arithmetics alone; a BinaryOp is made from a table of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
    tensor_type,
)
from qtorch_relay.qnn.quantize import ROUNDINGS
from qtorch_relay.qnn.requantize_config import UNSET

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


class BinaryOp:
    """An op on two tensors of codes, called like a function with Relay's operands and attributes, then ours."""

    def __init__(self, name: str, doc: str, extensions: Mapping[str, Mapping[str, str]]) -> None:
        """Defines qnn.<name>.

        doc: its docstring, whose first line says what it gives.
        extensions: for each arithmetic besides "relay" the names and dtypes of its further operands, one number each.
        """
        self.__name__ = self.__qualname__ = name
        self.__doc__ = doc
        self._extensions = extensions
        self._op = define_op(
            f"qnn.{name}",
            _BINARY_OPERANDS,
            ("lhs_axis", "rhs_axis", "arithmetic", "rounding"),
            _binary_type,
            self._check,
            doc.splitlines()[0],
            extensions={arithmetic: tuple(names) for arithmetic, names in extensions.items()},
        )

    def __call__(
        self,
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
        rounding: str = UNSET,
        factors: Mapping[str, Any] = MappingProxyType({}),
    ) -> Expr:
        """Returns the call. arithmetic: see the op; factors holds the operands that it names."""
        further = self._extensions.get(arithmetic, {})
        if arithmetic != "relay" and rounding == UNSET:
            rounding = "TONEAREST_EVEN"
        return self._op(
            {
                "lhs": lhs,
                "rhs": rhs,
                "lhs_scale": as_scale(lhs_scale),
                "lhs_zero_point": as_zero_point(lhs_zero_point),
                "rhs_scale": as_scale(rhs_scale),
                "rhs_zero_point": as_zero_point(rhs_zero_point),
                "output_scale": as_scale(output_scale),
                "output_zero_point": as_zero_point(output_zero_point),
                **{factor: relax.const(factors[factor], dtype) for factor, dtype in further.items()},
            },
            {"lhs_axis": lhs_axis, "rhs_axis": rhs_axis, "arithmetic": arithmetic, "rounding": rounding},
        )

    def _check(self, operands: Operands) -> None:
        _check_binary(operands)
        check_choice(operands, "arithmetic", ("relay", *self._extensions))
        check_choice(operands, "rounding", (UNSET, *ROUNDINGS))
        for factor, dtype in self._extensions.get(operands.attrs["arithmetic"], {}).items():
            check_dtype(operands, factor, (dtype,))
            operands.scalar(factor)
        if self.__name__ == "mul":
            _check_one_axis(operands)


def _check_one_axis(operands: Operands) -> None:
    """Refuses vectors of parameters of a product that do not lie along one axis of it."""
    sides = [side for side in ("lhs", "rhs") if max(_parameter_sizes(operands, side)) > 1]
    if not sides:
        return
    axes = [side_axis(operands, side) for side in sides]
    if len(operands.shape("lhs")) != len(operands.shape("rhs")) or axes[0] != axes[-1]:
        raise VerifyError(f"{operands.op.name}: vectors of scales or zero points must lie along one axis of both sides")


def _parameter_sizes(operands: Operands, side: str) -> tuple[int, int]:
    return operands.constant(f"{side}_scale").size, operands.constant(f"{side}_zero_point").size


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


def side_axis(operands: Operands, side: str) -> int:
    """Returns the axis of a side's scales and zero points, counted from 0."""
    # a scalar counts as a vector of one, whose axis is 0 or -1
    rank, axis = max(len(operands.shape(side)), 1), operands.attrs[f"{side}_axis"]
    if not -rank <= axis < rank:
        raise VerifyError(f"{operands.op.name}: {side}_axis {axis} is outside a tensor of rank {rank}")
    return int(axis % max(rank, 1))


def _check_binary(operands: Operands) -> None:
    for side in ("lhs", "rhs"):
        check_dtype(operands, side, CODES_8BIT)
        axis = side_axis(operands, side)
        # an extension is for parameters that are single numbers
        per_axis = operands.attrs["arithmetic"] == "relay" and operands.shape(side)
        length = operands.shape(side)[axis] if per_axis else None
        check_scale(operands, f"{side}_scale", length)
        check_zero_point(operands, f"{side}_zero_point", operands.dtype(side), length)
    if operands.dtype("lhs") != operands.dtype("rhs"):
        raise VerifyError(f"{operands.op.name}: lhs is {operands.dtype('lhs')}, rhs is {operands.dtype('rhs')}")
    check_scale(operands, "output_scale")
    check_zero_point(operands, "output_zero_point", operands.dtype("lhs"))


add = BinaryOp(
    "add",
    """Codes of the sum of two tensors, with the way the sum is computed as an extension.

    arithmetic:
      "relay": each side is requantized to the output's parameters, then added: two roundings. Scales and zero points
        may be vectors along lhs_axis and rhs_axis.
      "float32" (fbgemm, onednn): rne((fma(sa, qa, -za * sa) + fma(sb, qb, -zb * sb)) * (1 / sy)) + zy.
      "fixed_point" (qnnpack): with int32 factors lhs_multiplier, rhs_multiplier and shift,
        half_away((qa - za) * lhs_multiplier + (qb - zb) * rhs_multiplier) / 2**shift) + zy.
    In stock Relay all three become "relay": up to one code of difference.
    """,
    {"float32": {}, "fixed_point": {"lhs_multiplier": "int32", "rhs_multiplier": "int32", "shift": "int32"}},
)

subtract = BinaryOp(
    "subtract",
    """Codes of the difference of two tensors.

    Each side is requantized to the output's parameters, then subtracted: two roundings. PyTorch has no such op.
    """,
    {},
)

mul = BinaryOp(
    "mul",
    """Codes of the product of two tensors: round(float((qa - za) * (qb - zb)) * multiplier) + zy, clamped.

    arithmetic "relay": requantize of the product of the shifted codes from scale sa * sb; two vectors of parameters
    must lie along one axis. "float32" (PyTorch): the float32 factor multiplier, (sa * sb) * (1 / sy).
    """,
    {"float32": {"multiplier": "float32"}},
)
