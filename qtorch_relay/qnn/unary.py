"""Relay's nine unary ops on codes, each a table of 256: tanh, exp, sqrt, rsqrt, erf, abs, sigmoid, hardswish, log.

The table is Relay's own: dequantize the 256 codes, the float32 function, quantize. PyTorch's unary ops are qnn.lookup,
whose table comes from running PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

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
from qtorch_relay.qparams import code_range

Floats = npt.NDArray[np.float32]
F32 = np.float32


class UnaryOp(Protocol):
    """The signature of a unary op; scales and zero points are single numbers."""

    def __call__(self, x: Expr, scale: Any, zero_point: Any, output_scale: Any, output_zero_point: Any) -> Expr:
        """Returns the call."""


def _erf(values: Floats) -> Floats:
    return np.array([math.erf(value) for value in values.tolist()], F32)


def _sigmoid(values: Floats) -> Floats:
    return np.divide(F32(1), F32(1) + np.exp(-values), dtype=F32)


def _hardswish(values: Floats) -> Floats:
    bounded: Floats = np.clip(values + F32(3), F32(0), F32(6)).astype(F32)
    return values * bounded / F32(6)


def _rsqrt(values: Floats) -> Floats:
    return np.divide(F32(1), np.sqrt(values), dtype=F32)


# The functions of real numbers, float32 to float32.
FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "tanh": np.tanh,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "rsqrt": _rsqrt,
    "erf": _erf,
    "abs": np.abs,
    "sigmoid": _sigmoid,
    "hardswish": _hardswish,
    "log": np.log,
}


def relay_table(
    function: str, dtype: str, scale: F32, zero_point: int, output_scale: F32, output_zero_point: int
) -> npt.NDArray[np.integer]:
    """Returns the output's code for each of the 256 codes of dtype, least code first.

    clamp(half_away(f((q - zero_point) * scale) / output_scale) + output_zero_point) in float32. Where f is not defined
    (log and sqrt below 0), Relay casts NaN to an integer, which x86 turns into the highest code; so do we.
    Source: TVM 0.17, python/tvm/relay/qnn/op/canonicalizations.py, legalizations.py.
    """
    low, high = code_range(dtype)
    real = (np.arange(low, high + 1) - zero_point).astype(F32) * F32(scale)
    with np.errstate(all="ignore"):
        scaled = FUNCTIONS[function](real).astype(F32) / F32(output_scale)
        rounded = np.copysign(np.floor(np.abs(scaled.astype(np.float64)) + 0.5), scaled)
    codes = rounded.astype(F32) + F32(output_zero_point)
    table: npt.NDArray[np.integer] = np.clip(np.where(np.isnan(codes), high, codes), low, high).astype(dtype)
    return table


def _check(operands: Operands) -> None:
    check_dtype(operands, "x", CODES_8BIT)
    for prefix in ("", "output_"):
        check_scale(operands, f"{prefix}scale")
        check_zero_point(operands, f"{prefix}zero_point", operands.dtype("x"))


def _type(operands: Operands) -> Any:
    return tensor_type(operands.shape("x"), operands.dtype("x"))


def _unary_op(name: str) -> UnaryOp:
    """Defines qnn.<name> and returns the function that makes its calls."""
    doc = f"qnn.{name}: codes of {name} of a tensor of codes, by a table of 256."
    operands = ("x", "scale", "zero_point", "output_scale", "output_zero_point")
    op = define_op(f"qnn.{name}", operands, (), _type, _check, doc)

    def build(x: Expr, scale: Any, zero_point: Any, output_scale: Any, output_zero_point: Any) -> Expr:
        return op(
            {
                "x": x,
                "scale": as_scale(scale),
                "zero_point": as_zero_point(zero_point),
                "output_scale": as_scale(output_scale),
                "output_zero_point": as_zero_point(output_zero_point),
            },
            {},
        )

    build.__name__, build.__qualname__ = name, name
    build.__doc__ = f"{doc}\n\n    Shapes: x uint8 or int8 [...]; scales and zero points one number each."
    return build


tanh = _unary_op("tanh")
exp = _unary_op("exp")
sqrt = _unary_op("sqrt")
rsqrt = _unary_op("rsqrt")
erf = _unary_op("erf")
abs = _unary_op("abs")  # Relay's name
sigmoid = _unary_op("sigmoid")
hardswish = _unary_op("hardswish")
log = _unary_op("log")
