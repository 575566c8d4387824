"""Converters of pooling and of means over the spatial dimensions.

PyTorch has a kernel for each engine, op and memory layout, and they round differently; qnn.avg_pool2d names the ways.
Source of all: PyTorch quantized/cpu/AveragePool2d.cpp, AdaptiveAveragePooling.cpp, ReduceOps.cpp and
kernels/QuantizedOpKernels.cpp, measured to the bit in tests/numerics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import F32, qnnpack_mean_factor
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops import floating_nn
from qtorch_relay.frontend.ops.cascade_mean import emit_cascade_mean
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qnn import avg_pool2d

# PyTorch's vector kernels take this many channels at a time (AVX-512 build); the rest goes through scalar code.
AVG_POOL_LANES = 16
ADAPTIVE_POOL_LANES = 8


@dataclass(frozen=True)
class Window:
    """Where a pool's windows lie: kernel, strides and padding (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


@converter("aten::max_pool2d", "quantized::max_pool2d", lowering="max_pool2d of codes or floats")
def max_pool2d(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool
    ceil_mode=False) -> Tensor

    The largest code is the code of the largest value; padding never wins.
    """
    value = context.any_tensor(node, next(iter(node.args)))
    kernel = _two(context.integers(node, "kernel_size"))
    pool = relax.op.nn.max_pool2d(
        value.expr,
        pool_size=kernel,
        strides=_two(context.integers(node, "stride") or list(kernel)),
        padding=_two(context.integers(node, "padding")),
        dilation=_two(context.integers(node, "dilation")),
        ceil_mode=bool(context.argument(node, "ceil_mode")),
    )
    return value.with_expr(context.emit(pool, node.scope or "max_pool2d"))


@converter("aten::avg_pool2d", lowering="qnn.avg_pool2d, or avg_pool2d of floats")
def average_pool2d(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, bool
    count_include_pad=True, int? divisor_override=None) -> Tensor

    qnnpack always counts the padding and ignores divisor_override.
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_nn.average_pool2d(context, node, value)
    if len(value.shape) != 4:
        raise context.unsupported(node, f"a tensor of {len(value.shape)} dimensions; accepted are 4")
    kernel = _two(context.integers(node, "kernel_size"))
    strides = _two(context.integers(node, "stride") or list(kernel))
    pad_h, pad_w = _two(context.integers(node, "padding"))
    if context.argument(node, "ceil_mode"):
        raise context.unsupported(node, "ceil_mode of a quantized average; accepted is False")
    window = Window(kernel, strides, (pad_h, pad_w, pad_h, pad_w))
    if context.engine == "qnnpack" and value.qparams.dtype == "uint8":
        mean = qnnpack_mean_factor(value.qparams.scale, kernel[0] * kernel[1])
        return _emit_pool(context, node, value, window, "scaled", mean)
    divisor = _divisors(context, node, value.shape, window)
    factor = F32(1) / divisor.astype(F32)
    if not value.channels_last:
        return _emit_pool(context, node, value, window, "scaled_shifted", factor)
    return _emit_by_lanes(context, node, value, window, AVG_POOL_LANES, ("scaled", factor), F32(1) / (F32(1) / factor))


@converter("aten::adaptive_avg_pool2d", lowering="qnn.avg_pool2d, or adaptive_avg_pool2d of floats")
def adaptive_avg_pool2d(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::adaptive_avg_pool2d(Tensor self, int[2] output_size) -> Tensor

    Accepted are output sizes that divide the input's, so that all windows are alike; of floats, any.
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_nn.adaptive_average_pool2d(context, node, value)
    sizes = context.argument(node, "output_size")
    extents = value.shape[-2:]
    out_h, out_w = (extent if size is None else int(size) for size, extent in zip(_two(sizes), extents, strict=True))
    if len(value.shape) != 4 or extents[0] % out_h or extents[1] % out_w:
        raise context.unsupported(
            node, f"{value.shape} to {out_h}x{out_w}; accepted are output sizes that divide the input's"
        )
    if extents == (out_h, out_w):
        return value
    kernel = (extents[0] // out_h, extents[1] // out_w)
    window = Window(kernel, kernel)
    count = kernel[0] * kernel[1]
    if context.engine == "qnnpack" and value.qparams.dtype == "uint8":
        return _emit_pool(context, node, value, window, "scaled", qnnpack_mean_factor(value.qparams.scale, count))
    if not value.channels_last:
        return _emit_pool(context, node, value, window, "codes", (F32(1) / F32(kernel[0])) / F32(kernel[1]))
    factor = F32(1) / (F32(1) / (F32(1) / F32(count)))
    return _emit_by_lanes(context, node, value, window, ADAPTIVE_POOL_LANES, ("fused", factor), factor)


@converter("aten::mean.dim", lowering="qnn.avg_pool2d, float sums in PyTorch's order, or mean of floats")
def mean_dim(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor

    Accepted is the mean over height and width; of floats, over any dimensions.
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_nn.mean_over(context, node, value)
    dims = context.argument(node, "dim")
    if len(value.shape) != 4 or dims is None or sorted(dim % 4 for dim in dims) != [2, 3]:
        raise context.unsupported(node, f"the mean of {value.shape} over {dims}; accepted is over height and width")
    kernel = (value.shape[2], value.shape[3])
    count = kernel[0] * kernel[1]
    window = Window(kernel, kernel)
    if context.engine == "qnnpack" and value.qparams.dtype == "uint8" and list(dims) == [2, 3]:
        factor = qnnpack_mean_factor(value.qparams.scale, count)
        mean = _emit_pool(context, node, value, window, "scaled", factor)
    elif not value.channels_last:
        mean = _emit_pool(context, node, value, window, "quotient", F32(count))
    else:
        mean = emit_cascade_mean(context, value)
    if context.argument(node, "keepdim"):
        return mean
    return mean.with_expr(context.emit(relax.op.reshape(mean.expr, value.shape[:2]), "mean"))


def _two(values: Any) -> tuple[int, int]:
    """Returns height and width from a list of one or two numbers."""
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _divisors(context: ImportContext, node: Node, shape: tuple[int, ...], window: Window) -> npt.NDArray[np.int64]:
    """Returns the divisor of each output position, or one number where they agree."""
    override = context.argument(node, "divisor_override")
    if override is not None:
        return np.asarray(override)
    if context.argument(node, "count_include_pad") or not any(window.padding):
        return np.asarray(window.kernel[0] * window.kernel[1])
    counts = []
    for axis in (0, 1):
        extent, pad = shape[2 + axis], window.padding[axis]
        outputs = (extent + 2 * pad - window.kernel[axis]) // window.strides[axis] + 1
        starts = np.arange(outputs) * window.strides[axis] - pad
        counts.append(np.minimum(starts + window.kernel[axis], extent) - np.maximum(starts, 0))
    return np.multiply.outer(*counts)


def _emit_pool(
    context: ImportContext, node: Node, value: QuantizedValue, window: Window, arithmetic: str, factor: Any
) -> QuantizedValue:
    scale, zero_point = value.qparams.scale, value.qparams.zero_point
    expr = avg_pool2d(
        value.expr,
        scale,
        zero_point,
        scale,
        zero_point,
        window.kernel,
        window.strides,
        window.padding,
        arithmetic=arithmetic,
        factor=factor,
    )
    return value.with_expr(context.emit(expr, node.scope or "avg_pool2d"))


def _emit_by_lanes(
    context: ImportContext,
    node: Node,
    value: QuantizedValue,
    window: Window,
    lanes: int,
    vectorized: tuple[str, Any],
    scalar_factor: Any,
) -> QuantizedValue:
    """Emits a pool whose channels past a multiple of lanes take PyTorch's scalar way."""
    channels = value.shape[1]
    split = channels // lanes * lanes
    if split == channels:
        return _emit_pool(context, node, value, window, *vectorized)
    pieces = []
    for begin, end, arithmetic, factor in ((0, split, *vectorized), (split, channels, "scaled_shifted", scalar_factor)):
        if begin < end:
            part = context.emit(relax.op.strided_slice(value.expr, [1], [begin], [end]))
            pieces.append(_emit_pool(context, node, value.with_expr(part), window, arithmetic, factor).expr)
    joined = (
        pieces[0] if len(pieces) == 1 else context.emit(relax.op.concat(pieces, axis=1), node.scope or "avg_pool2d")
    )
    return value.with_expr(joined)
