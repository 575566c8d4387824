"""What PyTorch 2.13 computes on x86-64 for quantized pools and spatial means, in numpy, to the bit.

Continues numerics/core.py; its conventions hold here. The output has the input's quantization parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtorch_relay.engine_constants import qnnpack_mean_factor
from qtorch_relay.layout import Layout
from qtorch_relay.numerics.core import (
    F32,
    Codes,
    Floats,
    body_and_tail_channels,
    dequantize_f32,
    fma_f32,
    quantize_f32,
    saturate,
)
from qtorch_relay.numerics.sum import sum_f32
from qtorch_relay.numerics.windows import Windows, adaptive_windows, pool_windows, pooled_length
from qtorch_relay.qparams import PerTensor, code_range


@dataclass(frozen=True)
class Pool2d:
    """Attributes of aten::avg_pool2d and aten::max_pool2d, (height, width) each."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True


def _pool_windows(size: int, pool: Pool2d, axis: int) -> Windows:
    return pool_windows(size, pool.kernel[axis], pool.stride[axis], pool.padding[axis], ceil_mode=pool.ceil_mode)


def _window_sums(codes: Codes, rows: Windows, columns: Windows) -> npt.NDArray[np.int64]:
    """Returns exact sums of codes [N, C, H, W] over the windows, [N, C, rows, columns]."""
    total = np.pad(codes.astype(np.int64), ((0, 0), (0, 0), (1, 0), (1, 0))).cumsum(2).cumsum(3)
    bands = total[:, :, rows.stop] - total[:, :, rows.start]
    sums: npt.NDArray[np.int64] = bands[..., columns.stop] - bands[..., columns.start]
    return sums


def avg_pool2d(
    codes: Codes, qparams: PerTensor, pool: Pool2d, engine: str, channels_last: bool, lanes: int = 16
) -> Codes:
    """Returns aten::avg_pool2d of NCHW codes; acc is the exact sum of q - z over the pixels of a window, n their count.

    n counts padding if count_include_pad. m = 1 / n, r = 1 / (1 / m).
    channels_last: clamp(rne(acc * m) + z), but clamp(rne(acc * r + z)) for the last C % lanes channels; lanes is 16
    with AVX-512, 8 with AVX2. Otherwise clamp(rne(acc * m + z)).
    qnnpack (uint8, not ceil_mode), any layout: clamp(rne(acc * (s / (s * kh * kw))) + z); count_include_pad is
    ignored.
    Source: AveragePool2d.cpp, kernels/QuantizedOpKernels.cpp _qavg_pool_nhwc_kernel, qnnpack/src/average-pooling.c.
    """
    rows, columns = _pool_windows(codes.shape[2], pool, 0), _pool_windows(codes.shape[3], pool, 1)
    acc = _centered_sums(codes, qparams, rows, columns)
    if engine == "qnnpack" and qparams.dtype == "uint8" and not pool.ceil_mode:
        return _average_qnnpack(acc, qparams, pool.kernel[0] * pool.kernel[1])
    lengths = (axis.padded_length if pool.count_include_pad else axis.length for axis in (rows, columns))
    multiplier = F32(1) / np.multiply.outer(*lengths).astype(F32)
    zero_point = F32(qparams.zero_point)
    if not channels_last:
        return saturate(np.rint(acc * multiplier + zero_point), qparams.dtype)
    body = saturate(np.rint(acc * multiplier) + zero_point, qparams.dtype)
    tail = saturate(np.rint(acc * (F32(1) / (F32(1) / multiplier)) + zero_point), qparams.dtype)
    return body_and_tail_channels(body, tail, lanes)


def adaptive_avg_pool2d(
    codes: Codes, qparams: PerTensor, output_size: tuple[int, int], engine: str, channels_last: bool
) -> Codes:
    """Returns aten::adaptive_avg_pool2d of NCHW codes; acc and n as in avg_pool2d, r = 1 / (1 / (1 / n)).

    channels_last: clamp(rne(fma(acc, r, z))), but clamp(rne(acc * r + z)) for the last C % 8 channels.
    Otherwise rne(sum * ((1 / kh) / kw)) with the plain sum of codes.
    qnnpack (uint8, sizes divide and differ), any layout: as avg_pool2d.
    channels_last means Tensor.is_contiguous(memory_format=channels_last): true of [N, C, 1, 1] and [N, 1, H, W] too.
    Source: AdaptiveAveragePooling.cpp, kernels/QuantizedOpKernels.cpp _qadaptive_avg_pool_kernel.
    """
    size = codes.shape[2:]
    rows, columns = (adaptive_windows(length, count) for length, count in zip(size, output_size, strict=True))
    acc = _centered_sums(codes, qparams, rows, columns)
    divides = all(length % count == 0 for length, count in zip(size, output_size, strict=True))
    if engine == "qnnpack" and qparams.dtype == "uint8" and divides and size != tuple(output_size):
        return _average_qnnpack(acc, qparams, int(rows.length[0] * columns.length[0]))
    if not channels_last:
        part = np.divide.outer(F32(1) / rows.length.astype(F32), columns.length.astype(F32))
        return saturate(np.rint(_window_sums(codes, rows, columns).astype(F32) * part), qparams.dtype)
    ratio = F32(1) / (F32(1) / (F32(1) / np.multiply.outer(rows.length, columns.length).astype(F32)))
    body = saturate(np.rint(fma_f32(acc, ratio, F32(qparams.zero_point))), qparams.dtype)
    tail = saturate(np.rint(acc * ratio + F32(qparams.zero_point)), qparams.dtype)
    return body_and_tail_channels(body, tail, lanes=8)


def mean_spatial(codes: Codes, qparams: PerTensor, engine: str, contiguous: bool) -> Codes:
    """Returns aten::mean over [2, 3] of NCHW codes, [N, C].

    contiguous (NCHW): rne(float(sum) / n). Otherwise (channels-last): the dequantized pixels are added in float32 in
    the order of PyTorch's sum, divided by n and quantized with quantize_f32. qnnpack (uint8): as avg_pool2d, any
    layout.
    Source: ReduceOps.cpp, kernels/QuantizedOpKernels.cpp qmean_inner_dim_kernel, native/cpu/SumKernel.cpp.
    """
    count = codes.shape[2] * codes.shape[3]
    total = codes.astype(np.int64).sum((2, 3))
    if engine == "qnnpack" and qparams.dtype == "uint8":
        return _average_qnnpack((total - count * qparams.zero_point).astype(F32), qparams, count)
    if contiguous:
        return saturate(np.rint(total.astype(F32) / F32(count)), qparams.dtype)
    _, channels, _, width = codes.shape
    strides = (channels * count, 1, width * channels, channels)
    real = sum_f32(dequantize_f32(codes, qparams), Layout(codes.shape, strides), (2, 3))
    return quantize_f32(real / F32(count), qparams)


def _centered_sums(codes: Codes, qparams: PerTensor, rows: Windows, columns: Windows) -> Floats:
    """Returns float(sum of (q - z)) over the windows; exact, as a window has fewer than 2**24 / 255 pixels."""
    offset = qparams.zero_point * np.multiply.outer(rows.length, columns.length)
    return (_window_sums(codes, rows, columns) - offset).astype(F32)


def _average_qnnpack(acc: Floats, qparams: PerTensor, count: int) -> Codes:
    factor = qnnpack_mean_factor(qparams.scale, count)
    return saturate(np.rint(acc * factor) + F32(qparams.zero_point), qparams.dtype)


def max_pool2d(codes: Codes, pool: Pool2d) -> Codes:
    """Returns the greatest code of each window, for every engine and layout; qnnpack differs where dilation exceeds 1.

    Source: Pooling.cpp.
    """
    height, width = (
        pooled_length(
            size,
            pool.kernel[axis],
            pool.stride[axis],
            pool.padding[axis],
            dilation=pool.dilation[axis],
            ceil_mode=pool.ceil_mode,
        )
        for axis, size in enumerate(codes.shape[2:])
    )
    # ceil_mode lets the last window reach at most stride - 1 beyond the padding
    edges = [(pad, pad + stride) for pad, stride in zip(pool.padding, pool.stride, strict=True)]
    padded = np.pad(codes, ((0, 0), (0, 0), *edges), constant_values=code_range(str(codes.dtype))[0])
    greatest: Codes | None = None
    for row, column in np.ndindex(*pool.kernel):
        tap = padded[:, :, row * pool.dilation[0] :: pool.stride[0], column * pool.dilation[1] :: pool.stride[1]]
        tap = tap[:, :, :height, :width]
        greatest = tap if greatest is None else np.maximum(greatest, tap)
    return codes if greatest is None else greatest
