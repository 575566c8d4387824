"""Ops on single elements: most have the same name and meaning in Relay."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant
from qtorch_relay.relay.forms.common import attributes, dtype_of, number, static_shape
from qtorch_relay.relay.legend import CHANGES_NOTHING
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer

FLOAT_ROUNDING = "no code; floats differ by the rounding of Relay's own function"
# Relax's op: Relay's.
SAME = {
    "floor_divide": "floor_divide",
    "maximum": "maximum",
    "minimum": "minimum",
    "left_shift": "left_shift",
    "right_shift": "right_shift",
    "bitwise_and": "bitwise_and",
    "logical_and": "logical_and",
    "logical_or": "logical_or",
    "logical_xor": "logical_xor",
    "logical_not": "logical_not",
    "equal": "equal",
    "not_equal": "not_equal",
    "less": "less",
    "less_equal": "less_equal",
    "greater": "greater",
    "greater_equal": "greater_equal",
    "abs": "abs",
    "negative": "negative",
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "sign": "sign",
    "isnan": "isnan",
    "where": "where",
    "nn.relu": "nn.relu",
}
# The same, but each library has its own approximation.
FLOAT_FUNCTIONS = {
    "exp": "exp",
    "log": "log",
    "sin": "sin",
    "cos": "cos",
    "erf": "erf",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "power": "power",
    "rsqrt": "rsqrt",
}


def _write_same(name: str, writer: Writer, call: Any) -> str:
    return writer.op(name, *(writer.operand(argument) for argument in call.args))


for _relax, _relay in SAME.items():
    relax_form(f"relax.{_relax}", becomes=f"`{_relay}`")(partial(_write_same, _relay))
for _relax, _relay in FLOAT_FUNCTIONS.items():
    relax_form(f"relax.{_relax}", becomes=f"`{_relay}`", cost=FLOAT_ROUNDING)(partial(_write_same, _relay))
for _name in ("tanh", "sigmoid"):
    relax_form(f"torch.{_name}", becomes=f"`{_name}`", cost=FLOAT_ROUNDING)(partial(_write_same, _name))


_BOUNDS = {"float16": 'cast(-60000f, dtype="float16")', "float32": "-3e+38f", "float64": "-1e+300f64"}
# Relay's SimplifyExpr takes (x + c) * d for x * d + c * d, (x * c) * d for x * (c * d) and (x + c) + d for x + (c + d):
# each op: those whose results it must not see through where every operation is to be rounded.
_SEEN_THROUGH = {
    "multiply": ("add", "subtract", "multiply", "divide"),
    "divide": ("add", "subtract", "multiply", "divide"),
    "add": ("add", "subtract"),
    "subtract": ("add", "subtract"),
}
# What gives its first operand back, -0.0 too: x + -0.0 and x - 0.0 are x.
_IDENTITIES = {
    *(("add", number) for number in ("-0f", "-0f64", "0", "0i64")),
    *(("subtract", number) for number in ("0f", "0f64", "0", "0i64")),
}


@relax_form(
    *(f"relax.{name}" for name in _SEEN_THROUGH),
    becomes="the same op, a constant divisor as a parameter; `maximum(-3e38, x)` before a product of sums or products",
)
def arithmetic(writer: Writer, call: Any) -> str:
    """The op of the same name."""
    name = str(call.op.name).removeprefix("relax.")
    operands = [writer.operand(argument) for argument in call.args]
    if static_shape(call):
        operands[1] = _unseen(writer, name, operands[1], call.args[1])
    if (name, operands[1]) in _IDENTITIES:
        return operands[0]
    if dtype_of(call).startswith("float") and not all(map(writer.maker, operands)):
        operands = [_fenced(writer, text, dtype_of(call), _SEEN_THROUGH[name]) for text in operands]
    return writer.op(name, *operands)


def _unseen(writer: Writer, name: str, text: str, expr: Any) -> str:
    """Returns an operand's text, a parameter for a constant that TVM must not see as a literal.

    TVM multiplies by the reciprocal of a literal divisor, which rounds twice unless that is a power of two. Where a sum
    of int64 is cast to int32, TVM adds in int32, and stops at a literal that does not fit.
    """
    if re.fullmatch(r"-?\d+i64", text) and abs(int(text[:-3])) >= 2**31:
        return writer.constant(np.asarray([text[:-3]], np.int64))
    if name != "divide" or not is_constant(expr) or constant_array(expr).dtype.kind != "f":
        return text
    array = constant_array(expr)
    is_power_of_two = array.ndim == 0 and abs(np.frexp(array)[0]) == 0.5
    return writer.constant(array if array.ndim or is_power_of_two else array.reshape(1), "divisor")


def _fenced(writer: Writer, text: str, dtype: str, ops: tuple[str, ...]) -> str:
    """Returns a value through what changes nothing if one of these ops made it."""
    return unchanged(writer, text, dtype) if writer.maker(text) in ops else text


def unchanged(writer: Writer, text: str, dtype: str) -> str:
    """Returns a float value through a bound that no finite value reaches: what Relay and LLVM do not see through.

    The bound is the first operand, so that NaN passes: the second is taken where no comparison holds. A bound at the
    least number would not do: Relay drops it.
    """
    return writer.emit(writer.op("maximum", _BOUNDS[dtype], text), f"part of {writer.layer}, {CHANGES_NOTHING}")


@relax_form("relax.astype", becomes="`cast`")
def astype(writer: Writer, call: Any) -> str:
    """cast; a single number is written as what it is cast to."""
    if is_constant(call.args[0]) and constant_array(call.args[0]).ndim == 0:
        return writer.constant(constant_array(call.args[0]).astype(dtype_of(call)))
    return writer.op("cast", writer.operand(call.args[0]), dtype=dtype_of(call))


@relax_form("relax.clip", becomes="`clip`")
def clip(writer: Writer, call: Any) -> str:
    """clip, whose bounds are attributes."""
    data, low, high = call.args
    return writer.op("clip", writer.operand(data), a_min=float(number(low)), a_max=float(number(high)))


@relax_form("relax.round", becomes="`round`, and `round(x / 2) * 2` where x lies half way: ties to even")
def round_to_even(writer: Writer, call: Any) -> str:
    """Relay's round takes ties away from zero (0.17), or to even (other releases): both give the same here.

    Half of a tie k + 1/2 is no tie, so round(x / 2) * 2 is the even neighbour whatever round does with ties. The bound
    changes nothing, and keeps LLVM from fusing a product in x into the subtraction.
    """
    dtype = dtype_of(call)
    half, two = (writer.constant(np.asarray(value, dtype)) for value in (0.5, 2.0))
    value = unchanged(writer, writer.operand(call.args[0]), dtype)
    whole = writer.emit(writer.op("trunc", value))
    distance = writer.emit(writer.op("abs", writer.emit(writer.op("subtract", value, whole))))
    tie = writer.emit(writer.op("equal", distance, half))
    even = writer.emit(writer.op("multiply", writer.emit(writer.op("round", writer.op("multiply", value, half))), two))
    nearest = writer.emit(writer.op("round", value))
    return writer.op("where", tie, even, nearest)


@relax_form(
    "torch.fma",
    becomes="`multiply` and `add` in float64, cast",
    cost="none in codes: the sum is rounded to 53 bits, then to 24, which differs once in 2**29 sums, by the last bit",
)
def fused_multiply_add(writer: Writer, call: Any) -> str:
    """The product of two float32 is exact in float64."""
    a, b, c = (_as_float64(writer, argument) for argument in call.args)
    product = writer.emit(writer.op("multiply", a, b))
    return writer.op("cast", writer.emit(writer.op("add", product, c)), dtype="float32")


def _as_float64(writer: Writer, expr: Any) -> str:
    """Returns a float32 value as float64: a constant at once, anything else cast."""
    array = constant_array(expr) if is_constant(expr) else None
    if array is not None:
        return writer.constant((array.reshape(()) if array.size == 1 else array).astype(np.float64))
    text = writer.operand(expr)
    if text.startswith("%") or not text.endswith("f"):
        return writer.emit(writer.op("cast", text, dtype="float64"))
    return writer.constant(np.asarray(np.float32(text[:-1]), np.float64))


@relax_form("torch.silu", "relax.nn.silu", becomes="`sigmoid`, `multiply`", cost=FLOAT_ROUNDING)
def silu(writer: Writer, call: Any) -> str:
    """x * sigmoid(x)"""
    x = writer.operand(call.args[0])
    return writer.op("multiply", x, writer.emit(writer.op("sigmoid", x)))


@relax_form("torch.gelu", "relax.nn.gelu", becomes="`erf` and plain ops", cost=FLOAT_ROUNDING)
def gelu(writer: Writer, call: Any) -> str:
    """x / 2 * (1 + erf(x / sqrt(2)))"""
    x = writer.operand(call.args[0])
    error = writer.emit(writer.op("erf", writer.emit(writer.op("multiply", x, "0.70710678118654752f"))))
    one_more = writer.emit(writer.op("add", error, "1f"))
    return writer.op("multiply", writer.emit(writer.op("multiply", x, "0.5f")), one_more)


@relax_form("relax.nn.gelu_tanh", becomes="`tanh` and plain ops", cost=FLOAT_ROUNDING)
def gelu_tanh(writer: Writer, call: Any) -> str:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))"""
    x = writer.operand(call.args[0])
    square = writer.emit(writer.op("multiply", x, x))
    cubic = writer.emit(writer.op("multiply", writer.emit(writer.op("multiply", square, x)), "0.044715f"))
    inner = writer.emit(writer.op("multiply", writer.emit(writer.op("add", x, cubic)), "0.79788456080286536f"))
    one_more = writer.emit(writer.op("add", writer.emit(writer.op("tanh", inner)), "1f"))
    return writer.op("multiply", writer.emit(writer.op("multiply", x, "0.5f")), one_more)


@relax_form("relax.nn.leakyrelu", becomes="`nn.leaky_relu`")
def leaky_relu(writer: Writer, call: Any) -> str:
    """nn.leaky_relu"""
    return writer.op("nn.leaky_relu", writer.operand(call.args[0]), alpha=float(attributes(call)["alpha"]))
