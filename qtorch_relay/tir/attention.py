"""The softmax inside PyTorch's fused attention of float32 ("flash attention"), which divides after the second product.

torch.attention_weights(scores)     exp(scores - max), not divided yet
torch.attention_factors(weights)    1 / sum along the last axis, which is kept; 1 where the sum is 0

Both to the last bit for rows of at most FLASH_KEYS numbers; of longer ones PyTorch takes several pieces. A row of -inf
alone has weights 0.
Source: PyTorch aten/src/ATen/native/cpu/FlashAttentionKernel.cpp cpu_flash_attention.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import T, TensorType
from qtorch_relay.tir.functions import LANES, call_function, flat, fold_lanes, loop_of, product, variable
from qtorch_relay.tir.math import Expr, exp_fast, f32
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

Buffer = Any
FLASH_KEYS = 512


def attention_weights(scores: Expr) -> Expr:
    """Returns exp(scores - max) along the last axis of float32 scores."""
    return call_tir_op("torch.attention_weights", [scores])


def attention_factors(weights: Expr) -> Expr:
    """Returns one over the sums of float32 weights [..., S], as [..., 1]."""
    return call_tir_op("torch.attention_factors", [weights])


def _emit_weights(scores: Buffer, out: Buffer) -> None:
    rows, count, x, weights = product(scores.shape[:-1]), product(scores.shape[-1:]), flat(scores), flat(out)
    whole = count // LANES * LANES
    with loop_of(rows * count)(0, rows) as row:
        start, greatest = T.bind(row * count), variable()
        T.buffer_store(greatest, f32(-np.inf), [0])
        with T.serial(0, count) as i:
            T.buffer_store(greatest, T.max(x[start + i], greatest[0]), [0])

        def weight(place: Expr, exp: Any, greatest: Buffer = greatest) -> None:
            nothing = greatest[0] == f32(-np.inf)
            T.buffer_store(weights, T.Select(nothing, f32(0), exp(x[place] - greatest[0])), [place])

        with T.serial(0, whole) as i:
            weight(start + i, exp_fast)
        with T.serial(whole, count) as i:
            weight(start + i, _exp_exact)


def _exp_exact(x: Expr) -> Expr:
    """Returns float32 exp(x), correctly rounded: what remains of a row goes through the C library's exp of doubles."""
    return T.Cast("float32", T.exp(T.Cast("float64", x)))


def _emit_factors(weights: Buffer, out: Buffer) -> None:
    rows, count, x, factors = product(weights.shape[:-1]), product(weights.shape[-1:]), flat(weights), flat(out)
    with loop_of(rows * count)(0, rows) as row:
        start, lanes, total = T.bind(row * count), variable(lanes=LANES), variable()
        with T.vectorized(0, LANES) as lane:
            T.buffer_store(lanes, f32(0), [lane])
        with T.serial(0, count // LANES) as block, T.vectorized(0, LANES) as lane:
            T.buffer_store(lanes, lanes[lane] + x[start + block * LANES + lane], [lane])
        fold_lanes(lanes, lambda a, b: a + b)
        T.buffer_store(total, lanes[0], [0])
        with T.serial(count // LANES * LANES, count) as i:
            T.buffer_store(total, total[0] + x[start + i], [0])
        T.buffer_store(factors, f32(1) / T.Select(total[0] == f32(0), f32(1), total[0]), [row])


define_tir_op(
    "torch.attention_weights",
    "exp(scores - max)",
    ("scores",),
    lambda call, _builder: TensorType(list(call.args[0].ty.shape.values), "float32"),
    lambda builder, call: call_function(builder, "attention_weights", call.args, call.ty, _emit_weights),
)
define_tir_op(
    "torch.attention_factors",
    "1 / sum",
    ("weights",),
    lambda call, _builder: TensorType([*list(call.args[0].ty.shape.values)[:-1], 1], "float32"),
    lambda builder, call: call_function(builder, "attention_factors", call.args, call.ty, _emit_factors),
)
