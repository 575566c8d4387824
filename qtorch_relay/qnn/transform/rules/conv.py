"""Canonicalization of conv2d and dense: int8 products with int32 sums, zero points taken out as Relay does.

sum (qa - za)(qw - zw) = t1 - t2 - t3 + t4 with t1 = sum qa*qw, t2 = zw * sum qa, t3 = za * sum qw, t4 = za * zw *
count.
Data is padded with za first, so every output sums over the same count. PyTorch's weights have zw = 0, which leaves t1 -
t3;
|t1| <= 255 * 128 * count fits int32 for count <= 65 793, the bound that PyTorch's own kernels have.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.qnn.conv import canonical_dims
from qtorch_relay.qnn.op_def import Expr, Operands, is_run_time, static_shape
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
    input_zero_point = int(operands.scalar("input_zero_point"))
    kernel_zero_point = operands.constant("kernel_zero_point")
    data = _pad(data, attrs["padding"], attrs["data_layout"], input_zero_point)
    convolve = {
        "strides": list(attrs["strides"]),
        "padding": [0, 0, 0, 0],
        "dilation": list(attrs["dilation"]),
        "groups": attrs["groups"],
        "data_layout": attrs["data_layout"],
        "kernel_layout": attrs["kernel_layout"],
        "out_dtype": "int32",
    }
    out_axis = attrs["kernel_layout"].index("O")
    if attrs["accumulation"] == "s16_pairs":
        total = _pair_saturated_sums(operands, data)
    elif kernel_zero_point.any():
        shifted_kernel = relax.op.subtract(cast(kernel, "int32"), per_axis(kernel_zero_point, 4, out_axis, "int32"))
        shifted_data = relax.op.subtract(cast(data, "int32"), constant(input_zero_point, "int32"))
        return relax.op.nn.conv2d(shifted_data, shifted_kernel, **convolve)
    else:
        total = relax.op.nn.conv2d(data, kernel, **convolve)
    if input_zero_point == 0:
        return total
    sums = _weight_sum(kernel, out_axis, input_zero_point)
    return relax.op.subtract(total, along(sums, 4, attrs["data_layout"].index("C")))


def _pair_saturated_sums(operands: Operands, padded: Expr) -> Expr:
    """Returns depthwise sums of raw codes in which each two consecutive taps saturate to int16."""
    attrs = operands.attrs
    layout, (stride_h, stride_w) = attrs["data_layout"], attrs["strides"]
    height_axis, width_axis, channel_axis = (layout.index(letter) for letter in "HWC")
    _, in_channels, _, _ = canonical_dims(operands.shape("data"), layout)
    out_channels, _, kernel_h, kernel_w = canonical_dims(operands.shape("kernel"), attrs["kernel_layout"])
    _, _, out_h, out_w = canonical_dims(static_shape(operands.call), layout)
    data = cast(padded, "int32")
    if out_channels != in_channels:
        data = relax.op.repeat(data, out_channels // in_channels, axis=channel_axis)
    taps = []
    for row in range(kernel_h):
        for column in range(kernel_w):
            begin, end = [row, column], [row + stride_h * (out_h - 1) + 1, column + stride_w * (out_w - 1) + 1]
            window = relax.op.strided_slice(data, [height_axis, width_axis], begin, end, [stride_h, stride_w])
            taps.append(relax.op.multiply(window, _tap(operands, row, column, channel_axis)))
    pairs = []
    for index in range(0, len(taps) - 1, 2):
        pair = relax.op.add(taps[index], taps[index + 1])
        low, high = constant(-(2**15), "int32"), constant(2**15 - 1, "int32")
        pairs.append(relax.op.minimum(relax.op.maximum(pair, low), high))
    # the last of an odd number of taps fits: 255 * 128 = 32640
    return reduce(relax.op.add, pairs + taps[len(pairs) * 2 :])


def _tap(operands: Operands, row: int, column: int, channel_axis: int) -> Expr:
    """Returns the weights of one tap, int32, along the channels."""
    order = [operands.attrs["kernel_layout"].index(letter) for letter in "OIHW"]
    if is_constant(operands["kernel"]):
        weights = constant_array(operands["kernel"]).transpose(order)[:, 0, row, column]
        return per_axis(weights.astype(np.int32), 4, channel_axis, "int32")
    planar = relax.op.permute_dims(operands["kernel"], order)
    one = relax.op.strided_slice(planar, [2, 3], [row, column], [row + 1, column + 1])
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


def _pad(data: Expr, padding: tuple[int, int, int, int], layout: str, zero_point: int) -> Expr:
    if not any(padding):
        return data
    top, left, bottom, right = padding
    widths = {"N": (0, 0), "C": (0, 0), "H": (top, bottom), "W": (left, right)}
    flat = [width for letter in layout for width in widths[letter]]
    return relax.op.nn.pad(data, flat, pad_value=float(zero_point))


def _weight_sum(weight: Expr, out_axis: int, factor: int = 1) -> Expr:
    """Returns factor * sum of the weights of each output channel, folded at once where the weight is constant."""
    axes = [axis for axis in range(len(static_shape(weight))) if axis != out_axis]
    if is_constant(weight):
        sums: np.ndarray[Any, Any] = constant_array(weight).astype(np.int32).sum(axis=tuple(axes), dtype=np.int32)
        return constant(sums * np.int32(factor), "int32")
    total = relax.op.sum(cast(weight, "int32"), axis=axes)
    return total if factor == 1 else relax.op.multiply(total, constant(factor, "int32"))
