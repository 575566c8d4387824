"""What PyTorch 2.13 computes for quantized::softmax on x86-64 with AVX-512, in numpy, to the bit.

It dequantizes, takes the float32 softmax and quantizes; on the engine qnnpack, for quint8 with an output of
scale 1 / 256 and zero point 0, a kernel of integers takes its place. The float kernel uses SLEEF's exponential,
and glibc's for the columns that fill no vector. On a machine with AVX2 alone vectors have 8 lanes: sums are added in
another order there, and a few codes in 10**6 differ.
Sources: aten/src/ATen/native/quantized/cpu/qsoftmax.cpp, aten/src/ATen/native/cpu/SoftMaxKernel.cpp, SLEEF's
xexpf (1.0 ulp), glibc's e_expf.c; qnnpack/src/softargmax.c, u8lut32norm/scalar.c.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qtorch_relay.numerics.core import F32, Codes, Floats, fma_f32, quantize_f32
from qtorch_relay.qparams import PerTensor, code_range

LANES = 16  # float32 numbers of an AVX-512 vector
QNNPACK_OUTPUT = (1 / 256, 0)  # the scale and zero point that qnnpack's kernel gives

_SLEEF = (0.000198527617612853646, 0.00139304355252534151, 0.00833336077630519867, 0.0416664853692054749,
          0.166666671633720398, 0.5)  # fmt: skip
_GLIBC = (0.055503615593415351, 0.24022651111128427, 0.69314718061955251)  # of 2**r, the highest power first


def exp_vector(x: Floats) -> Floats:
    """Returns exp(x) of x <= 0 as SLEEF's vector code computes it."""
    quotient = np.rint(x * F32(math.log2(math.e)))
    rest = fma_f32(quotient, F32(-1.428606765330187045e-06), fma_f32(quotient, F32(-0.693145751953125), x))
    polynomial = np.full_like(rest, F32(_SLEEF[0]))
    for coefficient in _SLEEF[1:]:
        polynomial = fma_f32(polynomial, rest, F32(coefficient))
    power = F32(1) + fma_f32(rest * rest, polynomial, rest)
    return np.where(x < -104, F32(0), np.ldexp(power, quotient.astype(np.int32))).astype(F32)


def exp_scalar(x: Floats) -> Floats:
    """Returns exp(x) of x <= 0 as glibc's expf computes it: in float64, 2**(k / 32) times a cubic polynomial."""
    steps = x.astype(np.float64) * (32 * math.log2(math.e))
    k = np.rint(steps)
    rest = (steps - k) / 32
    power = ((_GLIBC[0] * rest + _GLIBC[1]) * (rest * rest) + (_GLIBC[2] * rest + 1)) * np.exp2(k / 32)
    return power.astype(F32)


def exp_table(source: PerTensor, *, vectorized: bool) -> Floats:
    """Returns exp(real of q - real of m) for the greatest code m of a row (first axis) and each code q, [256, 256].

    Only q <= m occurs; the rest holds ones.
    """
    low, high = code_range(source.dtype)
    real = F32(source.scale) * (np.arange(low, high + 1) - source.zero_point).astype(F32)
    difference = np.minimum(real - real[:, None], F32(0))
    return exp_vector(difference) if vectorized else exp_scalar(difference)


def sum_last_axis(terms: Floats) -> Floats:
    """Returns the sum over the last axis, which stays, in the order of vec::reduce_all: lane by lane, then halves."""
    count = terms.shape[-1]
    if count < LANES:
        return np.cumsum(terms, axis=-1, dtype=F32)[..., -1:]
    padded = np.zeros((*terms.shape[:-1], -(-count // LANES) * LANES), F32)
    padded[..., :count] = terms
    lanes = np.cumsum(padded.reshape(*terms.shape[:-1], -1, LANES), axis=-2, dtype=F32)[..., -1, :]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes


def softmax(codes: Codes, source: PerTensor, axis: int, output: PerTensor) -> Codes:
    """Returns quantized::softmax of codes in logical order, for every engine but where qnnpack has its own kernel.

    Along the last axis: e * (1 / sum). Along another one: e / sum, summed from first to last; of the elements after
    that axis the last n % 16 use the scalar exponential.
    """
    low, _ = code_range(source.dtype)
    index = codes.astype(np.int64) - low
    top = index.max(axis, keepdims=True)
    terms = exp_table(source, vectorized=True)[top, index]
    if axis == codes.ndim - 1:
        return quantize_f32(terms * (F32(1) / sum_last_axis(terms)), output)
    inner = int(np.prod(codes.shape[axis + 1 :]))
    in_vector = (np.arange(inner) < inner // LANES * LANES).reshape(codes.shape[axis + 1 :])
    terms = np.where(in_vector, terms, exp_table(source, vectorized=False)[top, index])
    total = np.take(np.cumsum(terms, axis=axis, dtype=F32), [-1], axis)
    return quantize_f32(terms / total, output)


def qnnpack_table(scale: float, channels: int) -> npt.NDArray[np.int64]:
    """Returns exp((i - 255) * scale) for i in [0, 256), in steps that let a sum over the channels fit 32 bits."""
    step = min((2.0**32 - 1) / channels, 8388607.0)
    return np.array([int(np.rint(step * math.exp((i - 255) * float(F32(scale))))) for i in range(256)], np.int64)


def softmax_qnnpack(codes: Codes, source: PerTensor, axis: int) -> Codes:
    """Returns min((256 * t + sum(t) / 2) / sum(t), 255) in whole numbers, t being qnnpack_table[q + 255 - greatest]."""
    index = codes.astype(np.int64)
    terms = qnnpack_table(source.scale, codes.shape[axis])[index + 255 - index.max(axis, keepdims=True)]
    total = terms.sum(axis, keepdims=True)
    return np.minimum((256 * terms + total // 2) // total, 255).astype(np.uint8)
