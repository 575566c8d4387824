"""What PyTorch 2.13 computes for layer_norm of float32 on x86-64, in numpy, to the bit.

The moments go by Welford's algorithm in 8 lanes (the kernel is AVX2 code on AVX-512 machines too), in chunks of 16
vectors that are merged two by two; then the scalars that fill no vector, and the lanes one after the other.
Source: aten/src/ATen/native/cpu/layer_norm_kernel.cpp, moments_utils.h; the compiler contracts m + c * d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qtorch_relay.numerics.core import F32, Floats, fma_f32

LANES = 8
CHUNK = 16  # vectors


@dataclass(frozen=True, eq=False)
class Moments:
    """How many numbers were seen, their mean, and the sum of the squares of their distances to it."""

    count: int
    mean: Floats
    squares: Floats


def levels(vectors: int) -> int:
    """Returns how many partial moments are kept while the chunks of so many vectors are merged two by two."""
    chunks = -(-vectors // CHUNK)
    return max(1, (chunks - 1).bit_length())


def layer_norm(x: Floats, weight: Floats | None, bias: Floats, eps: float) -> Floats:
    """Returns (x - mean) / sqrt(variance + eps) * weight + bias over the last axis; the last two in one rounding.

    Shapes: x [R, N]; weight and bias [N], bias is 0 if there is none.
    """
    moments = rowwise_moments(x)
    inverse = F32(1) / np.sqrt(moments.squares / F32(x.shape[1]) + F32(eps))
    centered, addend = x - moments.mean[:, None], np.broadcast_to(bias, x.shape)
    if weight is None:
        return fma_f32(centered, inverse[:, None], addend)
    return fma_f32(centered * inverse[:, None], weight, addend)


def rowwise_moments(x: Floats) -> Moments:
    """Returns the moments of each row."""
    rows, count = x.shape
    vectors = count // LANES
    zeros = np.zeros((rows, LANES), F32)
    empty = Moments(0, zeros, zeros)
    stack = [empty] * levels(vectors)
    for chunk, first in enumerate(range(0, vectors, CHUNK)):
        size = min(CHUNK, vectors - first)
        part = x[:, first * LANES : (first + size) * LANES].reshape(rows, size, LANES)
        stack[0] = _merge_vectors(stack[0], _welford(part))
        for level in range(1, len(stack)):
            if (chunk + 1) % 2**level:
                break
            stack[level] = _merge_vectors(stack[level], stack[level - 1])
            stack[level - 1] = empty
    total = stack[0]
    for other in stack[1:]:
        total = _merge_vectors(total, other)
    mean, squares = np.zeros((2, rows), F32)
    for seen in range(count - vectors * LANES):
        number = x[:, vectors * LANES + seen]
        delta = number - mean
        mean = mean + delta / F32(seen + 1)
        squares = squares + delta * (number - mean)
    result = Moments(count - vectors * LANES, mean, squares)
    for lane in range(LANES):
        result = _merge_lane(result, Moments(vectors, total.mean[:, lane], total.squares[:, lane]))
    return result


def _welford(x: Floats) -> Moments:
    """Returns the moments over the vectors [R, V, LANES] of a chunk, lane by lane."""
    mean, squares = np.zeros((2, len(x), LANES), F32)
    for i in range(x.shape[1]):
        delta = x[:, i] - mean
        mean = fma_f32(F32(1) / F32(i + 1), delta, mean)
        squares = fma_f32(delta, x[:, i] - mean, squares)
    return Moments(x.shape[1], mean, squares)


def _share(first: Moments, other: Moments) -> tuple[int, F32]:
    count = first.count + other.count
    return count, F32(other.count) / F32(count) if count else F32(0)


def _merge_vectors(first: Moments, other: Moments) -> Moments:
    count, share = _share(first, other)
    delta = other.mean - first.mean
    step = share * delta
    squares = fma_f32(delta * F32(first.count), step, first.squares + other.squares)
    return Moments(count, first.mean + step, squares)


def _merge_lane(first: Moments, other: Moments) -> Moments:
    count, share = _share(first, other)
    delta = other.mean - first.mean
    added = fma_f32(delta * delta * share, F32(first.count), other.squares)
    return Moments(count, fma_f32(share, delta, first.mean), first.squares + added)
