"""What PyTorch 2.13 computes for softmax, log_softmax and quantized::softmax on x86-64 with AVX-512, in numpy, to the
bit.

The float32 kernels use SLEEF's exponential and logarithm, and glibc's for the columns that fill no vector (all are
vectors along the last axis). quantized::softmax dequantizes, takes the float32 softmax and quantizes; on the engine
qnnpack, for quint8 with an output of scale 1 / 256 and zero point 0, a kernel of integers takes its place. On a machine
with AVX2 alone vectors have 8 lanes: sums are added in another order there, and a few codes in 10**6 differ.
Sources: aten/src/ATen/native/cpu/SoftMaxKernel.cpp, aten/src/ATen/native/quantized/cpu/qsoftmax.cpp, SLEEF's
xexpf and xlogf (1.0 ulp), glibc's e_expf.c; qnnpack/src/softargmax.c, u8lut32norm/scalar.c.
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
_GLIBC = (0.05550361559341535, 0.2402284522445722, 0.6931471806916203)  # of 2**r, the highest power first
_SLEEF_LOG = (0.3027294874, 0.3996108174, 0.6666694880)
_LN2 = (F32(0.69314718246459960938), F32(-1.904654323148236017e-09))  # their sum is ln 2


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


def log_vector(x: Floats) -> Floats:
    """Returns log(x) of x >= 1 as SLEEF's AVX-512 code computes it: pairs of float32 numbers stand for their sum.

    x = 2**e m with m in [0.75, 1.5); log(m) = 2 q + q**3 t with q = (m - 1) / (m + 1) and t a polynomial of q**2.
    """
    bits = (x * F32(1 / 0.75)).astype(F32).view(np.int32)
    exponent = (bits >> 23) - 127
    m = (x.view(np.int32) - (exponent << 23)).view(F32)
    e = exponent.astype(F32)
    high = _LN2[0] * e
    low = fma_f32(_LN2[1], e, fma_f32(_LN2[0], e, -high))
    (above, above_rest), (below, below_rest) = _two_sum(F32(-1), m), _two_sum(F32(1), m)
    inverse = F32(1) / below
    q = above * inverse
    rest = fma_f32(-below_rest, inverse, fma_f32(-below, inverse, np.ones_like(m)))
    q_rest = fma_f32(q, rest, fma_f32(above_rest, inverse, fma_f32(inverse, above, -q)))
    square = q * q
    polynomial = np.full_like(square, F32(_SLEEF_LOG[0]))
    for coefficient in _SLEEF_LOG[1:]:
        polynomial = fma_f32(polynomial, square, F32(coefficient))
    total = high + F32(2) * q
    total_rest = (((high - total) + F32(2) * q) + low) + F32(2) * q_rest
    small = (square * q) * polynomial
    result = total + small
    return (result + (((total - result) + small) + total_rest)).astype(F32)


def _two_sum(a: F32, b: Floats) -> tuple[Floats, Floats]:
    """Returns a + b rounded, and what rounding lost, exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


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


def softmax_f32(x: Floats, axis: int) -> Floats:
    """Returns softmax of float32 numbers in logical order.

    Along the last axis: e * (1 / sum). Along another one: e / sum, summed from first to last; of the elements after
    that axis the last n % 16 use the scalar exponential.
    """
    with np.errstate(invalid="ignore"):
        lowered = x - x.max(axis, keepdims=True)
    if axis == x.ndim - 1:
        terms = exp_vector(lowered)
        return terms * (F32(1) / sum_last_axis(terms))
    terms = np.where(_in_vector(x.shape, axis), exp_vector(lowered), exp_scalar(lowered))
    return terms / _sum_in_order(terms, axis)


def log_softmax_f32(x: Floats, axis: int) -> Floats:
    """Returns log_softmax of float32 numbers in logical order: x - greatest - log(sum of exp(x - greatest)).

    Where PyTorch takes the scalar logarithm (glibc's, 0.82 ulp; see softmax_f32 for where), this one is correctly
    rounded.
    """
    lowered = x - x.max(axis, keepdims=True)
    if axis == x.ndim - 1:
        return lowered - log_vector(sum_last_axis(exp_vector(lowered)))
    vector = _in_vector(x.shape, axis)
    total = _sum_in_order(np.where(vector, exp_vector(lowered), exp_scalar(lowered)), axis)
    return lowered - np.where(vector, log_vector(total), np.log(total.astype(np.float64)).astype(F32))


def _in_vector(shape: tuple[int, ...], axis: int) -> npt.NDArray[np.bool_]:
    """Returns which elements after an axis PyTorch computes in vectors, in a shape that broadcasts."""
    inner = int(np.prod(shape[axis + 1 :]))
    return (np.arange(inner) < inner // LANES * LANES).reshape(shape[axis + 1 :])


def _sum_in_order(terms: Floats, axis: int) -> Floats:
    """Returns the sum along an axis, which stays, from the first element to the last."""
    return np.take(np.cumsum(terms, axis=axis, dtype=F32), [-1], axis)


def softmax(codes: Codes, source: PerTensor, axis: int, output: PerTensor) -> Codes:
    """Returns quantized::softmax of codes in logical order, for every engine but where qnnpack has its own kernel."""
    real = F32(source.scale) * (codes.astype(np.int64) - source.zero_point).astype(F32)
    return quantize_f32(softmax_f32(real, axis), output)


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
