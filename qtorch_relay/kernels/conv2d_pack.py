"""Constants of convolution and dense kernels: weights in the order the registers take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.conv2d_plan import DOT_BYTES, plan_conv2d
from qtorch_relay.kernels.requantize import pack_requantize
from qtorch_relay.kernels.spec import Conv2dSpec, RequantizeParams


def lane_channels(channels: int, blocks: int, vectors: int, rest_vectors: int, isa: Any) -> npt.NDArray[np.int64]:
    """Returns the output channel of every lane, [padded vectors * lanes], -1 for padding."""
    order = [isa.channel_order(vectors).ravel() + block * vectors * isa.LANES for block in range(blocks)]
    if rest_vectors:
        order.append(isa.channel_order(rest_vectors).ravel() + blocks * vectors * isa.LANES)
    lanes = np.concatenate(order)
    return np.where(lanes < channels, lanes, -1)


def pack_conv2d(
    isa: Any,
    spec: Conv2dSpec,
    weight: npt.NDArray[np.int8],
    in_zero_point: int,
    requantize: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
) -> list[npt.NDArray[Any]]:
    """Returns [weight s8, init s32, scales f32 [2, padded channels], codes s32 [4]] (+ output f32 [2] if "real").

    weight: OIHW codes; packed [block][row][segment][dot][vector][lane][4 bytes], zero where padded.
    init: -zero_point * sum(weight) (+ bias_s32) for each lane, the accumulators' start.
    """
    plan = plan_conv2d(spec, isa.LANES, isa.REGISTERS)
    lanes = lane_channels(spec.out_channels, plan.blocks, plan.vectors, plan.rest_vectors, isa)
    # [O, rows, segments, run]
    reduction = plan.reduction
    runs = weight.transpose(0, 2, 3, 1).reshape(spec.out_channels, reduction.rows, reduction.segments, reduction.run)
    dots = np.zeros((*runs.shape[:3], len(reduction.offsets), DOT_BYTES), dtype=np.int8)
    used = 0
    for index, offset in enumerate(reduction.offsets):
        # bytes before `used` were multiplied by an earlier dot
        part = runs[..., max(offset, used) : offset + DOT_BYTES]
        dots[..., index, max(offset, used) - offset :][..., : part.shape[-1]] = part
        used = offset + DOT_BYTES
    by_lane = np.zeros((lanes.size, *dots.shape[1:]), dtype=np.int8)
    by_lane[lanes >= 0] = dots[lanes[lanes >= 0]]
    full = plan.blocks * plan.vectors * isa.LANES
    packed = [_by_block(by_lane[:full], plan.blocks, plan.vectors, isa.LANES)]
    if plan.rest_vectors:
        packed.append(_by_block(by_lane[full:], 1, plan.rest_vectors, isa.LANES))

    zero_point_u8 = in_zero_point + 128 if spec.in_dtype == "int8" else in_zero_point
    codes = weight.reshape(spec.out_channels, -1).astype(np.int64)
    start = -zero_point_u8 * codes.sum(axis=1)
    bound = 255 * np.abs(codes).sum(axis=1)
    if bias_s32 is not None:
        start = start + bias_s32
        bound = bound + np.abs(bias_s32.astype(np.int64))
    init = np.zeros(lanes.size, dtype=np.int32)
    # accumulators wrap modulo 2^32, so a start beyond int32 is still exact where the sum is not
    init[lanes >= 0] = start[lanes[lanes >= 0]].astype(np.int32)
    return [
        np.concatenate(packed),
        init,
        *pack_requantize(requantize, bound, lanes, zero_point_u8),
    ]


def _by_block(by_lane: npt.NDArray[np.int8], blocks: int, vectors: int, lanes: int) -> npt.NDArray[np.int8]:
    """Returns [blocks * vectors * lanes, row, segment, dot, 4] as flat [block][row][segment][dot][vector][lane][4]."""
    shaped = by_lane.reshape(blocks, vectors, lanes, *by_lane.shape[1:])
    return shaped.transpose(0, 3, 4, 5, 1, 2, 6).ravel()
