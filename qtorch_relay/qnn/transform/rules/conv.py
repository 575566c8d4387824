"""Canonicalization of conv2d and dense: int8 products with int32 sums, zero points taken out as Relay does.

sum (qa - za)(qw - zw) = t1 - t2 - t3 + t4 with t1 = sum qa*qw, t2 = zw * sum qa, t3 = za * sum qw, t4 = za * zw *
count.
Data is padded with za first, so every output sums over the same count. PyTorch's weights have zw = 0, which leaves t1 -
t3;
|t1| <= 255 * 128 * count fits int32 for count <= 65 793, the bound that PyTorch's own kernels have.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.qnn.conv import canonical_dims
from qtorch_relay.qnn.op_def import Expr, Operands, is_run_time, static_shape
from qtorch_relay.qnn.padding import pad_codes
from qtorch_relay.qnn.transform.rules.common import (
    along,
    canonicalization,
    cast,
    constant,
    per_axis,
    shifted_operand,
)


@canonicalization("qnn.conv2d")
def conv2d(operands: Operands) -> Expr:
    """Pads with the input's zero point, then one convolution of raw codes (or of shifted codes if a weight's zero point
    is not 0)."""
    attrs = operands.attrs
    data, kernel = operands["data"], operands["kernel"]
    zero_point = operands["input_zero_point"]
    if not is_run_time(operands, "input_zero_point"):
        zero_point = int(operands.scalar("input_zero_point"))
    top, left, bottom, right = attrs["padding"]
    widths = {"N": (0, 0), "C": (0, 0), "H": (top, bottom), "W": (left, right)}
    data = pad_codes(data, [widths[letter] for letter in attrs["data_layout"]], zero_point)
    if attrs["accumulation"] == "s16_pairs":
        return _pair_saturated_sums(operands, data, zero_point)
    convolve = {
        "strides": list(attrs["strides"]),
        "padding": [0, 0, 0, 0],
        "dilation": list(attrs["dilation"]),
        "groups": attrs["groups"],
        "data_layout": attrs["data_layout"],
        "kernel_layout": attrs["kernel_layout"],
        "out_dtype": "int32",
    }
    kernel_zero_point = operands.constant("kernel_zero_point")
    if kernel_zero_point.any():
        points = per_axis(kernel_zero_point, 4, attrs["kernel_layout"].index("O"), "int32")
        shifted_kernel = relax.op.subtract(cast(kernel, "int32"), points)
        return relax.op.nn.conv2d(_less(data, zero_point), shifted_kernel, **convolve)
    return _less_weight_sums(operands, relax.op.nn.conv2d(data, kernel, **convolve), zero_point)


def _less(data: Expr, zero_point: int | Expr) -> Expr:
    """Returns int32(data) - zero_point."""
    point = constant(zero_point, "int32") if isinstance(zero_point, int) else zero_point
    return relax.op.subtract(cast(data, "int32"), point)


def _less_weight_sums(operands: Operands, total: Expr, zero_point: int | Expr) -> Expr:
    """Returns total - zero_point * the sum of each output channel's weights."""
    if isinstance(zero_point, int) and zero_point == 0:
        return total
    out_axis, channel_axis = (operands.attrs[name].index(axis) for name, axis in _OUTPUT_AXES)
    if isinstance(zero_point, int):
        return relax.op.subtract(total, along(_weight_sum(operands["kernel"], out_axis, zero_point), 4, channel_axis))
    sums = along(_weight_sum(operands["kernel"], out_axis), 4, channel_axis)
    return relax.op.subtract(total, relax.op.multiply(sums, zero_point))


_OUTPUT_AXES = (("kernel_layout", "O"), ("data_layout", "C"))


def _pair_saturated_sums(operands: Operands, padded: Expr, zero_point: int | Expr) -> Expr:
    """Returns sums in which the products of raw codes saturate to int16, each two consecutive taps together."""
    attrs = operands.attrs
    layout, groups, (stride_h, stride_w) = attrs["data_layout"], attrs["groups"], attrs["strides"]
    dilation_h, dilation_w = attrs["dilation"]
    height_axis, width_axis, channel_axis = (layout.index(letter) for letter in "HWC")
    _, in_channels, _, _ = canonical_dims(operands.shape("data"), layout)
    out_channels, depth, kernel_h, kernel_w = canonical_dims(operands.shape("kernel"), attrs["kernel_layout"])
    _, _, out_h, out_w = canonical_dims(static_shape(operands.call), layout)
    data = cast(padded, "int32")
    windows, taps = [], []
    for channel, row, column in product(range(depth), range(kernel_h), range(kernel_w)):
        begin = [channel, row * dilation_h, column * dilation_w]
        end = [in_channels, begin[1] + stride_h * (out_h - 1) + 1, begin[2] + stride_w * (out_w - 1) + 1]
        axes = [channel_axis, height_axis, width_axis]
        window = relax.op.strided_slice(data, axes, begin, end, [depth, stride_h, stride_w])
        if out_channels != groups:
            window = relax.op.repeat(window, out_channels // groups, axis=channel_axis)
        windows.append(window)
        taps.append(relax.op.multiply(window, _tap(operands, (channel, row, column), channel_axis)))
    pairs = []
    for index in range(0, len(taps) - 1, 2):
        pair = relax.op.add(taps[index], taps[index + 1])
        low, high = constant(-(2**15), "int32"), constant(2**15 - 1, "int32")
        pairs.append(relax.op.minimum(relax.op.maximum(pair, low), high))
    # the last of an odd number of taps fits: 255 * 128 = 32640
    total = _less_weight_sums(operands, reduce(relax.op.add, pairs + taps[len(pairs) * 2 :]), zero_point)
    kernel_zero_point = operands.constant("kernel_zero_point")
    if not kernel_zero_point.any():
        return total
    data_sums = reduce(relax.op.add, [_less(window, zero_point) for window in windows])
    return relax.op.subtract(total, relax.op.multiply(data_sums, per_axis(kernel_zero_point, 4, channel_axis, "int32")))


def _tap(operands: Operands, tap: tuple[int, int, int], channel_axis: int) -> Expr:
    """Returns the weights of one tap (channel of the group, row, column), int32, along the output channels."""
    order = [operands.attrs["kernel_layout"].index(letter) for letter in "OIHW"]
    if is_constant(operands["kernel"]):
        weights = constant_array(operands["kernel"]).transpose(order)[(slice(None), *tap)]
        return per_axis(weights.astype(np.int32), 4, channel_axis, "int32")
    planar = relax.op.permute_dims(operands["kernel"], order)
    one = relax.op.strided_slice(planar, [1, 2, 3], list(tap), [index + 1 for index in tap])
    return along(cast(relax.op.squeeze(one, [1, 2, 3]), "int32"), 4, channel_axis)


@canonicalization("qnn.dense")
def dense(operands: Operands) -> Expr:
    """One integer matmul of raw codes (or of shifted codes if a weight's zero point is not 0)."""
    data, weight = operands["data"], operands["weight"]
    kernel_zero_point = operands.constant("kernel_zero_point")
    if kernel_zero_point.any():
        data = shifted_operand(operands, "data", "input_zero_point", 0, 0)
        weight = relax.op.subtract(cast(weight, "int32"), per_axis(kernel_zero_point, 2, 0, "int32"))
        return relax.op.matmul(data, relax.op.permute_dims(weight), out_dtype="int32")
    total = relax.op.matmul(cast(data, "int32"), cast(relax.op.permute_dims(weight), "int32"), out_dtype="int32")
    if is_run_time(operands, "input_zero_point"):
        return relax.op.subtract(total, relax.op.multiply(_weight_sum(weight, 0), operands["input_zero_point"]))
    input_zero_point = int(operands.scalar("input_zero_point"))
    if input_zero_point == 0:
        return total
    return relax.op.subtract(total, _weight_sum(weight, 0, input_zero_point))


def _weight_sum(weight: Expr, out_axis: int, factor: int = 1) -> Expr:
    """Returns factor * sum of the weights of each output channel, folded at once where the weight is constant."""
    axes = [axis for axis in range(len(static_shape(weight))) if axis != out_axis]
    if is_constant(weight):
        sums: np.ndarray[Any, Any] = constant_array(weight).astype(np.int32).sum(axis=tuple(axes), dtype=np.int32)
        return constant(sums * np.int32(factor), "int32")
    total = relax.op.sum(cast(weight, "int32"), axis=axes)
    return total if factor == 1 else relax.op.multiply(total, constant(factor, "int32"))
