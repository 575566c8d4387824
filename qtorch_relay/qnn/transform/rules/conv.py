"""Canonicalization of conv2d and dense: int8 products with int32 sums, zero points taken out as Relay does.

sum (qa - za)(qw - zw) = t1 - t2 - t3 + t4 with t1 = sum qa*qw, t2 = zw * sum qa, t3 = za * sum qw, t4 = za * zw *
count.
Data is padded with za first, so every output sums over the same count. PyTorch's weights have zw = 0, which leaves t1 -
t3;
|t1| <= 255 * 128 * count fits int32 for count <= 65 793, the bound that PyTorch's own kernels have.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.expressions import along, cast, constant, per_axis
from qtorch_relay.qnn.op_def import Expr, Operands, is_run_time, static_shape
from qtorch_relay.qnn.padding import pad_codes
from qtorch_relay.qnn.transform.rules.common import canonicalization, shifted_operand
from qtorch_relay.tir.pair_sums import pair_saturated_sums


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
    attrs, kernel = operands.attrs, operands["kernel"]
    names = ("strides", "dilation", "groups", "data_layout", "kernel_layout")
    geometry = {name: attrs[name] for name in names}
    total = _less_weight_sums(
        operands, pair_saturated_sums(padded, kernel, static_shape(operands.call), **geometry), zero_point
    )
    kernel_zero_point = operands.constant("kernel_zero_point")
    if not kernel_zero_point.any():
        return total
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in geometry.items()}
    ones = constant(np.ones(operands.shape("kernel")), "int32")
    data_sums = relax.op.nn.conv2d(_less(padded, zero_point), ones, padding=[0, 0, 0, 0], out_dtype="int32", **lists)
    points = per_axis(kernel_zero_point, 4, attrs["data_layout"].index("C"), "int32")
    return relax.op.subtract(total, relax.op.multiply(data_sums, points))


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
