"""What PyTorch 2.13 computes on x86-64 for quantized ops, in numpy, to the bit: truth for tests, constant folding.

Codes are numpy arrays in logical order (NCHW), whatever their memory format was in PyTorch; where the format
changes the result, it is an argument. rne rounds half to even; everything is float32 unless said otherwise; a
float64 scale is rounded to float32 where PyTorch rounds it. Values beyond 2**31 steps are clamped here; x86 would
give the lowest code.

PyTorch runs most elementwise ops as vector code ("body") with scalar code for what remains of a run ("tail"), and
in some ops the two round differently: vector_mask says which elements are which. Pools are in numerics/pool.py.
Sources are paths in PyTorch's aten/src/ATen/native/quantized/cpu unless another repository is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.engine_constants import (
    AccumulatorFactors,
    RealFactors,
    fixed_point_add_factors,
    mul_multiplier,
)
from qtorch_relay.qparams import PerTensor, code_range

F32 = np.float32
Codes = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

VECTOR_RUN = 64  # codes per step of vector code: two AVX2 registers; AVX-512 machines run the AVX2 code of these ops
GRAIN_SIZE = 32768  # at::internal::GRAIN_SIZE: fewer elements than this are not shared among threads


def fma_f32(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Floats:
    """Returns a * b + c of float32 values, rounded once.

    The product of two 24-bit significands is exact in float64. Where the float64 sum is inexact it is rounded to
    odd: an even last bit is stepped towards the error term of Knuth's two-sum. A sum rounded to odd with p + 2 or
    more bits, rounded once more to p bits, equals the exact sum rounded once (Boldo and Melquiond, 2008); 53 >= 24
    + 2.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        product = np.asarray(a, F32).astype(np.float64) * np.asarray(b, F32)
        addend = np.asarray(c, F32).astype(np.float64)
        total = np.atleast_1d(product + addend)
        virtual = total - product
        error = (product - (total - virtual)) + (addend - virtual)
        bits = total.view(np.int64)
        odd = np.where((error > 0) == (total > 0), bits + 1, bits - 1)
        inexact = np.isfinite(total) & (error != 0) & (bits % 2 == 0)
        result = np.where(inexact, odd, bits).view(np.float64).astype(F32)
        return result.reshape(np.shape(product + addend))


def vector_mask(count: int, run: int | None = None, threads: int = 1) -> Mask:
    """Returns True for each of count elements, in memory order, that PyTorch computes with vector code.

    run: length of the innermost stretch that is contiguous in all operands: count for equal layouts (the default),
    C for a channels-last tensor with [N, C, 1, 1] or with a slice of channels, H * W for NCHW with [N, C, 1, 1], 1
    where operands differ in layout.
    threads: torch.get_num_threads(); from GRAIN_SIZE elements on they share the work, each with a tail of its own.
    Source: aten/src/ATen/native/cpu/Loops.h vectorized_loop, aten/src/ATen/Parallel-inl.h.
    """
    length = count if run is None else run
    if run is None and count >= GRAIN_SIZE:
        length = -(-count // min(threads, -(-count // GRAIN_SIZE)))
    index = np.arange(count)
    start = index - index % length
    stop = np.minimum(start + length, count)
    mask: Mask = index - start < (stop - start) // VECTOR_RUN * VECTOR_RUN
    return mask


def saturate(values: npt.NDArray[Any], dtype: str, low: int | None = None) -> Codes:
    """Returns rounded values as codes of dtype, clamped to [low or least, greatest]; NaN is highest."""
    least, greatest = code_range(dtype)
    wide = np.where(np.isnan(values), greatest, values)
    return np.clip(wide, least if low is None else max(least, low), greatest).astype(dtype)


def quantize_f32(x: npt.ArrayLike, qparams: PerTensor) -> Codes:
    """Returns clamp(rne(fma(x, 1 / s, z))): aten::quantize_per_tensor, for every engine, size and memory format.

    The zero point is added before rounding, so ties go to even codes, not to even multiples of the scale. NaN and
    +inf give the highest code, -inf the lowest.
    Source: FBGEMM src/QuantUtilsAvx2.cc QuantizeAvx2 (with LEGACY, the default of the release in PyTorch 2.13).
    """
    with np.errstate(invalid="ignore"):
        return saturate(np.rint(fma_f32(x, F32(1) / F32(qparams.scale), F32(qparams.zero_point))), qparams.dtype)


def quantize_f32_scalar(x: npt.ArrayLike, qparams: PerTensor) -> Codes:
    """Returns clamp(rne(x * (1 / s) + z)), two roundings: PyTorch's quantize_val, used in tails and for clamp bounds.

    Source: quantized/AffineQuantizerBase.cpp quantize_val, FBGEMM include/fbgemm/QuantUtils.h Quantize.
    """
    scaled = np.asarray(x, F32) * (F32(1) / F32(qparams.scale))
    return saturate(np.rint(scaled + F32(qparams.zero_point)), qparams.dtype)


def dequantize_f32(codes: Codes, qparams: PerTensor) -> Floats:
    """Returns s * float(q - z), rounded once. Source: FBGEMM include/fbgemm/QuantUtils.h Dequantize."""
    return F32(qparams.scale) * (codes.astype(np.int32) - qparams.zero_point).astype(F32)


def dequantize_f32_fma(codes: Codes, qparams: PerTensor) -> Floats:
    """Returns fma(s, q, s * -z): how vector code dequantizes. Source: aten/src/ATen/cpu/vec/vec256/vec256_qint.h."""
    scale = F32(qparams.scale)
    # Exact in float64, so one rounding: s * q has 24 + 8 bits, s * -z is 0 or a multiple of the last bit of s,
    # and the sum is below 2**33 of those bits.
    return (codes.astype(np.float64) * scale + np.float64(scale * F32(-qparams.zero_point))).astype(F32)


def requantize_accumulator(
    acc: npt.NDArray[np.integer], factors: AccumulatorFactors, out: PerTensor, relu: bool = False, axis: int = 1
) -> Codes:
    """Returns clamp(rne(fma(addend, addend_factor, float(acc + integer_bias)) * multiplier) + z): fbgemm and qnnpack.

    acc: exact sums of (qx - zx) * (qw - zw) with channels along axis. The zero point is added to the rounded integer.
    relu raises the lower bound to the zero point.
    fbgemm's depthwise kernel makes other sums where int16 overflows, see numerics/conv.py.
    Source: qconv.cpp, qlinear.cpp; FBGEMM src/QuantUtilsAvx2.cc; qnnpack/src/q8gemm/*sse2.c.
    """
    exact = acc.astype(np.int64)
    if factors.integer_bias is not None:
        exact = exact + _along(factors.integer_bias, axis, acc.ndim)
    addend, factor, multiplier = (
        _along(vector, axis, acc.ndim) for vector in (factors.addend, factors.addend_factor, factors.multiplier)
    )
    scaled = fma_f32(addend, factor, exact.astype(np.int32).astype(F32)) * multiplier
    return saturate(np.rint(scaled).astype(np.float64) + out.zero_point, out.dtype, _relu_low(out, relu))


def requantize_real(
    acc: npt.NDArray[np.integer], factors: RealFactors, out: PerTensor, relu: bool = False, axis: int = 1
) -> Codes:
    """Returns clamp(rne((float(acc) * input_factor * kernel_factor + addend) * output_factor + z)): onednn.

    Every operation rounds to float32, none is fused, the zero point is added before rounding. Holds for every kind of
    convolution and for linear layers. relu before or after the output factor is the same.
    Source: qconv.cpp, qlinear.cpp; ideep operators/conv.hpp, matmul.hpp; the jit and brgemm kernels of oneDNN 3.12.
    """
    kernel_factor, addend = (_along(vector, axis, acc.ndim) for vector in (factors.kernel_factor, factors.addend))
    real = acc.astype(np.int32).astype(F32) * factors.input_factor[0] * kernel_factor + addend
    return saturate(np.rint(real * factors.output_factor[0] + F32(out.zero_point)), out.dtype, _relu_low(out, relu))


def _along(vector: npt.NDArray[Any], axis: int, ndim: int) -> npt.NDArray[Any]:
    """Returns a vector shaped to broadcast along one axis of ndim axes."""
    shape = [1] * ndim
    shape[axis] = -1
    return vector.reshape(shape)


def _relu_low(out: PerTensor, relu: bool) -> int | None:
    return out.zero_point if relu else None


def add_f32_fma(
    lhs: Codes, lhs_qparams: PerTensor, rhs: Codes, rhs_qparams: PerTensor, out: PerTensor, relu: bool = False
) -> Codes:
    """Returns clamp(rne((fma(sa, qa, sa * -za) + fma(sb, qb, sb * -zb)) * (1 / sy)) + zy), the body of quantized::add.

    For fbgemm, onednn and x86, and for qnnpack where operands broadcast. relu is max(sum, 0).
    Source: kernels/QuantizedOpKernels.cpp qadd_kernel.
    """
    total = dequantize_f32_fma(lhs, lhs_qparams) + dequantize_f32_fma(rhs, rhs_qparams)
    scaled = (np.maximum(total, F32(0)) if relu else total) * (F32(1) / F32(out.scale))
    return saturate(np.rint(scaled).astype(np.float64) + out.zero_point, out.dtype)


def add_f32_scalar(
    lhs: Codes, lhs_qparams: PerTensor, rhs: Codes, rhs_qparams: PerTensor, out: PerTensor, relu: bool = False
) -> Codes:
    """Returns clamp(rne((sa * (qa - za) + sb * (qb - zb)) * (1 / sy) + zy)), the tail of quantized::add.

    Source: kernels/QuantizedOpKernels.cpp qadd_kernel.
    """
    total = dequantize_f32(lhs, lhs_qparams) + dequantize_f32(rhs, rhs_qparams)
    return quantize_f32_scalar(np.maximum(total, F32(0)) if relu else total, out)


def add_fixed_point(
    lhs: Codes, lhs_qparams: PerTensor, rhs: Codes, rhs_qparams: PerTensor, out: PerTensor, relu: bool = False
) -> Codes:
    """Returns clamp(((qa - za) * ma + (qb - zb) * mb, shifted right and rounded half away from zero) + zy): qnnpack.

    For quint8 operands of equal shapes, in any layout and size. Units: ma and mb are scale ratios times 2**shift.
    Source: qnnpack/src/q8vadd/sse2.c, qnnpack/src/qnnpack/requantization.h.
    """
    factors = fixed_point_add_factors(lhs_qparams.scale, rhs_qparams.scale, out.scale)
    acc = (lhs.astype(np.int64) - lhs_qparams.zero_point) * factors.lhs_multiplier
    acc = acc + (rhs.astype(np.int64) - rhs_qparams.zero_point) * factors.rhs_multiplier
    mask = (1 << factors.shift) - 1
    up = (acc & mask) - (acc < 0) > mask >> 1
    return saturate((acc >> factors.shift) + up + out.zero_point, out.dtype, _relu_low(out, relu))


def mul_f32(
    lhs: Codes, lhs_qparams: PerTensor, rhs: Codes, rhs_qparams: PerTensor, out: PerTensor, relu: bool = False
) -> Codes:
    """Returns clamp(rne(float((qa - za) * (qb - zb)) * ((sa * sb) * (1 / sy))) + zy): quantized::mul, every engine.

    Source: kernels/QuantizedOpKernels.cpp qmul_kernel.
    """
    multiplier = mul_multiplier(lhs_qparams.scale, rhs_qparams.scale, out.scale)
    shifted = (lhs.astype(np.int32) - lhs_qparams.zero_point) * (rhs.astype(np.int32) - rhs_qparams.zero_point)
    scaled = np.rint(shifted.astype(F32) * multiplier)
    return saturate(scaled.astype(np.float64) + out.zero_point, out.dtype, _relu_low(out, relu))


def concatenate_table(source: PerTensor, output: PerTensor, *, vectorized: bool, channels_last: bool) -> Codes:
    """Returns what quantized::cat makes of each of an input's 256 codes, least code first.

    channels_last: every input lies in channels-last memory and is joined along the channels; then the first
    channels // 8 * 8 channels of each input take the vectorized way, the rest the scalar one.
    Source: PyTorch quantized/cpu/kernels/QuantizedOpKernels.cpp qcat_nhwc_kernel, qconcat.cpp quantized_cat_impl.
    """
    low, high = code_range(source.dtype)
    codes = np.arange(low, high + 1)
    if channels_last and source == output:
        return codes.astype(source.dtype)
    scale, inverse, zero_point = F32(source.scale), F32(1) / F32(output.scale), F32(output.zero_point)
    if channels_last and vectorized:
        real = fma_f32(codes.astype(F32), scale, scale * F32(-source.zero_point))
        rounded = np.rint(real * F32(1 / output.scale)) + zero_point
    elif channels_last:
        real = scale * (codes - source.zero_point).astype(F32)
        rounded = np.rint(real * inverse + zero_point)
    else:
        real = scale * (codes - source.zero_point).astype(F32)
        rounded = np.rint(fma_f32(real, inverse, zero_point))
    return np.clip(rounded, low, high).astype(source.dtype)


def concatenate(
    inputs: Sequence[Codes],
    qparams: Sequence[PerTensor],
    out: PerTensor,
    axis: int,
    channels_last: bool,
    relu: bool = False,
) -> Codes:
    """Returns quantized::cat, cat_relu or, with the first input's parameters as out, aten::cat; every engine alike.

    channels_last: every input is 4-dimensional and channels-last contiguous. With axis 1 each input then goes through
    vector code for its first C // 8 * 8 channels: clamp(rne(fma(s, q, s * -z) * float32(1.0 / sy)) + zy), and
    scalar code for the rest: quantize_f32_scalar(s * (q - z)); codes with the output's parameters are copied.
    Otherwise floats are concatenated and quantized: quantize_f32(s * (q - z)).
    Source: TensorShape.cpp, kernels/QuantizedOpKernels.cpp qcat_nhwc_kernel.
    """
    by_channel = axis == 1 and channels_last
    pieces = []
    for codes, given in zip(inputs, qparams, strict=True):
        index = codes.astype(np.int64) - code_range(given.dtype)[0]
        body, tail = (
            concatenate_table(given, out, vectorized=vectorized, channels_last=by_channel)[index]
            for vectorized in (True, False)
        )
        pieces.append(body_and_tail_channels(body, tail, lanes=8))
    # relu before quantizing equals this clamp: quantizing is monotonic and gives 0 the zero point
    return saturate(np.concatenate(pieces, axis), out.dtype, _relu_low(out, relu))


def body_and_tail_channels(body: Codes, tail: Codes, lanes: int) -> Codes:
    """Returns body for channels below C // lanes * lanes, tail for the rest; channels along axis 1."""
    cut = body.shape[1] // lanes * lanes
    return np.concatenate([body[:, :cut], tail[:, cut:]], axis=1)


def prelu_factors(source: PerTensor, weight: PerTensor, output: PerTensor) -> tuple[int, np.float32]:
    """Returns quantized::prelu's code of 1.0 in the weight's parameters less their zero point, and its multiplier."""
    one = int(quantize_f32_scalar(1.0, weight)) - weight.zero_point
    return one, F32(source.scale) * F32(weight.scale) * (F32(1) / F32(output.scale))


def prelu(codes: Codes, source: PerTensor, weight_codes: Codes, weight: PerTensor, output: PerTensor) -> Codes:
    """Returns clamp(rne(float(max(d, 0) * one + min(d, 0) * (qw - zw)) * multiplier) + zy), d = qx - zx: every engine.

    weight_codes must broadcast to codes. Source: kernels/QuantizedOpKernels.cpp qprelu_out_kernel.
    """
    one, multiplier = prelu_factors(source, weight, output)
    difference = codes.astype(np.int32) - source.zero_point
    slope = weight_codes.astype(np.int32) - weight.zero_point
    total = np.maximum(difference, 0) * one + np.minimum(difference, 0) * slope
    return saturate(np.rint(total.astype(F32) * multiplier).astype(np.float64) + output.zero_point, output.dtype)
