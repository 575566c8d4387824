"""What PyTorch 2.13 computes on x86-64 when it resizes quantized maps, in numpy, to the bit.

Sources: aten/src/ATen/native/UpSample.h, quantized/cpu/UpSampleNearest2d.cpp, UpSampleBilinear2d.cpp (compiled without
fused multiply-adds) and kernels/QuantizedOpKernels.cpp (with them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qtorch_relay.numerics.core import F32, Codes, Floats, body_and_tail_channels, fma_f32, saturate
from qtorch_relay.qparams import PerTensor

BILINEAR_LANES = 8  # channels at a time in channels-last memory; the rest is contracted another way


def _ratio(extent: int, outputs: int, scale: float | None) -> np.float32:
    """Returns how far apart the sources of neighbouring outputs lie."""
    return F32(1.0 / scale) if scale is not None and scale > 0 else F32(F32(extent) / F32(outputs))


def nearest_index(extent: int, outputs: int, scale: float | None, *, exact: bool) -> npt.NDArray[np.int64]:
    """Returns the source of each output; exact: the one nearest to its centre, else that of its first corner."""
    ratio, places = _ratio(extent, outputs, scale), np.arange(outputs)
    source = ((places + 0.5) * np.float64(ratio)).astype(F32) if exact else places.astype(F32) * ratio
    return np.minimum(np.floor(source).astype(np.int64), extent - 1)


@dataclass(frozen=True, eq=False)
class Between:
    """Each output lies between two sources: first and second, with weights first_weight and second_weight."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    first_weight: Floats
    second_weight: Floats


def between(extent: int, outputs: int, *, align_corners: bool, scale: float | None, fused: bool) -> Between:
    """Returns where outputs of a linear interpolation lie along one dimension.

    fused: the place is ratio * (output + 1/2) - 1/2 with one rounding, not two.
    """
    places = np.arange(outputs).astype(F32)
    if align_corners:
        ratio = F32(extent - 1) / F32(outputs - 1) if outputs > 1 else F32(0)
        source = places * ratio
    else:
        ratio = _ratio(extent, outputs, scale)
        centres = places + F32(0.5)
        moved = fma_f32(np.full(outputs, ratio), centres, F32(-0.5)) if fused else centres * ratio - F32(0.5)
        source = np.maximum(moved, F32(0))
    first = source.astype(np.int64)
    weight = source - first.astype(F32)
    return Between(first, first + (first < extent - 1), F32(1) - weight, weight)


def upsample_bilinear2d(
    codes: Codes,
    qparams: PerTensor,
    output_size: tuple[int, int],
    *,
    align_corners: bool,
    scales: tuple[float | None, float | None],
    channels_last: bool,
) -> Codes:
    """Returns aten::upsample_bilinear2d of NCHW codes q; a, b are the sources along width, c, d along height.

    t(row) = wa * q[row, a] + wb * q[row, b]; clamp(rne((wc * t(c) + wd * t(d) - z) + z)), everything float32.
    Planar: every product and sum is rounded; equal sizes are copied. Channels-last: fma(wb, q, wa * q) and likewise
    along height; for the last C % 8 channels fma(wa, q, wb * q).
    """
    if codes.shape[2:] == tuple(output_size) and not channels_last:
        return codes
    rows, columns = (
        between(extent, outputs, align_corners=align_corners, scale=scale, fused=channels_last)
        for extent, outputs, scale in zip(codes.shape[2:], output_size, scales, strict=True)
    )

    def interpolated(order: str) -> Codes:
        values = codes.astype(F32)
        top, bottom = (
            _mixed(values[:, :, row][..., columns.first], values[:, :, row][..., columns.second], columns, order)
            for row in (rows.first, rows.second)
        )
        real = _mixed(top.swapaxes(2, 3), bottom.swapaxes(2, 3), rows, order).swapaxes(2, 3)
        zero_point = F32(qparams.zero_point)
        return saturate(np.rint((real - zero_point) + zero_point), qparams.dtype)

    if not channels_last:
        return interpolated("rounded")
    return body_and_tail_channels(interpolated("second fused"), interpolated("first fused"), BILINEAR_LANES)


def _mixed(first: Floats, second: Floats, where: Between, order: str) -> Floats:
    """Returns the weighted sums along the last axis."""
    left, right = (np.broadcast_to(weight, first.shape) for weight in (where.first_weight, where.second_weight))
    if order == "rounded":
        return left * first + right * second
    if order == "first fused":
        return fma_f32(left, first, right * second)
    return fma_f32(right, second, left * first)
