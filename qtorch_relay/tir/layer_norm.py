"""layer_norm of float32 as PyTorch computes it: numerics.layer_norm in TIR.

torch.layer_norm(x, weight, bias, eps)      over the last dimensions of x, as many as weight and bias have
"""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import T, TensorType
from qtorch_relay.numerics.layer_norm import CHUNK, LANES, levels
from qtorch_relay.tir.functions import call_function, flat, for_each, loop_of, product, variable
from qtorch_relay.tir.math import Expr, f32, fma, rounded, rounded_product
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

Buffer = Any


def layer_norm(x: Expr, weight: Expr | None, bias: Expr, eps: float) -> Expr:
    """Returns PyTorch's layer_norm of a float32 tensor, to the last bit.

    weight, bias: of the shape of the normalized dimensions, which are numbers; bias is 0 if there is none.
    """
    if weight is None:
        return call_tir_op("torch.layer_norm", [x, bias], eps=eps)
    return call_tir_op("torch.layer_norm_weighted", [x, bias, weight], eps=eps)


def _infer(call: Any, _builder: Any) -> Any:
    return TensorType(list(call.args[0].ty.shape.values), "float32")


def _legalize(builder: Any, call: Any) -> Expr:
    eps = float(call.attrs["eps"])

    def body(x: Buffer, bias: Buffer, *weight_and_out: Buffer) -> None:
        count = product(bias.shape)
        rows = product(x.shape[: len(x.shape) - len(bias.shape)])
        source, addends, result = (flat(buffer) for buffer in (x, bias, weight_and_out[-1]))
        factors = flat(weight_and_out[0]) if len(weight_and_out) > 1 else None
        with loop_of(rows * count)(0, rows) as row:
            start = T.bind(row * count)
            mean, squares = _emit_moments(source, start, count)
            spread, inverse = variable(), variable()
            T.buffer_store(spread, squares[0] / f32(count) + f32(eps), [0])
            T.buffer_store(inverse, f32(1) / T.sqrt(spread[0]), [0])

            def store(i: Expr) -> None:
                centered, scale = source[start + i] - mean[0], inverse[0]
                if factors is not None:
                    centered, scale = rounded_product(centered, scale), factors[i]
                T.buffer_store(result, fma(centered, scale, addends[i]), [start + i])

            for_each(count, store)

    return call_function(builder, "layer_norm", call.args, call.ty, body)


class _Moments:
    """Variables for a mean and the sum of squared distances to it, in some lanes."""

    def __init__(self, lanes: int) -> None:
        self.mean, self.squares = variable(lanes=lanes), variable(lanes=lanes)

    def clear(self, lanes: int) -> None:
        """Emits zeros."""
        with T.vectorized(0, lanes) as lane:
            T.buffer_store(self.mean, f32(0), [lane])
            T.buffer_store(self.squares, f32(0), [lane])


def _emit_moments(x: Buffer, start: Expr, count: int) -> tuple[Buffer, Buffer]:
    """Emits numerics.layer_norm.rowwise_moments of a row; returns variables with mean and squared distances."""
    vectors = count // LANES
    stack = [_Moments(LANES) for _ in range(levels(vectors))]
    counts = variable("int32", len(stack))
    part, delta, result = _Moments(LANES), variable(lanes=LANES), _Moments(1)
    for level, moments in enumerate(stack):
        moments.clear(LANES)
        T.buffer_store(counts, T.int32(0), [level])
    if vectors:
        with T.serial(0, -(-vectors // CHUNK)) as chunk:
            first = T.bind(chunk * CHUNK)
            size = T.bind(T.min(CHUNK, vectors - first))
            part.clear(LANES)
            with T.serial(0, size) as i:
                share = T.bind(f32(1) / T.Cast("float32", i + 1))
                with T.vectorized(0, LANES) as lane:
                    number = x[start + (first + i) * LANES + lane]
                    T.buffer_store(delta, number - part.mean[lane], [lane])
                    T.buffer_store(part.mean, fma(share, delta[lane], part.mean[lane]), [lane])
                    rest = number - part.mean[lane]
                    T.buffer_store(part.squares, fma(delta[lane], rest, part.squares[lane]), [lane])
            _emit_merge(counts, 0, stack[0], T.Cast("int32", size), part)
            for level in range(1, len(stack)):
                with T.If((chunk + 1) % 2**level == 0), T.Then():
                    _emit_merge(counts, level, stack[level], counts[level - 1], stack[level - 1])
                    stack[level - 1].clear(LANES)
                    T.buffer_store(counts, T.int32(0), [level - 1])
        for level in range(1, len(stack)):
            _emit_merge(counts, 0, stack[0], counts[level], stack[level])

    result.clear(1)
    mean, squares = result.mean, result.squares
    for seen in range(count - vectors * LANES):
        number = x[start + vectors * LANES + seen]
        T.buffer_store(delta, number - mean[0], [0])
        T.buffer_store(mean, mean[0] + delta[0] / f32(seen + 1), [0])
        T.buffer_store(squares, squares[0] + rounded_product(delta[0], number - mean[0]), [0])
    for lane in range(LANES):
        seen = count - vectors * LANES + lane * vectors
        share = f32(vectors / (seen + vectors) if vectors else 0)
        T.buffer_store(delta, stack[0].mean[lane] - mean[0], [0])
        scaled = rounded_product(rounded_product(delta[0], delta[0]), share)
        T.buffer_store(squares, squares[0] + rounded(fma(scaled, f32(seen), stack[0].squares[lane])), [0])
        T.buffer_store(mean, fma(share, delta[0], mean[0]), [0])
    return mean, squares


def _emit_merge(counts: Buffer, level: int, moments: _Moments, other_count: Expr, other: _Moments) -> None:
    """Emits the merge of other moments into those of a level."""
    before = T.bind(T.Cast("float32", counts[level]))
    total = T.bind(counts[level] + other_count)
    share = T.bind(T.Cast("float32", other_count) / T.Cast("float32", T.max(total, T.int32(1))))
    with T.vectorized(0, LANES) as lane:
        delta = other.mean[lane] - moments.mean[lane]
        step = rounded_product(share, delta)
        squares = fma(delta * before, step, rounded(moments.squares[lane] + other.squares[lane]))
        T.buffer_store(moments.squares, squares, [lane])
        T.buffer_store(moments.mean, moments.mean[lane] + step, [lane])
    T.buffer_store(counts, total, [level])


define_tir_op("torch.layer_norm", "PyTorch's layer_norm", ("x", "bias"), _infer, _legalize)
define_tir_op("torch.layer_norm_weighted", "PyTorch's layer_norm", ("x", "bias", "weight"), _infer, _legalize)
