"""Converters of means and standard deviations.

PyTorch reduces codes where the reduced dimensions are the last ones of a contiguous tensor, and real values elsewhere.
Source: aten/src/ATen/native/quantized/cpu/ReduceOps.cpp, kernels/QuantizedOpKernels.cpp qmean_inner_dim_kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import F32, qnnpack_mean_factor
from qtorch_relay.expressions import cast, constant, product, saturate
from qtorch_relay.frontend.context import ImportContext, wrapped_axis
from qtorch_relay.frontend.ops import floating_nn
from qtorch_relay.frontend.ops.ordered_sum import emit_addends, emit_ordered_sum
from qtorch_relay.frontend.ops.window_means import Mean, Window, emit_map_mean
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qnn import quantize
from qtorch_relay.qnn.transform.rules.pooling import mean_of_sums
from qtorch_relay.qparams import code_range

_THREADS = "from 32 768 elements on PyTorch's sums of real values depend on the number of threads; ours is that of one"


@converter("aten::mean.dim", "aten::mean", lowering="sums of codes, or float sums in PyTorch's order", note=_THREADS)
def mean(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor

    The engine qnnpack has a kernel of its own for quint8 maps, if dim is written [2, 3].
    """
    value = context.any_tensor(node, "self")
    if isinstance(value, TensorValue):
        return floating_nn.mean_over(context, node, value)
    _check(context, node, value)
    axes = _axes(context, node, value)
    count = math.prod(value.shape[axis] for axis in axes)
    of_map = len(value.shape) == 4 and axes == [2, 3]
    window = Window((value.shape[2], value.shape[3]), (1, 1)) if of_map else None
    by_qnnpack = context.engine == "qnnpack" and value.qparams.dtype == "uint8" and of_map
    if window is not None and by_qnnpack and list(context.argument(node, "dim")) == [2, 3]:
        factor = qnnpack_mean_factor(value.qparams.scale, count)
        return _kept(
            context, node, emit_map_mean(context, node, value, window, Mean("scaled", factor)), axes, value.shape
        )
    if not _by_codes(context, node, value, axes):
        return _kept(context, node, _mean_of_reals(context, node, value, axes, count), axes, value.shape)
    if window is not None:
        pooled = emit_map_mean(context, node, value, window, Mean("quotient", F32(count)))
    else:
        total = context.emit(relax.op.sum(cast(value.expr, "int32"), axis=axes))
        codes = mean_of_sums(total, np.asarray(F32(count)), "quotient", value.qparams.zero_point, value.qparams.dtype)
        pooled = value.with_expr(context.emit(codes, node.scope or "mean"))
    return _kept(context, node, pooled, axes, value.shape)


def _mean_of_reals(
    context: ImportContext, node: Node, value: QuantizedValue, axes: Sequence[int], count: int
) -> QuantizedValue:
    layout = context.layout(node, "self")
    if layout is None:
        raise context.unsupported(node, "of a tensor whose memory layout is not known at import; trace the model")
    total = emit_ordered_sum(context, emit_addends(context, value), layout.copied(), axes)
    return _requantized(context, node, value, relax.op.divide(total, constant(float(count), "float32")))


@converter(
    "aten::std",
    "aten::std.dim",
    "aten::std.correction",
    lowering="float64 sums of codes or of real values",
    exact="all engines, up to float64 sums in another order",
)
def standard_deviation(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor

    As in PyTorch the result has the input's parameters, so it counts from the zero point.
    Source: kernels/QuantizedOpKernels.cpp qstd_inner_dim_kernel; aten/src/ATen/native/SharedReduceOps.h WelfordOps.
    """
    value = context.quantized(node, "self")
    _check(context, node, value)
    axes = _axes(context, node, value)
    count = math.prod(value.shape[axis] for axis in axes)
    correction = _correction(context, node)
    divisor = max(count - correction, 0.0)
    by_codes = _by_codes(context, node, value, axes)
    if not divisor:
        return _kept(context, node, _of_nothing(context, node, value, axes, count), axes, value.shape)
    wide = cast(value.expr if by_codes else emit_addends(context, value), "float64")
    wide = context.emit(wide)
    average = relax.op.divide(relax.op.sum(wide, axis=axes, keepdims=True), constant([float(count)], "float64"))
    centered = context.emit(relax.op.subtract(wide, context.emit(average)))
    squares = context.emit(relax.op.sum(relax.op.multiply(centered, centered), axis=axes))
    deviation = relax.op.sqrt(relax.op.divide(squares, constant(divisor, "float64")))
    if not by_codes:
        return _kept(context, node, _requantized(context, node, value, cast(deviation, "float32")), axes, value.shape)
    scale = F32(value.qparams.scale)
    real = cast(relax.op.multiply(deviation, constant([value.qparams.scale], "float64")), "float32")
    steps = product(real, constant([F32(1) / scale], "float64"))
    shifted = relax.op.add(steps, constant([float(value.qparams.zero_point)], "float32"))
    codes = context.emit(saturate(relax.op.round(shifted), 0, value.qparams.dtype), node.scope or "std")
    return _kept(context, node, value.with_expr(codes), axes, value.shape)


def _of_nothing(
    context: ImportContext, node: Node, value: QuantizedValue, axes: Sequence[int], count: int
) -> QuantizedValue:
    """Returns the deviation of one element where the mean takes its degree of freedom: NaN, quantized."""
    if count != 1:
        raise context.unsupported(node, f"a correction that leaves nothing of {count} elements")
    highest = constant(code_range(value.qparams.dtype)[1], value.qparams.dtype)
    shape = [extent for axis, extent in enumerate(value.shape) if axis not in axes]
    return value.with_expr(context.emit(relax.op.full(shape, highest, value.qparams.dtype), "std"))


def _correction(context: ImportContext, node: Node) -> float:
    if "unbiased" in node.args:
        return float(bool(context.argument(node, "unbiased")))
    given = context.argument(node, "correction")
    return 1.0 if given is None else float(context.number(node, "correction"))


def _requantized(context: ImportContext, node: Node, value: QuantizedValue, real: Any) -> QuantizedValue:
    qparams = value.qparams
    codes = quantize(context.emit(real), qparams.scale, qparams.zero_point, out_dtype=qparams.dtype, arithmetic="fused")
    return value.with_expr(context.emit(codes, node.scope or node.function))


def _by_codes(context: ImportContext, node: Node, value: QuantizedValue, axes: Sequence[int]) -> bool:
    """Tells whether PyTorch reduces codes: the last dimensions of a tensor that is contiguous."""
    layout = context.layout(node, "self")
    rank = len(value.shape)
    return layout is not None and layout.is_contiguous and list(axes) == list(range(rank - len(axes), rank))


def _axes(context: ImportContext, node: Node, value: QuantizedValue) -> list[int]:
    """Returns the reduced dimensions, in order; all where none is named."""
    rank = len(value.shape)
    dims = context.argument(node, "dim") if "dim" in node.args else None
    if dims is None or dims == []:
        return list(range(rank))
    return sorted(wrapped_axis(dim, rank) for dim in ([dims] if isinstance(dims, int) else dims))


def _check(context: ImportContext, node: Node, value: QuantizedValue) -> None:
    if value.qparams.dtype not in ("uint8", "int8"):
        raise context.unsupported(node, f"of {value.qparams.dtype} codes; accepted are quint8 and qint8")
    if context.argument(node, "dtype") is not None if "dtype" in node.args else False:
        raise context.unsupported(node, "with a dtype of its own, which PyTorch refuses for quantized tensors")


def _kept(
    context: ImportContext, node: Node, value: QuantizedValue, axes: Sequence[int], shape: tuple[int, ...]
) -> QuantizedValue:
    """Returns the reduced tensor with or without the reduced dimensions, as the node asks."""
    keepdim = "keepdim" in node.args and bool(context.argument(node, "keepdim"))
    wanted = [1 if axis in axes else extent for axis, extent in enumerate(shape) if keepdim or axis not in axes]
    if tuple(wanted) == value.shape:
        return value
    return value.with_expr(context.emit(relax.op.reshape(value.expr, wanted), "reduced"))
