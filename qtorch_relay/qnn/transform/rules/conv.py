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
from qtorch_relay.qnn.op_def import Expr, Operands, static_shape
from qtorch_relay.qnn.transform.rules.common import along, canonicalization, cast, constant, per_axis


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
    if kernel_zero_point.any():
        shifted_kernel = relax.op.subtract(cast(kernel, "int32"), per_axis(kernel_zero_point, 4, out_axis, "int32"))
        shifted_data = relax.op.subtract(cast(data, "int32"), constant(input_zero_point, "int32"))
        return relax.op.nn.conv2d(shifted_data, shifted_kernel, **convolve)
    total = relax.op.nn.conv2d(data, kernel, **convolve)
    if input_zero_point == 0:
        return total
    sums = _weight_sum(kernel, out_axis, input_zero_point)
    return relax.op.subtract(total, along(sums, 4, attrs["data_layout"].index("C")))


@canonicalization("qnn.dense")
def dense(operands: Operands) -> Expr:
    """One integer matmul of raw codes (or of shifted codes if a weight's zero point is not 0)."""
    data, weight = operands["data"], operands["weight"]
    input_zero_point = int(operands.scalar("input_zero_point"))
    kernel_zero_point = operands.constant("kernel_zero_point")
    if kernel_zero_point.any():
        data = relax.op.subtract(cast(data, "int32"), constant(input_zero_point, "int32"))
        weight = relax.op.subtract(cast(weight, "int32"), per_axis(kernel_zero_point, 2, 0, "int32"))
        return relax.op.matmul(data, relax.op.permute_dims(weight), out_dtype="int32")
    total = relax.op.matmul(cast(data, "int32"), cast(relax.op.permute_dims(weight), "int32"), out_dtype="int32")
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


def _weight_sum(weight: Expr, out_axis: int, input_zero_point: int) -> Expr:
    """Returns input_zero_point * sum of the weights of each output channel, folded at once where the weight is
    constant."""
    axes = [axis for axis in range(len(static_shape(weight))) if axis != out_axis]
    if is_constant(weight):
        sums: np.ndarray[Any, Any] = constant_array(weight).astype(np.int32).sum(axis=tuple(axes), dtype=np.int32)
        return constant(sums * np.int32(input_zero_point), "int32")
    total = relax.op.sum(cast(weight, "int32"), axis=axes)
    return relax.op.multiply(total, constant(input_zero_point, "int32"))
