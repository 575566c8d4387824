"""The int32 sums of PyTorch's convolutions, in numpy: one, two or three dimensions, transposed, saturating, with a sum.

Codes are in logical order, [N, C, spatial...]. The sums are exact integers on every engine but for fbgemm's depthwise
kernel (depthwise_sums_fbgemm); numerics/core.py has what turns them into codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.engine_constants import RealFactors
from qtorch_relay.numerics.core import F32, Codes, fma_f32, saturate
from qtorch_relay.qparams import PerTensor

Sums = npt.NDArray[np.int32]
_ALL = slice(None)


def convolution_sums(
    codes: Codes,
    weight: Codes,
    zero_point: int,
    weight_zero_point: npt.ArrayLike = 0,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Sums:
    """Returns sum (codes - zero_point) * (weight - weight_zero_point) over each window; the padding is zero_point.

    codes: [N, C, S...]; weight: [O, C / groups, K...]; weight_zero_point: one number or [O].
    """
    data = _padded(codes, padding, zero_point).astype(np.int64) - zero_point
    shifted = weight.astype(np.int64) - _along_outputs(weight_zero_point, weight.ndim)
    by_group = data.reshape(data.shape[0], groups, -1, *data.shape[2:])
    taps = shifted.reshape(groups, -1, *shifted.shape[1:])
    total = sum(
        np.einsum("ngc...,goc->ngo...", window, _at(taps, 3, tap))
        for tap, window in _windows(by_group, weight.shape[2:], stride, dilation, first=3)
    )
    array = np.asarray(total)
    return array.reshape(array.shape[0], -1, *array.shape[3:]).astype(np.int32)


def transposed_sums(
    codes: Codes,
    weight: Codes,
    zero_point: int,
    weight_zero_point: npt.ArrayLike = 0,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Sums:
    """Returns the sums of a transposed convolution: every input adds its value times the kernel to a window of outputs.

    codes: [N, C, S...]; weight: [C, O / groups, K...]; weight_zero_point: one number or [O / groups], the same for
    every group.
    """
    data = codes.astype(np.int64) - zero_point
    shifted = np.moveaxis(weight, 0, 1).astype(np.int64) - _along_outputs(weight_zero_point, weight.ndim)
    per_group = shifted.shape[0]
    by_group = data.reshape(data.shape[0], groups, -1, *data.shape[2:])
    kernel = shifted.reshape(per_group, groups, -1, *shifted.shape[2:]).swapaxes(0, 1)
    full = [
        (extent - 1) * step + gap * (size - 1) + 1 + extra
        for extent, step, gap, size, extra in zip(
            codes.shape[2:], stride, dilation, weight.shape[2:], output_padding, strict=True
        )
    ]
    result = np.zeros((data.shape[0], groups, per_group, *full), np.int64)
    for tap in product(*map(range, weight.shape[2:])):
        window = tuple(
            slice(gap * index, gap * index + (extent - 1) * step + 1, step)
            for index, gap, extent, step in zip(tap, dilation, codes.shape[2:], stride, strict=True)
        )
        share = np.einsum("ngc...,goc->ngo...", by_group, _at(kernel, 3, tap))
        _at(result, 3, window)[...] += share
    inside = tuple(slice(pad, extent - pad) for pad, extent in zip(padding, full, strict=True))
    return _at(result.reshape(data.shape[0], -1, *full), 2, inside).astype(np.int32)


def depthwise_sums_fbgemm(
    codes: Codes,
    weight: Codes,
    zero_point: int,
    stride: Sequence[int],
    padding: Sequence[int],
    weight_zero_point: npt.ArrayLike = 0,
) -> Sums:
    """Returns the sums of FBGEMM's depthwise kernel: products of raw codes, each two consecutive taps saturated to
    int16.

    codes: uint8 [N, C, S...]; weight: int8 [C or 2C, 1, K...]; taps in row-major order. The shares of the zero points
    are exact. Source: FBGEMM src/GenerateI8Depthwise.cc.
    """
    padded = _padded(codes, padding, zero_point).astype(np.int64)
    padded = np.repeat(padded, weight.shape[0] // codes.shape[1], axis=1)
    ones = (1,) * (weight.ndim - 2)
    windows = list(_windows(padded, weight.shape[2:], stride, ones, first=2))
    taps = [window * _at(weight[:, 0], 1, tap).astype(np.int64).reshape(-1, *ones) for tap, window in windows]
    last = [taps.pop()] if len(taps) % 2 else []
    pairs = [np.clip(a + b, -(2**15), 2**15 - 1) for a, b in zip(taps[::2], taps[1::2], strict=True)]
    weight_sums = weight.astype(np.int64).sum(tuple(range(1, weight.ndim))).reshape(-1, *ones)
    points = np.asarray(weight_zero_point, np.int64).reshape(-1, *ones)
    data_sums = sum(window - zero_point for _, window in windows)
    return np.asarray(sum(pairs + last) - zero_point * weight_sums - points * data_sums, np.int32)


def requantize_sum(
    acc: npt.NDArray[np.integer],
    factors: RealFactors,
    residual: Codes,
    residual_qparams: PerTensor,
    residual_factor: npt.NDArray[np.float32],
    out: PerTensor,
    relu: bool = False,
) -> Codes:
    """Returns clamp(rne(fma(residual - z, residual_factor, real) * output_factor + zero point)): onednn's conv2d_add.

    real is that of numerics.requantize_real; the residual is fused into it by one multiply-add.
    acc, residual: [N, C, H, W]. Source: qconv.cpp apply_impl; ideep attr_t::fuse_sum; oneDNN 3.12, sum post-op.
    """
    shape = (1, -1, 1, 1)
    real = acc.astype(np.int32).astype(F32) * factors.input_factor[0] * factors.kernel_factor.reshape(shape)
    real = real + factors.addend.reshape(shape)
    shifted = residual.astype(F32) - F32(residual_qparams.zero_point)
    total = fma_f32(shifted, residual_factor[0], real)
    scaled = np.rint(total * factors.output_factor[0] + F32(out.zero_point))
    return saturate(scaled, out.dtype, out.zero_point if relu else None)


def _padded(codes: Codes, padding: Sequence[int], zero_point: int) -> Codes:
    widths = [(0, 0), (0, 0), *((pad, pad) for pad in padding)]
    return np.pad(codes, widths, constant_values=zero_point)


def _windows(
    data: npt.NDArray[Any], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], *, first: int
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[Any]]]:
    """Yields each tap of a kernel, in row-major order, with what it reads; spatial dimensions begin at first."""
    spans = [extent - gap * (size - 1) for extent, size, gap in zip(data.shape[first:], kernel, dilation, strict=True)]
    for tap in product(*map(range, kernel)):
        reads = [
            slice(gap * index, gap * index + span, step)
            for index, gap, span, step in zip(tap, dilation, spans, stride, strict=True)
        ]
        yield tap, _at(data, first, reads)


def _at(array: npt.NDArray[Any], first: int, index: Sequence[Any]) -> npt.NDArray[Any]:
    """Returns array[:, ..., *index] with all of the first dimensions."""
    view: npt.NDArray[Any] = array[(_ALL,) * first + tuple(index)]
    return view


def _along_outputs(zero_point: npt.ArrayLike, rank: int) -> npt.NDArray[np.int64]:
    """Returns zero points shaped to broadcast along the first of rank dimensions."""
    return np.asarray(zero_point, np.int64).reshape(-1, *(1,) * (rank - 1))
