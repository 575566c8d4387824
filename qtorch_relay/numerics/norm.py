"""What PyTorch 2.13 computes on x86-64 for quantized normalizations, in numpy, to the bit: truth for the importer.

The same on every engine and for quint8 and qint8. Sums of codes are exact integers, but for large channels-last maps;
all else is float32 unless said otherwise. GCC contracts a * b + c in these files, so the sums written fma here are
fused in PyTorch too (with weights of 1e4 that cancel, the unfused forms give other codes in every one of these places).
Sources are paths in PyTorch's aten/src/ATen/native/quantized/cpu.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qtorch_relay.numerics.core import F32, Codes, Floats, fma_f32, saturate
from qtorch_relay.qparams import PerTensor

VECTOR_CODES = 32  # codes per step of vector code: one AVX2 register; AVX-512 machines run the AVX2 code of these ops
LARGE_MAP = 512  # pixels from which a channels-last group norm is computed map by map instead of group by group


def batch_norm_factors(
    weight: Floats, bias: Floats, mean: Floats, variance: Floats, eps: float, input_scale: float, output_scale: float
) -> tuple[Floats, Floats]:
    """Returns alpha and beta per channel, in steps of the output's scale.

    Source: Normalization.cpp, compute_fused_params: the quotients of the scales are float64.
    """
    inverse_deviation = (1.0 / np.sqrt(variance + F32(eps)).astype(np.float64)).astype(F32)
    alpha = ((inverse_deviation * weight).astype(np.float64) * (input_scale / output_scale)).astype(F32)
    beta = ((bias - mean * inverse_deviation * weight).astype(np.float64) / output_scale).astype(F32)
    return alpha, beta


def batch_norm(
    codes: Codes,
    source: PerTensor,
    weight: Floats,
    bias: Floats,
    mean: Floats,
    variance: Floats,
    eps: float,
    output: PerTensor,
    relu: bool = False,
) -> Codes:
    """Returns clamp(rne(fma(alpha[c], q - z, beta[c])) + zy) for codes [N, C, ...], whatever their memory format.

    Source: kernels/QuantizedOpKernels.cpp, q_batch_norm_kernel (its scalar tail is the same formula).
    """
    alpha, beta = batch_norm_factors(weight, bias, mean, variance, eps, source.scale, output.scale)
    shape = [1, -1] + [1] * (codes.ndim - 2)
    shifted = (codes.astype(np.int32) - source.zero_point).astype(F32)
    rounded = np.rint(fma_f32(alpha.reshape(shape), shifted, beta.reshape(shape)))
    low = output.zero_point if relu else None
    return saturate(rounded.astype(np.float64) + output.zero_point, output.dtype, low)


def sums(codes: Codes) -> tuple[Floats, Floats]:
    """Returns the sums of the codes of each row [M, N] and of their squares: exact, then rounded to float32."""
    wide = codes.astype(np.int64)
    return wide.sum(1).astype(F32), (wide * wide).sum(1).astype(F32)


def sums_of_large_map(codes: Codes, groups: int) -> tuple[Floats, Floats]:
    """Returns the sums over each group of codes [N, C, pixels] and of their squares, both [N * groups].

    Added up in float32, pixel by pixel for each channel, then channel by channel, as one thread of PyTorch does.
    """
    batch, channels, _ = codes.shape
    wide = codes.astype(np.int64)
    totals = []
    for terms in (wide, wide * wide):
        of_channels = np.cumsum(terms.astype(F32), axis=2, dtype=F32)[:, :, -1]
        of_groups = of_channels.reshape(batch * groups, channels // groups)
        totals.append(np.cumsum(of_groups, axis=1, dtype=F32)[:, -1])
    return totals[0], totals[1]


def moments(total: Floats, squares: Floats, count: int, source: PerTensor, eps: float) -> tuple[Floats, Floats]:
    """Returns the mean of count codes, less the zero point, and scale / sqrt(variance + eps), from their sums.

    The variance is fma(-mean, mean, sum(q * q) / N); eps is added in float64, and root and quotient are float64.
    Source: kernels/QuantizedOpKernels.cpp, quantized_normalize_kernel.
    """
    mean = total / F32(count)
    variance = np.maximum(fma_f32(-mean, mean, squares / F32(count)), F32(0))
    scale = F32(source.scale)
    deviation = np.sqrt((variance * scale * scale).astype(np.float64) + eps)
    with np.errstate(divide="ignore"):
        factor = (np.float64(scale) / deviation).astype(F32)
    return mean - F32(source.zero_point), factor


def quantize_body(real: Floats, output: PerTensor) -> Codes:
    """Returns clamp(rne(x * (1 / s)) + z): vector code adds the zero point to the rounded integer."""
    rounded = np.rint(real * (F32(1) / F32(output.scale)))
    return saturate(rounded.astype(np.float64) + output.zero_point, output.dtype)


def quantize_tail(real: Floats, output: PerTensor) -> Codes:
    """Returns clamp(rne(x * (1 / s) + z)): scalar code adds the zero point before it rounds."""
    return saturate(np.rint(real * (F32(1) / F32(output.scale)) + F32(output.zero_point)), output.dtype)


def layer_norm(codes: Codes, source: PerTensor, weight: Floats, bias: Floats, eps: float, output: PerTensor) -> Codes:
    """Returns the layer norm of each row of codes [M, N]; weight and bias [N], ones and zeros if the op has none.

    fma((q - z - mean) * factor, weight, bias); the last N % 32 elements of a row are quantized by scalar code.
    Source: kernels/QuantizedOpKernels.cpp, quantized_normalize_kernel.
    """
    mean, factor = moments(*sums(codes), codes.shape[1], source, eps)
    shifted = (codes.astype(np.int32) - source.zero_point).astype(F32)
    real = fma_f32((shifted - mean[:, None]) * factor[:, None], weight, bias)
    split = codes.shape[1] // VECTOR_CODES * VECTOR_CODES
    return np.concatenate([quantize_body(real[:, :split], output), quantize_tail(real[:, split:], output)], axis=1)


def group_norm(
    codes: Codes,
    groups: int,
    source: PerTensor,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    eps: float,
    output: PerTensor,
    channels_last: bool = False,
) -> Codes:
    """Returns the group norm (instance norm with as many groups as channels) of codes [N, C, ...].

    Contiguous: fma(q - z - mean, factor * weight[c], bias[c]), all in vector code.
    channels_last, 4 dimensions: fma(q - z, scale, fma(-scale, mean, bias[c])) with scale = factor * weight[c]; each
    pixel's last channels past a multiple of 32, of the group or in maps of LARGE_MAP pixels of all channels, are
    quantized by scalar code. Such large maps are summed in float32, and with more threads in another order.
    Source: qnormalization.cpp; kernels/QuantizedOpKernels.cpp, quantized_normalize_kernel,
    quantized_groupnorm_nhwc_kernel.
    """
    batch, channels = codes.shape[:2]
    per_group = channels // groups
    pixels = int(np.prod(codes.shape[2:]))
    large = channels_last and pixels >= LARGE_MAP
    totals = (
        sums_of_large_map(codes.reshape(batch, channels, pixels), groups)
        if large
        else sums(codes.reshape(batch * groups, -1))
    )
    mean, factor = (
        np.repeat(moment.reshape(batch, groups), per_group, axis=1)[:, :, None]
        for moment in moments(*totals, per_group * pixels, source, eps)
    )
    shifted = (codes.reshape(batch, channels, -1).astype(np.int32) - source.zero_point).astype(F32)
    scale, offset = factor * weight[:, None], bias[:, None]
    if not channels_last:
        return quantize_body(fma_f32(shifted - mean, scale, offset), output).reshape(codes.shape)
    real = fma_f32(shifted, scale, fma_f32(-scale, mean, np.broadcast_to(offset, scale.shape)))
    run = channels if large else per_group
    in_body = np.arange(channels) % run < run // VECTOR_CODES * VECTOR_CODES
    chosen = np.where(in_body[:, None], quantize_body(real, output), quantize_tail(real, output))
    return chosen.reshape(codes.shape)
