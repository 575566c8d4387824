"""Rows for the ops with Relay's arithmetic; expected codes come from relay_numpy. ALL_CASES has all rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay import qnn
from tests.qnn import relay_numpy
from tests.qnn.cases import CASES, CODES_A, CODES_B, FLOATS, SUMS, Case

RNG = np.random.default_rng(3)
Array = np.ndarray[Any, Any]
# What requantize_config has where no target is current.
DEFAULT = ("UPWARD", "int64")
S8 = CODES_A.view(np.int8)
BYTES = np.arange(256).astype(np.uint8)
FINITE = FLOATS[np.abs(FLOATS) < 1e30]
SCALES = np.array([0.011, 0.25, 0.5, 0.037, 1.5, 0.002], np.float32)
POINTS = np.array([0, 3, 255, 7, 128, 1], np.int32)


def _along(vector: Array) -> Array:
    return vector.reshape(-1, 1, 1)


def _requantize(rounding: str, compute: str) -> Case:
    return Case(
        f"requantize_relay_{rounding.lower()}_{compute}",
        {"x": SUMS},
        lambda x: qnn.requantize(
            x, SCALES, POINTS - 128, 64.0, -3, axis=1, rounding=rounding, compute_dtype=compute, out_dtype="int8"
        ),
        lambda x: relay_numpy.requantize(
            x, _along(SCALES), _along(POINTS - 128), 64.0, -3, "int8", (rounding, compute)
        ),
    )


def _sides(a: Array, b: Array) -> tuple[Array, Array]:
    wide = "int32"
    return (
        relay_numpy.requantize(a, 0.031, 5, 0.0831, 3, wide, DEFAULT),
        relay_numpy.requantize(b, 0.017, 131, 0.0831, 3, wide, DEFAULT),
    )


_PARAMETERS = (0.031, 5, 0.017, 131, 0.0831, 3)


def _binary(op: str, formula: Callable[[Array, Array], Array]) -> Case:
    def expected(a: Array, b: Array) -> Array:
        return relay_numpy.saturate(formula(*_sides(a, b)), "uint8")

    return Case(
        f"{op}_relay", {"a": CODES_A, "b": CODES_B}, lambda a, b: getattr(qnn, op)(a, b, *_PARAMETERS), expected
    )


def _mul(a: Array, b: Array) -> Array:
    product = (a.astype(np.int64) - 5) * (b.astype(np.int64) - 131)
    return relay_numpy.requantize(product, np.float32(0.031) * np.float32(0.017), 0, 0.0831, 3, "uint8", DEFAULT)


def _concatenate(a: Array, b: Array) -> Array:
    return np.concatenate([a, relay_numpy.requantize(b, 0.017, 131, 0.031, 5, "uint8", DEFAULT)], 2)


_MATH = {
    "tanh": math.tanh,
    "exp": math.exp,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else math.nan,
    "rsqrt": lambda x: 1 / math.sqrt(x) if x > 0 else (math.inf if x == 0 else math.nan),
    "erf": math.erf,
    "abs": abs,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "log": lambda x: math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan),
}


def _unary(op: str) -> Case:
    """In float64: none of these values lies within a float32 rounding of a tie."""

    def expected(x: Array) -> Array:
        values = np.array([_MATH[op](code * float(np.float32(0.021))) for code in (x.astype(int) - 120).tolist()])
        codes = relay_numpy.half_away(values / np.float32(0.0173)) + 9
        return np.where(np.isnan(codes), 255, np.clip(codes, 0, 255)).astype(np.uint8)

    return Case(op, {"x": BYTES}, lambda x: getattr(qnn, op)(x, 0.021, 120, 0.0173, 9), expected)


def _leaky_relu(x: Array) -> Array:
    codes = relay_numpy.requantize(x, 0.031, 100, 0.027, 9, "int32", DEFAULT)
    offset = relay_numpy.fixed_point_multiply(np.array(9), 0.7)
    negative = relay_numpy.fixed_point_multiply(codes, 0.3) + offset
    return relay_numpy.saturate(np.where(x < 100, negative, codes), "uint8")


def _softmax(x: Array) -> Array:
    steps = relay_numpy.softmax(x, 0.33, 7, 1)
    return relay_numpy.requantize(steps, 2.0**-7, 0, 1 / 256, -128, "int8", DEFAULT)


def _pool(x: Array) -> Array:
    codes = relay_numpy.requantize(x, 0.05, 7, 0.031, -20, "int32", DEFAULT)
    total = sum(codes[:, :, i : i + 15 : 2, j : j + 15 : 2] for i in (0, 1) for j in (0, 1))
    return relay_numpy.saturate(np.trunc(total / 4), "int8")


def _simulated(x: Array, dtype: str) -> Array:
    info = np.iinfo(dtype)
    return np.clip(relay_numpy.half_away(x / np.float32(0.25)) + 3, info.min, info.max).astype(np.float32)


_LEFT, _RIGHT = RNG.integers(0, 256, (3, 4, 19)).astype(np.uint8), RNG.integers(-128, 128, (1, 7, 19)).astype(np.int8)
_TILES = RNG.integers(-128, 128, (2, 3, 4, 5)).astype(np.int8)
_ROWS = RNG.integers(0, 256, (6, 15)).astype(np.uint8)
_UNITS = np.arange(8, dtype=np.int32)


def _dense_pack(x: Array, w: Array) -> Array:
    weight = w.transpose(0, 2, 1, 3).reshape(8, 15).astype(np.int64) - _UNITS[:, None]
    return ((x.astype(np.int64) - 9) @ weight.T).astype(np.int32)


RELAY_CASES = (
    Case(
        "quantize_relay",
        {"x": FINITE},
        lambda x: qnn.quantize(x, 0.25, 3, out_dtype="uint8"),
        lambda x: relay_numpy.quantize(x, 0.25, 3, "uint8"),
    ),
    *(_requantize(rounding, compute) for rounding in ("UPWARD", "TONEAREST") for compute in ("int64", "float32")),
    _requantize("UPWARD", "float64"),
    _requantize("TONEAREST", "float64"),
    _binary("add", lambda a, b: a + b - 3),
    _binary("subtract", lambda a, b: a - b + 3),
    Case("mul_relay", {"a": CODES_A, "b": CODES_B}, lambda a, b: qnn.mul(a, b, *_PARAMETERS), _mul),
    Case(
        "concatenate_relay",
        {"a": CODES_A, "b": CODES_B},
        lambda a, b: qnn.concatenate([a, b], [0.031, 0.017], [5, 131], 0.031, 5, 2),
        _concatenate,
    ),
    Case(
        "batch_matmul",
        {"x": _LEFT, "y": _RIGHT},
        lambda x, y: qnn.batch_matmul(x, y, 9, -5, 0.5, 0.25),
        lambda x, y: ((x.astype(np.int64) - 9) @ (y.astype(np.int64) + 5).transpose(0, 2, 1)).astype(np.int32),
    ),
    Case(
        "contrib_dense_pack",
        {"x": _ROWS, "w": _TILES},
        lambda x, w: qnn.contrib_dense_pack(x, w, 9, _UNITS, 0.5, 0.25, "NC4n5c", 8),
        _dense_pack,
    ),
    *(_unary(op) for op in _MATH),
    Case("leaky_relu", {"x": BYTES}, lambda x: qnn.leaky_relu(x, 0.3, 0.031, 100, 0.027, 9), _leaky_relu),
    Case("softmax", {"x": S8}, lambda x: qnn.softmax(x, 0.33, 7, 1 / 256, -128, axis=1), _softmax),
    Case(
        "avg_pool2d_relay",
        {"x": S8},
        lambda x: qnn.avg_pool2d(x, 0.05, 7, 0.031, -20, (2, 2), (2, 2), (0, 0), layout="NCHW"),
        _pool,
    ),
    Case(
        "simulated_quantize",
        {"x": FINITE},
        lambda x: qnn.simulated_quantize(x, 0.25, 3),
        lambda x: _simulated(x, "int8"),
    ),
    Case(
        "simulated_quantize_run_time",
        {"x": FINITE, "dtype": np.asarray(2, np.int32)},
        lambda x, dtype: qnn.simulated_quantize(x, 0.25, 3, out_dtype=dtype),
        lambda x, _dtype: _simulated(x, "uint8"),
    ),
    Case(
        "simulated_dequantize",
        {"x": FINITE},
        lambda x: qnn.simulated_dequantize(x, 0.5, 3),
        lambda x: (x - np.float32(3)) * np.float32(0.5),
    ),
    Case(
        "simulated_dequantize_disabled",
        {"x": FINITE, "dtype": np.asarray(0, np.int32)},
        lambda x, dtype: qnn.simulated_dequantize(x, 0.5, 3, in_dtype=dtype),
        lambda x, _dtype: x,
    ),
)
ALL_CASES = (*CASES, *RELAY_CASES)
