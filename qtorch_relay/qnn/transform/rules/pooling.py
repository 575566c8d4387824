"""Canonicalization of avg_pool2d: exact int32 window sums, then the mean with the arithmetic the call asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import cast, constant, fused_multiply_add, product, round_value, saturate, shifted
from qtorch_relay.qnn.conv import canonical_dims
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.pooling import pooled_extents
from qtorch_relay.qnn.transform.rules.common import canonicalization
from qtorch_relay.qnn.transform.rules.relay import Parameters, requantize_or_upcast, saturate_int


@canonicalization("qnn.avg_pool2d")
def avg_pool2d(operands: Operands) -> Expr:
    """Window sums of codes less the zero point, scaled and rounded; or Relay's integer average."""
    if operands.attrs["arithmetic"] == "relay":
        return _relay_avg_pool2d(operands)
    arithmetic, dtype = operands.attrs["arithmetic"], operands.dtype("data")
    zero_point = int(operands.scalar("input_zero_point"))
    of_codes = arithmetic in ("codes", "quotient")
    codes = cast(operands["data"], "int32")
    if not of_codes:
        codes = shifted(operands["data"], operands.constant("input_zero_point"), 0, 0)
    return mean_of_sums(_window_sums(operands, codes), _factor(operands), arithmetic, zero_point, dtype)


def mean_of_sums(total: Expr, factor: np.ndarray[Any, Any], arithmetic: str, zero_point: int, dtype: str) -> Expr:
    """Returns the codes of means, from integer sums and a float32 factor that broadcasts; arithmetic as in
    qnn.avg_pool2d."""
    total = cast(total, "float32")
    if arithmetic == "codes":
        return saturate(round_value(relax.op.multiply(total, constant(factor, "float32")), "TONEAREST_EVEN"), 0, dtype)
    if arithmetic == "quotient":
        return saturate(round_value(relax.op.divide(total, constant(factor, "float32")), "TONEAREST_EVEN"), 0, dtype)
    if arithmetic == "scaled":
        scaled = relax.op.multiply(total, constant(factor, "float32"))
        return saturate(round_value(scaled, "TONEAREST_EVEN"), zero_point, dtype)
    z = constant([float(zero_point)], "float32")
    if arithmetic == "fused":
        mean = fused_multiply_add((total, constant(factor, "float32")), z)
    else:
        wide = constant(factor.astype(np.float64).reshape(factor.shape or (1,)), "float64")
        mean = relax.op.add(product(total, wide), z)
    return saturate(round_value(mean, "TONEAREST_EVEN"), 0, dtype)


def _relay_avg_pool2d(operands: Operands) -> Expr:
    """Codes of the output's parameters in int32, their sums divided by the windows' counts, truncated, clamped.

    TVM 0.27's own avg_pool2d leaves out windows that Relay's has in ceil_mode, and lowers int32 to int64.
    Source: TVM 0.17, src/relay/qnn/op/avg_pool2d.cc, include/tvm/topi/nn/pooling.h.
    """
    attrs, layout = operands.attrs, operands.attrs["layout"]
    source, target = Parameters.of(operands, "input"), Parameters.of(operands, "output")
    codes = requantize_or_upcast(operands["data"], 4, source, target)
    _, channels, *extents = canonical_dims(operands.shape("data"), layout)
    outputs = pooled_extents(operands)
    widths = {"N": (0, 0), "C": (0, 0)}
    counts = []
    for axis, letter in enumerate("HW"):
        before, after = attrs["padding"][axis], attrs["padding"][axis + 2]
        stride, reach = attrs["strides"][axis], (attrs["pool_size"][axis] - 1) * attrs["dilation"][axis]
        first = np.arange(outputs[axis]) * stride - before
        # in ceil_mode the last window hangs over the padding; what it meets there is 0
        widths[letter] = (before, max(int(first[-1]) + reach + 1 - extents[axis], after))
        counts.append(_taps(first, reach, attrs["dilation"][axis], extents[axis], after, attrs["count_include_pad"]))
    flat = [width for letter in layout for width in widths[letter]]
    total = relax.op.nn.conv2d(
        relax.op.nn.pad(codes, flat) if any(flat) else codes,
        constant(np.ones((channels, 1, *attrs["pool_size"])), "int32"),
        strides=list(attrs["strides"]),
        dilation=list(attrs["dilation"]),
        groups=channels,
        data_layout=layout,
        kernel_layout="OIHW",
        out_dtype="int32",
    )
    count = np.maximum(np.multiply.outer(*counts), 1)
    count = count[None, None] if layout == "NCHW" else count[None, :, :, None]
    magnitude = relax.op.floor_divide(relax.op.abs(total), constant(count, "int32"))
    mean = relax.op.where(relax.op.less(total, constant(0, "int32")), relax.op.negative(magnitude), magnitude)
    return saturate_int(mean, operands.dtype("data"))


def _taps(
    first: np.ndarray[Any, Any], reach: int, dilation: int, extent: int, after: int, include_pad: bool
) -> np.ndarray[Any, Any]:
    """Returns how many taps of each window along one axis count: those before the end, and after the start unless
    padding counts."""
    last = np.minimum(first + reach, extent - 1 + (after if include_pad else 0))
    skipped = 0 if include_pad else np.maximum((dilation - 1 - first) // dilation, 0)
    taps: np.ndarray[Any, Any] = np.trunc((last - first - dilation * skipped) / dilation).astype(np.int64) + 1
    return taps


def _factor(operands: Operands) -> np.ndarray[Any, Any]:
    """Returns the factor shaped to broadcast over the output."""
    factor = operands.constant("factor")
    if factor.ndim < 2:
        return factor.reshape(())
    planar = operands.attrs["layout"] == "NCHW"
    return factor[None, None] if planar else factor[None, :, :, None]


def _window_sums(operands: Operands, codes: Expr) -> Expr:
    """Returns the sum of each window: a reduction if one window covers the map, else a depthwise convolution with
    ones."""
    attrs = operands.attrs
    layout = attrs["layout"]
    _, channels, height, width = canonical_dims(operands.shape("data"), layout)
    if attrs["pool_size"] == (height, width) and pooled_extents(operands) == (1, 1) and not any(attrs["padding"]):
        return relax.op.sum(codes, axis=[layout.index("H"), layout.index("W")], keepdims=True)
    ones = constant(np.ones((channels, 1, *attrs["pool_size"])), "int32")
    return relax.op.nn.conv2d(
        codes,
        ones,
        strides=list(attrs["strides"]),
        padding=list(attrs["padding"]),
        groups=channels,
        data_layout=layout,
        kernel_layout="OIHW",
        out_dtype="int32",
    )
