"""Constants of convolution and dense kernels: weights in the order the registers take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.conv2d_groups import pack_small_groups
from qtorch_relay.kernels.conv2d_plan import (
    DOT_BYTES,
    ChannelGroups,
    Conv2dPlan,
    Reduction,
    SmallGroupsReduction,
    channel_groups,
    plan_for,
    reduction_of,
)
from qtorch_relay.kernels.elementwise import pack_add
from qtorch_relay.kernels.isa import Dot, Isa
from qtorch_relay.kernels.pointwise_spec import AddSpec
from qtorch_relay.kernels.requantize import MOST_STEPS, pack_requantize
from qtorch_relay.kernels.residual import ROUNDED_STEPS, pack_raised_codes
from qtorch_relay.kernels.spec import Conv2dAddSpec, Conv2dSpec, DenseSpec, RequantizeParams

Weight = npt.NDArray[np.int8]


def pack_conv2d(
    isa: Isa,
    spec: Conv2dSpec,
    weight: Weight,
    in_zero_point: int,
    requantize: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
    most_steps: float = MOST_STEPS,
) -> list[npt.NDArray[Any]]:
    """Returns [weight s8, init s32, scales f32, codes s32] (+ factors f32 if "real"); see pack_requantize.

    weight: OIHW codes; packed [group][block][dot][vector][lane][4 bytes], zero where padded.
    init: -zero_point * sum(weight) (+ bias_s32) for each lane, the accumulators' start; the zero point is moved down by
    128 where the activations are, so that x - zero_point is the same.
    """
    plan = plan_for(isa, spec)
    lanes = lane_channels(plan, isa.LANES, isa.channel_order)
    zero_point_u8 = in_zero_point + 128 if spec.in_dtype == "int8" else in_zero_point
    zero_point = zero_point_u8 - source_shift(isa.dot_for(spec.pair_sums))
    init, bound = accumulator_start(weight.reshape(spec.out_channels, -1), zero_point, bias_s32, lanes)
    packed = pack_weight(isa, spec, plan, weight, lanes)
    return [packed, init, *pack_requantize(requantize, bound, lanes, zero_point_u8, most_steps)]


def pack_conv2d_add(
    isa: Isa,
    spec: Conv2dAddSpec,
    weight: Weight,
    in_zero_point: int,
    requantize: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None,
    *add: Any,
) -> list[npt.NDArray[Any]]:
    """Returns the constants of pack_conv2d, of pack_add and of pack_raised_codes; add: what pack_add takes."""
    constants = pack_conv2d(isa, spec, weight, in_zero_point, requantize, bias_s32, ROUNDED_STEPS)
    return [*constants, *pack_add(AddSpec(spec.out_shape, spec.out_dtype), *add), pack_raised_codes(requantize)]


def pack_weight(isa: Isa, spec: Conv2dSpec, plan: Conv2dPlan, weight: Weight, lanes: npt.NDArray[np.int64]) -> Weight:
    """Returns OIHW weights in the order the registers take them; lanes: the channel of every lane, -1 for padding."""
    if isinstance(plan.reduction, SmallGroupsReduction):
        return pack_small_groups(spec, isa.dot_for(spec.pair_sums), weight)
    dots = weight_dots(_merge_groups(spec, plan.groups, weight), plan.reduction)
    by_lane = np.zeros((lanes.size, *dots.shape[1:]), dtype=np.int8)
    by_lane[lanes >= 0] = dots[lanes[lanes >= 0]]
    by_group = by_lane.reshape(plan.groups.count, -1, *dots.shape[1:])
    full = plan.blocks * plan.vectors * isa.LANES
    packed = []
    flat = _by_pairs if plan.in_pairs else _by_block
    for group in by_group:
        packed += [flat(block, plan.vectors) for block in np.split(group[:full], plan.blocks or 1)]
        packed += [flat(group[full:], plan.rest_vectors)] if plan.rest_vectors else []
    if plan.in_pairs:
        return np.concatenate(packed)
    return isa.dot_for(spec.pair_sums).arrange(np.concatenate(packed).reshape(-1, isa.LANES, DOT_BYTES))


def pack_dense(
    isa: Isa,
    spec: DenseSpec,
    weight: Weight,
    in_zero_point: int,
    requantize: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
) -> list[npt.NDArray[Any]]:
    """Returns the same constants as pack_conv2d; weight [out_features, in_features]."""
    conv = spec.as_conv2d()
    return pack_conv2d(isa, conv, weight.reshape(conv.weight_shape), in_zero_point, requantize, bias_s32)


def lane_channels(
    plan: Conv2dPlan, vector_lanes: int, order_of: Callable[[int], npt.NDArray[np.int64]]
) -> npt.NDArray[np.int64]:
    """Returns the output channel of every lane, [padded vectors * lanes], -1 for padding.

    order_of: returns the channel within a block that each lane of so many vectors holds.
    """
    block_channels = plan.vectors * vector_lanes
    order = [order_of(plan.vectors).ravel() + block * block_channels for block in range(plan.blocks)]
    if plan.rest_vectors:
        order.append(order_of(plan.rest_vectors).ravel() + plan.blocks * block_channels)
    lanes = np.concatenate(order)
    groups = np.arange(plan.groups.count)[:, None] * plan.groups.out_channels
    return np.where(lanes < plan.groups.out_channels, lanes + groups, -1).ravel()


def source_shift(dot: Dot) -> int:
    """Returns by how much a dot product's activations lie below u8 codes."""
    return 128 if dot.SOURCE == "int8" else 0


def accumulator_start(
    codes: Weight, zero_point: int, bias_s32: npt.NDArray[np.int32] | None, lanes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Returns (init of every lane, greatest absolute accumulator of every channel) for weights [channels, products].

    acc = sum((x - z) * w) = sum(x * w) - z * sum(w), with |x - z| <= 255; x and z as the dot products take them.
    """
    wide = codes.astype(np.int64)
    start = -zero_point * wide.sum(axis=1)
    bound = 255 * np.abs(wide).sum(axis=1)
    if bias_s32 is not None:
        start = start + bias_s32
        bound = bound + np.abs(bias_s32.astype(np.int64))
    init = np.zeros(lanes.size, dtype=np.int32)
    # accumulators wrap modulo 2^32, so a start beyond int32 is still exact where the sum is not
    init[lanes >= 0] = start[lanes[lanes >= 0]].astype(np.int32)
    return init, bound


def weight_dots(weight: Weight, reduction: Reduction) -> Weight:
    """Returns OIHW weights as [O, dots, 4 bytes]."""
    runs = weight.transpose(0, 2, 3, 1).reshape(len(weight), reduction.rows, reduction.segments, reduction.run)
    dots = np.zeros((*runs.shape[:3], len(reduction.offsets), DOT_BYTES), dtype=np.int8)
    used = 0
    for index, offset in enumerate(reduction.offsets):
        # bytes before `used` were multiplied by an earlier dot
        start = max(offset, used)
        part = runs[..., start : offset + DOT_BYTES]
        dots[..., index, start - offset : start - offset + part.shape[-1]] = part
        used = offset + DOT_BYTES
    gathered = np.zeros((len(weight), len(reduction.gathered), DOT_BYTES), dtype=np.int8)
    for index, rows in enumerate(reduction.gathered):
        rests = runs[:, list(rows), 0, reduction.full_dots * DOT_BYTES :].reshape(len(weight), -1)
        gathered[:, index, : rests.shape[1]] = rests
    by_run = dots.reshape(len(weight), reduction.rows * reduction.segments * len(reduction.offsets), DOT_BYTES)
    return np.concatenate([by_run, gathered], axis=1)


def conv2d_dots(isa: Isa, spec: Conv2dSpec, weight: Weight) -> Weight:
    """Returns OIHW weights as [O, dots, 4 bytes] of the kernel for an instruction set."""
    groups = channel_groups(spec, isa.LANES)
    return weight_dots(_merge_groups(spec, groups, weight), reduction_of(spec, groups))


def _merge_groups(spec: Conv2dSpec, groups: ChannelGroups, weight: Weight) -> Weight:
    """Returns weights over the input channels of a merged group, zero between the groups merged."""
    if groups.merged == 1:
        return weight
    group_in, group_out = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    wide = np.zeros((spec.out_channels, groups.in_channels, *weight.shape[2:]), dtype=np.int8)
    for channel in range(spec.out_channels):
        start = channel // group_out % groups.merged * group_in
        wide[channel, start : start + group_in] = weight[channel]
    return wide


def _by_block(by_lane: Weight, vectors: int) -> Weight:
    """Returns [vectors * lanes, dot, 4] as flat [dot][vector][lane][4]."""
    return by_lane.reshape(vectors, -1, *by_lane.shape[1:]).transpose(2, 0, 1, 3).ravel()


def _by_pairs(by_lane: Weight, vectors: int) -> Weight:
    """Returns [vectors * lanes, dot, 4] as flat [two dots][vector][two channels][2][8]."""
    return by_lane.reshape(vectors, -1, 2, by_lane.shape[1] // 2, 2 * DOT_BYTES).transpose(3, 0, 1, 2, 4).ravel()
