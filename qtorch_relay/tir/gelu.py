"""gelu of float32 as PyTorch computes it on AVX-512: numerics.gelu in TIR.

torch.gelu(x, coefficients)      coefficients: float32 [6, 32], numerics.gelu.GELU_COEFFICIENTS padded
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import T, TensorType, relax, target_has_feature, tvm
from qtorch_relay.numerics.gelu import (
    FIRST,
    GELU_COEFFICIENTS,
    INTERVAL_BIAS,
    INTERVAL_SHIFT,
    LAST,
    ONE,
    SATURATED,
)
from qtorch_relay.tir.functions import LANES, call_function, flat, loop_of, product
from qtorch_relay.tir.math import Expr, f32, fma, intrinsic
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

Buffer = Any
Number = Callable[[Any], Any]

WIDTH = 2 * LANES  # two registers hold a row of the table

_TABLE = np.zeros((len(GELU_COEFFICIENTS), WIDTH), np.float32)
_TABLE[:, : GELU_COEFFICIENTS.shape[1]] = GELU_COEFFICIENTS


def gelu(x: Expr) -> Expr:
    """Returns PyTorch's gelu of a float32 tensor, to the last bit of what it computes on AVX-512."""
    return call_tir_op("torch.gelu", [x, relax.const(_TABLE, "float32")])


def _infer(call: Any, _builder: Any) -> Any:
    return TensorType(list(call.args[0].ty.shape.values), "float32")


def _legalize(builder: Any, call: Any) -> Expr:
    return call_function(builder, "gelu", call.args, call.ty, _emit)


def _emit(x: Buffer, table: Buffer, out: Buffer) -> None:
    size = product(x.shape)
    source, result, rows = flat(x), flat(out), flat(table)
    whole = size // LANES if target_has_feature("avx512f", tvm.target.Target.current()) else 0
    with loop_of(size)(0, whole) as block:
        span = T.ramp(block * LANES, 1, LANES)
        T.buffer_store(result, _gelu(source[span], _permuted(rows), lambda value: T.broadcast(value, LANES)), [span])
    with T.serial(whole * LANES, size) as i:
        T.buffer_store(result, _gelu(source[i], lambda row, index: rows[row * WIDTH + index], lambda value: value), [i])


def _permuted(rows: Buffer) -> Callable[[int, Expr], Expr]:
    """Returns what picks the coefficients of 16 intervals from two registers."""

    def pick(row: int, index: Expr) -> Expr:
        low, high = (rows[T.ramp(row * WIDTH + half * LANES, 1, LANES)] for half in (0, 1))
        return intrinsic("float32x16", "llvm.x86.avx512.vpermi2var.ps.512", low, index, high)

    return pick


def _gelu(x: Expr, coefficient: Callable[[int, Expr], Expr], each: Number) -> Expr:
    """Returns x * (1 + erf(x / sqrt(2))) / 2; each spreads a number over the lanes of x."""
    lanes = str(x.ty.dtype).removeprefix("float32")
    x = T.bind(x)
    bits = T.bind(T.bitwise_and(T.reinterpret(f"int32{lanes}", x), each(T.int32(0x7FFFFFFF))))
    magnitude = T.bind(T.reinterpret(f"float32{lanes}", bits))
    interval = T.shift_right(bits + each(T.int32(INTERVAL_BIAS)), each(T.int32(INTERVAL_SHIFT)))
    interval = T.max(T.min(interval, each(T.int32(LAST))), each(T.int32(FIRST)))
    interval = T.bind(T.Select(magnitude > each(f32(SATURATED)), each(T.int32(ONE)), interval))
    erf = coefficient(len(_TABLE) - 1, interval)
    for row in reversed(range(len(_TABLE) - 1)):
        erf = fma(erf, magnitude, coefficient(row, interval))
    sign = T.bitwise_xor(bits, T.reinterpret(f"int32{lanes}", x))
    signed = T.reinterpret(f"float32{lanes}", T.bitwise_xor(T.reinterpret(f"int32{lanes}", erf), sign))
    return x * (signed + each(f32(1))) * each(f32(0.5))


define_tir_op("torch.gelu", "PyTorch's gelu", ("x", "coefficients"), _infer, _legalize)
