"""Ops between real values and codes, and from codes to codes: quantize, dequantize, requantize, lookup."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import (
    ALL_CODES,
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
from qtorch_relay.qnn.requantize_config import COMPUTE_DTYPES, UNSET

# Relay's integers of quantize and dequantize.
RELAY_CODES = ("uint8", "int8", "uint16", "int16", "int32")
ROUNDINGS = ("UPWARD", "TONEAREST", "TONEAREST_EVEN")


def _out_type(operands: Operands) -> Any:
    return tensor_type(operands.shape("data"), operands.attrs["out_dtype"])


def axis_length(operands: Operands, name: str = "data") -> int:
    """Returns the extent of an operand along the op's axis."""
    shape, axis = operands.shape(name), operands.attrs["axis"]
    rank = max(len(shape), 1)
    if not -rank <= axis < rank:
        raise VerifyError(f"{operands.op.name}: axis {axis} is outside a tensor of rank {len(shape)}")
    return shape[axis] if shape else 1


def _check_quantize(operands: Operands) -> None:
    check_dtype(operands, "data", ("float32",))
    check_choice(operands, "arithmetic", tuple(QUANTIZE_DTYPES))
    check_choice(operands, "out_dtype", QUANTIZE_DTYPES[operands.attrs["arithmetic"]])
    length = axis_length(operands)
    check_scale(operands, "output_scale", length, run_time_too=True)
    check_zero_point(operands, "output_zero_point", operands.attrs["out_dtype"], length, run_time_too=True)


# The dtypes of codes that each arithmetic gives.
QUANTIZE_DTYPES = {"relay": RELAY_CODES, "fused": CODES_8BIT, "rounded": ALL_CODES}

_QUANTIZE = define_op(
    "qnn.quantize",
    ("data", "output_scale", "output_zero_point"),
    ("axis", "out_dtype", "arithmetic"),
    _out_type,
    _check_quantize,
    "codes = clamp(round(data / output_scale) + output_zero_point)",
)


def quantize(
    data: Expr,
    output_scale: Any,
    output_zero_point: Any,
    axis: int = -1,
    out_dtype: str = "int8",
    *,
    arithmetic: str = "relay",
) -> Expr:
    """qnn.quantize: clamp(round(data / output_scale) + output_zero_point), with PyTorch's ways as extensions.

    arithmetic "relay": the quotient is rounded half away from zero, NaN becomes the highest code. The others are
    clamp(rne(data * (1 / output_scale) + output_zero_point)), rne = round half to even:
      "fused": one fused multiply-add, NaN becomes the highest code; uint8 and int8 (FBGEMM QuantizeAvx2).
      "rounded": the product and the sum are rounded one after the other, NaN becomes 0, or the lowest code of int32
      (FBGEMM's scalar Quantize: PyTorch's int32 codes, and all codes per channel).
    In stock Relay both become "relay": ties differ, and values within a float32 rounding of one.

    Shapes: data float32 [...]; codes uint8, int8 or int32, with Relay's arithmetic uint16 and int16 too; output_scale
    and output_zero_point one number, or a vector along axis; constants, or run-time values (float32 and int32).
    """
    return _QUANTIZE(
        {
            "data": data,
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
        },
        {"axis": axis, "out_dtype": out_dtype, "arithmetic": arithmetic},
    )


def _check_dequantize(operands: Operands) -> None:
    relay = operands.attrs["arithmetic"] == "relay"
    check_dtype(operands, "data", RELAY_CODES if relay else ALL_CODES)
    check_choice(operands, "out_dtype", ("float32", "float16") if relay else ("float32",))
    check_choice(operands, "arithmetic", DEQUANTIZE_ARITHMETICS)
    length = axis_length(operands)
    check_scale(operands, "input_scale", length, run_time_too=True)
    check_zero_point(operands, "input_zero_point", operands.dtype("data"), length, run_time_too=True)
    for name in DEQUANTIZE_EXTENSIONS.get(operands.attrs["arithmetic"], ()):
        check_vector(operands, name, length)


DEQUANTIZE_EXTENSIONS = {
    "fused": ("addend",),
    "rounded": ("addend",),
    "real": ("input_factor", "kernel_factor", "addend"),
}
DEQUANTIZE_ARITHMETICS = ("relay", *DEQUANTIZE_EXTENSIONS)

_DEQUANTIZE = define_op(
    "qnn.dequantize",
    ("data", "input_scale", "input_zero_point"),
    ("axis", "out_dtype", "arithmetic"),
    _out_type,
    _check_dequantize,
    "real = (data - input_zero_point) * input_scale",
    extensions=DEQUANTIZE_EXTENSIONS,
)


def dequantize(
    data: Expr,
    input_scale: Any,
    input_zero_point: Any,
    axis: int = -1,
    out_dtype: str = "float32",
    *,
    arithmetic: str = "relay",
    factors: Mapping[str, Any] = MappingProxyType({}),
) -> Expr:
    """qnn.dequantize: float32(data - input_zero_point) * input_scale, with the ends of dynamic layers as extensions.

    The difference wraps in int32 for one scale, and is taken in float32 for a vector of scales, as in PyTorch; of
    8-bit codes both are exact.
    With x the difference, in float32:
      arithmetic "relay": x * input_scale
      "fused" (fbgemm): fma(x, input_scale, addend)
      "rounded" (qnnpack): x * input_scale + addend, every operation rounded
      "real" (onednn): x * input_factor * kernel_factor + addend, every operation rounded
    factors holds the operands that these name, float32, one number or a vector along axis. In stock Relay the addend is
    an add after the op.

    Shapes: as in qnn.quantize.
    """
    return _DEQUANTIZE(
        {
            "data": data,
            "input_scale": as_scale(input_scale),
            "input_zero_point": as_zero_point(input_zero_point),
            **{name: as_scale(value) for name, value in factors.items()},
        },
        {"axis": axis, "out_dtype": out_dtype, "arithmetic": arithmetic},
    )


def _check_requantize(operands: Operands) -> None:
    attrs = operands.attrs
    check_choice(operands, "arithmetic", REQUANTIZE_ARITHMETICS)
    relay = attrs["arithmetic"] == "relay"
    check_dtype(operands, "data", ("uint8", "int8", "int16", "int32", "int64") if relay else ALL_CODES)
    check_choice(operands, "out_dtype", ("uint8", "int8", "int16", "int32") if relay else CODES_8BIT)
    check_choice(operands, "rounding", (UNSET, *ROUNDINGS))
    check_choice(operands, "compute_dtype", (UNSET, *COMPUTE_DTYPES))
    length = axis_length(operands)
    check_scale(operands, "input_scale", length, run_time_too=not relay)
    check_zero_point(operands, "input_zero_point", operands.dtype("data"), length)
    check_scale(operands, "output_scale", run_time_too=not relay)
    check_zero_point(operands, "output_zero_point", attrs["out_dtype"], run_time_too=not relay)
    if (attrs["rounding"], attrs["compute_dtype"]) == ("TONEAREST_EVEN", "int64"):
        raise VerifyError("qnn.requantize: rounding TONEAREST_EVEN is for a float compute_dtype, found int64")
    for name in REQUANTIZE_EXTENSIONS.get(attrs["arithmetic"], ()):
        check_vector(operands, name, length)
    if not relay and (attrs["rounding"], attrs["compute_dtype"]) != ("TONEAREST_EVEN", "float32"):
        raise VerifyError(f"qnn.requantize: arithmetic {attrs['arithmetic']} rounds TONEAREST_EVEN in float32")


REQUANTIZE_EXTENSIONS = {
    "accumulator": ("addend", "addend_factor", "multiplier"),
    "real": ("input_factor", "kernel_factor", "addend", "output_factor"),
}
REQUANTIZE_ARITHMETICS = ("relay", *REQUANTIZE_EXTENSIONS)

_REQUANTIZE = define_op(
    "qnn.requantize",
    ("data", "input_scale", "input_zero_point", "output_scale", "output_zero_point"),
    ("axis", "rounding", "compute_dtype", "arithmetic", "out_dtype"),
    _out_type,
    _check_requantize,
    "codes of one scale and zero point to codes of another",
    extensions=REQUANTIZE_EXTENSIONS,
)


def requantize(
    data: Expr,
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    axis: int = -1,
    rounding: str = "None",
    compute_dtype: str = "None",
    out_dtype: str = "int8",
    *,
    arithmetic: str = "relay",
    factors: Mapping[str, Any] = MappingProxyType({}),
) -> Expr:
    """qnn.requantize, with PyTorch's ways of doing it as extensions.

    With x = float(data - input_zero_point):
      arithmetic "relay": in compute_dtype "float32" or "float64"
        clamp(round(x * (input_scale / output_scale) + output_zero_point)), every operation rounded; in "int64"
        clamp(round(x * (input_scale / output_scale)) + output_zero_point) with a fixed point ratio of 31 bits.
      "accumulator" (fbgemm, qnnpack), in float32, rne = round half to even:
        clamp(rne(fma(addend, addend_factor, x) * multiplier) + output_zero_point)
      "real" (onednn), in float32, every operation rounded:
        clamp(rne((x * input_factor * kernel_factor + addend) * output_factor + output_zero_point))
    factors holds the operands that the last two name, float32, one number or a vector along axis: the very constants
    that the engine computes from the scales (numerics/core.py), in its order of operations. The scales stay as the
    op's meaning.
    With them, scales, factors and the output's zero point may be run-time values, as in a dynamic convolution.
    rounding of "relay": "UPWARD" (floor(v + 0.5)), "TONEAREST" (half away from zero) or "TONEAREST_EVEN" (ours).
    "None" asks qnn.requantize_config when the op is canonicalized; the extensions are TONEAREST_EVEN in float32.
    In stock Relay the addend becomes an int32 bias_add before the op, and the rest TONEAREST of the ratio of the
    scales: a
    code differs where the value lies within a few float32 roundings of a tie.

    Shapes: data int32, int8 or uint8 [...]; input_scale and input_zero_point one number or a vector along axis;
    output_scale and output_zero_point one number.
    """
    return _REQUANTIZE(
        {
            "data": data,
            "input_scale": as_scale(input_scale),
            "input_zero_point": as_zero_point(input_zero_point),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
            **{name: as_scale(value) for name, value in factors.items()},
        },
        {
            "axis": axis,
            "rounding": rounding,
            "compute_dtype": "float32"
            if (arithmetic, compute_dtype) != ("relay", UNSET) and compute_dtype == UNSET
            else compute_dtype,
            "arithmetic": arithmetic,
            "out_dtype": out_dtype,
        },
    )


def _lookup_type(operands: Operands) -> Any:
    return tensor_type(operands.shape("data"), operands.dtype("table"))


def _check_lookup(operands: Operands) -> None:
    check_dtype(operands, "data", CODES_8BIT)
    check_dtype(operands, "table", CODES_8BIT)
    if operands.constant("table").shape != (256,):
        raise VerifyError(f"qnn.lookup: table must have shape (256,), found {operands.shape('table')}")
    check_scale(operands, "input_scale")
    check_zero_point(operands, "input_zero_point", operands.dtype("data"))
    check_scale(operands, "output_scale")
    check_zero_point(operands, "output_zero_point", operands.dtype("table"))


_LOOKUP = define_op(
    "qnn.lookup",
    ("data", "table", "input_scale", "input_zero_point", "output_scale", "output_zero_point"),
    ("function",),
    _lookup_type,
    _check_lookup,
    "a unary function as a table of 256 codes",
)


def lookup(
    data: Expr,
    table: np.ndarray[Any, Any],
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    function: str,
) -> Expr:
    """qnn.lookup (ours): table[code - least code of data's dtype], for any unary function of one quantized tensor.

    The table holds what PyTorch's own op returns for each of the 256 codes, so it is exact for every unary op.
    function names the op it stands for ("hardswish"); where Relay has that op, Relay text says so, and its codes then
    come from Relay's own formula.
    """
    return _LOOKUP(
        {
            "data": data,
            "table": relax.const(table, str(table.dtype)),
            "input_scale": as_scale(input_scale),
            "input_zero_point": as_zero_point(input_zero_point),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
        },
        {"function": function},
    )
