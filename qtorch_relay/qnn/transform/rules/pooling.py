"""Canonicalization of avg_pool2d: exact int32 window sums, then the mean with the arithmetic the call asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.qnn.conv import canonical_dims
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.pooling import pooled_extents
from qtorch_relay.qnn.transform.rules.common import (
    canonicalization,
    cast,
    constant,
    fused_multiply_add,
    product,
    round_value,
    saturate,
    shifted,
)
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
    """Codes of the output's parameters in int32, averaged by TVM's integer pool, which truncates, and clamped."""
    attrs = operands.attrs
    source, target = Parameters.of(operands, "input"), Parameters.of(operands, "output")
    codes = requantize_or_upcast(operands["data"], 4, source, target)
    mean = relax.op.nn.avg_pool2d(
        codes,
        attrs["pool_size"],
        attrs["strides"],
        attrs["padding"],
        attrs["dilation"],
        attrs["ceil_mode"],
        attrs["count_include_pad"],
        attrs["layout"],
    )
    return saturate_int(mean, operands.dtype("data"))


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
