"""Converters of average pools, of fixed windows and adaptive ones, along one to three dimensions.

Source of all: PyTorch quantized/cpu/AveragePool2d.cpp, AveragePool3d.cpp, AdaptiveAveragePooling.cpp and
kernels/QuantizedOpKernels.cpp, measured to the bit in tests/numerics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import F32, qnnpack_mean_factor
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops import floating_nn
from qtorch_relay.frontend.ops.moves import reshaped
from qtorch_relay.frontend.ops.window_means import (
    Mean,
    Window,
    as_map,
    by_lanes,
    emit_map_mean,
    emit_window_mean,
    over,
)
from qtorch_relay.frontend.registry import CODES_EXACT, converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.layout import Layout
from qtorch_relay.numerics.windows import Windows, adaptive_windows, pool_windows

# PyTorch's vector kernels take this many channels at a time (AVX-512 build); the rest goes through scalar code.
AVG_POOL_LANES = 16
ADAPTIVE_POOL_LANES = 8

_IGNORED = (
    "PyTorch's qnnpack kernel of quint8 ignores count_include_pad=False and divisor_override: padding always counts; "
    "ours gives the same codes"
)
_TAIL = (
    "the channels past a multiple of the vector width round once more in PyTorch, in channels-last memory; so ours do"
)


@converter(
    "aten::avg_pool2d",
    lowering="qnn.avg_pool2d, or avg_pool2d of floats",
    exact=CODES_EXACT,
    note=f"{_TAIL}; {_IGNORED}",
)
def average_pool2d(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, bool
    count_include_pad=True, int? divisor_override=None) -> Tensor

    Shapes: self [N, C, H, W], or [C, H, W], which the engine qnnpack refuses for quint8 without ceil_mode.
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_nn.average_pool2d(context, node, value)
    pooled = _average_map(context, node, value, context.layout(node, "self"), rank=2)
    return _reshaped(context, pooled, (*value.shape[:-2], *pooled.shape[-2:]))


@converter("aten::avg_pool1d", lowering="qnn.avg_pool2d of a map of height 1", note=f"{_TAIL}; {_IGNORED}")
def average_pool1d(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, bool ceil_mode=False, bool
    count_include_pad=True) -> Tensor

    PyTorch gives the tensor a height of 1 and calls avg_pool2d.
    """
    value = context.quantized(node, "self")
    layout = context.layout(node, "self")
    high = _reshaped(context, value, (*value.shape[:-1], 1, value.shape[-1]))
    lying = None if layout is None else layout.unsqueezed(len(value.shape) - 1)
    pooled = _average_map(context, node, high, lying, rank=1)
    return _reshaped(context, pooled, (*value.shape[:-1], pooled.shape[-1]))


def _average_map(
    context: ImportContext, node: Node, value: QuantizedValue, layout: Layout | None, *, rank: int
) -> QuantizedValue:
    """Returns the pool over the last two dimensions, of a batch of maps; rank is that of the node's window."""
    if context.engine == "qnnpack" and _is_qnnpack(context, node, value) and len(value.shape) != 4:
        raise context.unsupported(node, f"a tensor of {len(value.shape)} dimensions, which qnnpack refuses")
    _check_codes(context, node, value)
    value = as_map(context, value)
    kernel, strides, padding = _window(context, node, rank, 2)
    ceil_mode = bool(context.argument(node, "ceil_mode"))
    along = [
        pool_windows(extent, *sizes, ceil_mode=ceil_mode)
        for extent, *sizes in zip(value.shape[2:], kernel, strides, padding, strict=True)
    ]
    after = [
        max((windows.count - 1) * stride + size - before - extent, 0)
        for windows, stride, size, before, extent in zip(along, strides, kernel, padding, value.shape[2:], strict=True)
    ]
    window = Window(_pair(kernel), _pair(strides), (padding[0], padding[1], after[0], after[1]))
    if context.engine == "qnnpack" and _is_qnnpack(context, node, value):
        mean = Mean("scaled", qnnpack_mean_factor(value.qparams.scale, kernel[0] * kernel[1]))
        return emit_map_mean(context, node, value, window, mean)
    factor = F32(1) / _divisors(context, node, along).astype(F32)
    if layout is None or not layout.is_channels_last:
        return emit_map_mean(context, node, value, window, Mean("scaled_shifted", factor))
    return by_lanes(
        context,
        value,
        AVG_POOL_LANES,
        lambda part: emit_map_mean(context, node, part, window, Mean("scaled", factor)),
        lambda part: emit_map_mean(context, node, part, window, Mean("scaled_shifted", _twice_inverted(factor))),
    )


@converter("aten::avg_pool3d", lowering="sums of windows", note=_TAIL)
def average_pool3d(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::avg_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, bool ceil_mode=False, bool
    count_include_pad=True, int? divisor_override=None) -> Tensor

    One kernel for all engines and layouts, which works on a channels-last copy.
    """
    value = context.quantized(node, "self")
    _check_codes(context, node, value)
    if len(value.shape) != 5:
        raise context.unsupported(node, f"a tensor of {len(value.shape)} dimensions; PyTorch accepts 5")
    ceil_mode = bool(context.argument(node, "ceil_mode"))
    along = [
        pool_windows(extent, *sizes, ceil_mode=ceil_mode)
        for extent, *sizes in zip(value.shape[2:], *_window(context, node, 3, 3), strict=True)
    ]
    factor = F32(1) / _divisors(context, node, along).astype(F32)
    return by_lanes(
        context,
        value,
        AVG_POOL_LANES,
        lambda part: emit_window_mean(context, node, part, along, Mean("scaled", factor)),
        lambda part: emit_window_mean(context, node, part, along, Mean("scaled_shifted", _twice_inverted(factor))),
    )


@converter(
    "aten::adaptive_avg_pool2d",
    "aten::_adaptive_avg_pool2d",
    lowering="qnn.avg_pool2d, sums of windows that differ, or adaptive_avg_pool2d of floats",
    exact=CODES_EXACT,
    note=_TAIL,
)
def adaptive_avg_pool2d(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::adaptive_avg_pool2d(Tensor self, int[2] output_size) -> Tensor

    Shapes: self [N, C, H, W], or [C, H, W], which the engine qnnpack refuses where the sizes divide.
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_nn.adaptive_average_pool2d(context, node, value)
    pooled = _adaptive_map(context, node, value, context.layout(node, "self"), _sizes(context, node, value, 2))
    return _reshaped(context, pooled, (*value.shape[:-2], *pooled.shape[-2:]))


@converter("aten::adaptive_avg_pool1d", lowering="qnn.avg_pool2d, or sums of windows that differ", note=_TAIL)
def adaptive_avg_pool1d(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::adaptive_avg_pool1d(Tensor self, int[1] output_size) -> Tensor

    PyTorch gives the tensor a height of 1 and calls adaptive_avg_pool2d.
    """
    value = context.quantized(node, "self")
    layout = context.layout(node, "self")
    high = _reshaped(context, value, (*value.shape[:-1], 1, value.shape[-1]))
    lying = None if layout is None else layout.unsqueezed(len(value.shape) - 1)
    pooled = _adaptive_map(context, node, high, lying, (1, *_sizes(context, node, value, 1)))
    return _reshaped(context, pooled, (*value.shape[:-1], pooled.shape[-1]))


def _adaptive_map(
    context: ImportContext, node: Node, value: QuantizedValue, layout: Layout | None, sizes: Sequence[int]
) -> QuantizedValue:
    _check_codes(context, node, value)
    extents = value.shape[-2:]
    divides = all(extent % size == 0 for extent, size in zip(extents, sizes, strict=True))
    by_qnnpack = context.engine == "qnnpack" and value.qparams.dtype == "uint8" and divides and extents != tuple(sizes)
    if by_qnnpack and len(value.shape) != 4:
        raise context.unsupported(node, f"a tensor of {len(value.shape)} dimensions, which qnnpack refuses")
    value = as_map(context, value)
    along = [adaptive_windows(extent, size) for extent, size in zip(extents, sizes, strict=True)]

    def emit(part: QuantizedValue, arithmetic: str, factor: Any) -> QuantizedValue:
        if not divides:
            return emit_window_mean(context, node, part, along, Mean(arithmetic, factor))
        kernel = (extents[0] // sizes[0], extents[1] // sizes[1])
        return emit_map_mean(context, node, part, Window(kernel, kernel), Mean(arithmetic, factor))

    if by_qnnpack:
        count = extents[0] // sizes[0] * (extents[1] // sizes[1])
        return emit(value, "scaled", qnnpack_mean_factor(value.qparams.scale, count))
    return _adaptive(context, value, layout, along, emit)


@converter("aten::adaptive_avg_pool3d", "aten::_adaptive_avg_pool3d", lowering="sums of windows", note=_TAIL)
def adaptive_avg_pool3d(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::adaptive_avg_pool3d(Tensor self, SymInt[3] output_size) -> Tensor

    Shapes: self [N, C, D, H, W] or [C, D, H, W]. The same on every engine.
    """
    value = context.quantized(node, "self")
    _check_codes(context, node, value)
    layout = context.layout(node, "self")
    sizes = _sizes(context, node, value, 3)
    along = [adaptive_windows(extent, size) for extent, size in zip(value.shape[-3:], sizes, strict=True)]
    batched = _reshaped(context, value, (-1, *value.shape[-4:]))
    pooled = _adaptive(
        context,
        batched,
        layout,
        along,
        lambda part, arithmetic, factor: emit_window_mean(context, node, part, along, Mean(arithmetic, factor)),
    )
    return _reshaped(context, pooled, (*value.shape[:-3], *sizes))


def _adaptive(
    context: ImportContext, value: QuantizedValue, layout: Layout | None, along: Sequence[Windows], emit: Any
) -> QuantizedValue:
    """Returns an adaptive pool as PyTorch's own kernels round it: planar from the codes themselves."""
    if layout is None or not layout.is_channels_last:
        factor: npt.NDArray[np.float32] = F32(1) / along[0].length.astype(F32)
        for windows in along[1:]:
            factor = np.divide.outer(factor, windows.length.astype(F32))
        return emit(value, "codes", factor)
    ratio = _twice_inverted(F32(1) / over(*(windows.length for windows in along)).astype(F32))
    return by_lanes(
        context,
        value,
        ADAPTIVE_POOL_LANES,
        lambda part: emit(part, "fused", ratio),
        lambda part: emit(part, "scaled_shifted", ratio),
    )


def _twice_inverted(factor: Any) -> Any:
    """Returns 1 / (1 / factor): PyTorch hands 1 / factor on as a scale, and multiplies by its inverse."""
    return F32(1) / (F32(1) / factor)


def _is_qnnpack(context: ImportContext, node: Node, value: QuantizedValue) -> bool:
    return value.qparams.dtype == "uint8" and not context.argument(node, "ceil_mode")


def _check_codes(context: ImportContext, node: Node, value: QuantizedValue) -> None:
    if value.qparams.dtype not in ("uint8", "int8"):
        raise context.unsupported(node, f"the mean of {value.qparams.dtype} codes; accepted are quint8 and qint8")


def _window(
    context: ImportContext, node: Node, given: int, rank: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Returns kernel, strides and padding; a window of fewer dimensions is 1 along the first ones."""
    kernel = context.integers(node, "kernel_size") * given
    strides = context.integers(node, "stride") * given or kernel
    padding = context.integers(node, "padding") * given
    ones, zeros = (1,) * (rank - given), (0,) * (rank - given)
    return (*ones, *kernel[:given]), (*ones, *strides[:given]), (*zeros, *padding[:given])


def _divisors(context: ImportContext, node: Node, along: Sequence[Windows]) -> npt.NDArray[np.int64]:
    """Returns the divisor of each output position, or one number where they agree."""
    override = context.argument(node, "divisor_override") if "divisor_override" in node.args else None
    if override is not None:
        return np.asarray(override)
    padded = bool(context.argument(node, "count_include_pad"))
    return over(*(windows.padded_length if padded else windows.length for windows in along))


def _sizes(context: ImportContext, node: Node, value: QuantizedValue, rank: int) -> tuple[int, ...]:
    """Returns the output size, with the input's where it is None."""
    asked = context.argument(node, "output_size")
    asked = [asked] * rank if isinstance(asked, int) or asked is None else list(asked) * (1 if len(asked) > 1 else rank)
    return tuple(extent if size is None else int(size) for size, extent in zip(asked, value.shape[-rank:], strict=True))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]


def _reshaped(context: ImportContext, value: QuantizedValue, shape: Sequence[int]) -> QuantizedValue:
    shaped = reshaped(context, value, shape)
    assert isinstance(shaped, QuantizedValue)
    return shaped
