"""The mean of a channels-last quantized tensor over height and width, with PyTorch's order of float additions.

PyTorch dequantizes, sums in float32 by its cascade (aten/src/ATen/native/cpu/SumKernel.cpp: cascade_sum, levels of 16),
divides
by the count and quantizes. Float addition is not associative, so the order is part of the result.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from qtorch_relay._tvm import relax
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import dequantize, quantize

LEVEL_STEP = 16  # additions before a level of the cascade is added to the next
VECTOR_CHANNELS = 32  # channels summed row by row; those past a multiple of it go four pixels at a time
INTERLEAVED = 4


def emit_cascade_mean(context: ImportContext, value: QuantizedValue) -> QuantizedValue:
    """Returns the mean of [N, C, H, W] over H and W as [N, C, 1, 1], with the input's parameters."""
    batch, channels, height, width = value.shape
    qparams = value.qparams
    pixels = height * width
    flat = context.emit(relax.op.reshape(value.expr, (batch, channels, pixels)))
    real = context.emit(dequantize(flat, qparams.scale, qparams.zero_point))
    split = channels // VECTOR_CHANNELS * VECTOR_CHANNELS
    parts = []
    for begin, end, total in ((0, split, _cascade_sum), (split, channels, _interleaved_sum)):
        if begin < end:
            rows = context.emit(relax.op.strided_slice(real, [1], [begin], [end])) if end - begin < channels else real
            columns = [context.emit(relax.op.strided_slice(rows, [2], [i], [i + 1])) for i in range(pixels)]
            parts.append(context.emit(total(columns)))
    joined = parts[0] if len(parts) == 1 else context.emit(relax.op.concat(parts, axis=1))
    mean = context.emit(relax.op.divide(joined, relax.const(float(pixels), "float32")))
    codes = context.emit(quantize(mean, qparams.scale, qparams.zero_point, out_dtype=qparams.dtype, arithmetic="fused"))
    return value.with_expr(context.emit(relax.op.reshape(codes, (batch, channels, 1, 1)), "mean"))


def _sum(terms: list[Any]) -> Any:
    """Returns the sum from left to right."""
    return reduce(relax.op.add, terms)


def _cascade_sum(terms: list[Any]) -> Any:
    """Returns the sum of full blocks of 16, level upon level, and what is left over: rest + level 1 + level 2 + ..."""
    levels: list[list[Any]] = [[]]
    for term in terms:
        levels[0].append(term)
        for depth in range(len(levels)):
            if len(levels[depth]) < LEVEL_STEP:
                break
            if depth + 1 == len(levels):
                levels.append([])
            levels[depth + 1].append(_sum(levels[depth]))
            levels[depth] = []
    return _sum([_sum(level) for level in levels if level])


def _interleaved_sum(terms: list[Any]) -> Any:
    """Returns four interleaved sums added up; the pixels past a multiple of four go onto the first."""
    whole = len(terms) // INTERLEAVED * INTERLEAVED
    partial = [_cascade_sum(terms[i:whole:INTERLEAVED]) for i in range(INTERLEAVED)] if whole else []
    rest = terms[whole:]
    if not partial:
        return _sum(rest)
    return _sum([_sum([partial[0], *rest]), *partial[1:]])
