"""Converters of normalizations of quantized tensors. numerics/norm.py has the arithmetic; this is it in relax ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node, TensorConstant
from qtorch_relay.expressions import cast, constant, fused_multiply_add, product, round_value, saturate, shifted
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import clamp_below_zero
from qtorch_relay.frontend.ops.arithmetic_int32 import refuse_int32
from qtorch_relay.frontend.registry import converter, converter_of
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.numerics.norm import LARGE_MAP, VECTOR_CODES, batch_norm_factors
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerTensor

_BATCH_NORM_RANKS = {"batch_norm": (2, 3, 4, 5), "batch_norm1d": (2, 3), "batch_norm2d": (4,), "batch_norm3d": (5,)}


@converter_of(
    {
        f"quantized::{name}{suffix}": (ranks, relu)
        for name, ranks in _BATCH_NORM_RANKS.items()
        for suffix, relu in (("", False), ("_relu", True))
    },
    lowering="fma with alpha and beta per channel, round",
)
def quantized_batch_norm(context: ImportContext, node: Node, form: tuple[tuple[int, ...], bool]) -> QuantizedValue:
    """quantized::batch_norm(Tensor qx, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps,
    float output_scale, int output_zero_point) -> Tensor

    PyTorch wants weight and bias. Source: aten/src/ATen/native/quantized/cpu/Normalization.cpp.
    """
    ranks, relu = form
    result = _batch_norm(context, node, "qx", ranks)
    return clamp_below_zero(context, result) if relu else result


@converter("aten::quantized_batch_norm", lowering="fma with alpha and beta per channel, round")
def aten_quantized_batch_norm(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::quantized_batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps,
    float output_scale, int output_zero_point) -> Tensor
    """
    return _batch_norm(context, node, "input", (4,))


def _batch_norm(context: ImportContext, node: Node, data: str, ranks: tuple[int, ...]) -> QuantizedValue:
    value = context.quantized(node, data)
    refuse_int32(node, value)
    rank = len(value.shape)
    if rank not in ranks:
        raise context.unsupported(node, f"an input of {rank} dimensions; accepted are {ranks}")
    output = context.output_qparams(node, value.qparams.dtype, "output_scale", "output_zero_point")
    weight, bias, mean, variance = (
        _vector(context, node, name, value.shape[1]) for name in ("weight", "bias", "mean", "var")
    )
    eps = context.number(node, "eps")
    alpha, beta = batch_norm_factors(weight, bias, mean, variance, eps, value.qparams.scale, output.scale)
    layer = node.scope or "batch_norm"
    shape = [1, -1] + [1] * (rank - 2)
    factor, addend = (
        context.param(f"{layer}_{name}", array.reshape(shape)) for name, array in (("alpha", alpha), ("beta", beta))
    )
    real = context.emit(fused_multiply_add((_real_codes(context, value), factor), addend))
    rounded = round_value(real, "TONEAREST_EVEN")
    return QuantizedValue(context.emit(saturate(rounded, output.zero_point, output.dtype), layer), output)


def _vector(context: ImportContext, node: Node, name: str, length: int) -> npt.NDArray[np.float32]:
    operand = node.args[name]
    if not isinstance(operand, TensorConstant) or operand.array.shape != (length,):
        raise context.unsupported(node, f"{name} must be a vector of the model with {length} numbers")
    return operand.array.astype(np.float32)


@converter("quantized::layer_norm", lowering="integer sums, float32 arithmetic, round")
def layer_norm(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::layer_norm(Tensor input, int[] normalized_shape, Tensor? weight, Tensor? bias, float eps,
    float output_scale, int output_zero_point) -> Tensor

    The last elements of a row, past a multiple of 32, are rounded as PyTorch's scalar code rounds them.
    Source: aten/src/ATen/native/quantized/cpu/qnormalization.cpp.
    """
    value = context.quantized(node, "input")
    refuse_int32(node, value)
    output = context.output_qparams(node, value.qparams.dtype, "output_scale", "output_zero_point")
    normalized = context.integers(node, "normalized_shape")
    if not normalized or list(value.shape[-len(normalized) :]) != normalized:
        raise context.unsupported(node, f"normalized_shape {normalized} of an input {list(value.shape)}")
    elements = int(np.prod(normalized))
    rows = value.with_expr(context.emit(relax.op.reshape(value.expr, (-1, elements))))
    mean, factor = _moments(context, node, _sums(context, rows.expr), elements, value.qparams)
    centered = relax.op.subtract(_real_codes(context, rows), mean)
    real = context.emit(relax.op.multiply(centered, factor))
    weight, bias = (_weights(context, node, name, (1, elements)) for name in ("weight", "bias"))
    if weight is not None or bias is not None:
        one, zero = constant([1.0], "float32"), constant([0.0], "float32")
        factors = (real, one if weight is None else weight)
        real = context.emit(fused_multiply_add(factors, zero if bias is None else bias))
    codes = _quantize(context, real, output, axis=1, split=elements // VECTOR_CODES * VECTOR_CODES)
    return _named(context, node, relax.op.reshape(codes, value.shape), output)


@converter(
    "quantized::group_norm",
    "quantized::instance_norm",
    lowering="integer sums, float32 arithmetic, round",
    note="PyTorch sums channels-last maps of 512 pixels or more in float32, in an order that depends on the threads: "
    "ours is that of one thread. It writes only the first N batches of channels-last groups of N elements; ours all",
)
def group_norm(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::group_norm(Tensor input, int num_groups, Tensor? weight, Tensor? bias, float eps, float output_scale,
    int output_zero_point) -> Tensor

    Without num_groups (instance_norm) each channel is a group.
    Source: aten/src/ATen/native/quantized/cpu/qnormalization.cpp; channels-last tensors have a kernel of their own.
    """
    value = context.quantized(node, "input")
    refuse_int32(node, value)
    output = context.output_qparams(node, value.qparams.dtype, "output_scale", "output_zero_point")
    if len(value.shape) < 3:
        raise context.unsupported(node, f"an input of {len(value.shape)} dimensions; accepted are 3 and more")
    batch, channels = value.shape[:2]
    groups = context.integer(node, "num_groups") if "num_groups" in node.args else channels
    if groups < 1 or channels % groups:
        raise context.unsupported(node, f"{groups} groups of {channels} channels")
    per_group, pixels = channels // groups, int(np.prod(value.shape[2:]))
    large = value.channels_last and pixels >= LARGE_MAP
    if large:
        totals = _sums_of_large_map(context, value, groups)
    else:
        totals = _sums(context, context.emit(relax.op.reshape(value.expr, (batch, groups, per_group * pixels))))
    moments = _moments(context, node, totals, per_group * pixels, value.qparams)
    mean, factor = (context.emit(relax.op.reshape(moment, (batch, groups, 1, 1))) for moment in moments)
    maps = value.with_expr(context.emit(relax.op.reshape(value.expr, (batch, groups, per_group, pixels))))
    weight, bias = (_weights(context, node, name, (1, groups, per_group, 1)) for name in ("weight", "bias"))
    scale = factor if weight is None else context.emit(relax.op.multiply(factor, weight))
    offset = constant([0.0], "float32") if bias is None else bias
    codes = _real_codes(context, maps)
    if not value.channels_last:
        centered = context.emit(relax.op.subtract(codes, mean))
        real = context.emit(fused_multiply_add((centered, scale), offset))
        quantized = _quantize(context, real, output, axis=2, split=per_group)
    else:
        shift = context.emit(fused_multiply_add((relax.op.negative(scale), mean), offset))
        real = context.emit(fused_multiply_add((codes, scale), shift))
        if large:
            real = context.emit(relax.op.reshape(real, (batch, 1, channels, pixels)))
        run = channels if large else per_group
        quantized = _quantize(context, real, output, axis=2, split=run // VECTOR_CODES * VECTOR_CODES)
    return _named(context, node, relax.op.reshape(quantized, value.shape), output)


def _real_codes(context: ImportContext, value: QuantizedValue) -> Any:
    """Returns float32(q - z), which is exact."""
    return context.emit(cast(shifted(value.expr, np.asarray(value.qparams.zero_point), 0, 0), "float32"))


def _weights(context: ImportContext, node: Node, name: str, shape: tuple[int, ...]) -> Any | None:
    """Returns an optional float32 tensor in a shape that broadcasts."""
    if node.args[name] is None:
        return None
    tensor = context.tensor(node, name)
    if tensor.dtype != "float32" or int(np.prod(tensor.shape)) != int(np.prod(shape)):
        raise context.unsupported(node, f"{name} of {tensor.dtype} {tensor.shape}; accepted is float32 {shape}")
    return context.emit(relax.op.reshape(tensor.expr, shape))


def _sums(context: ImportContext, rows: Any) -> tuple[Any, Any]:
    """Returns numerics.norm.sums along the last axis, which stays with length 1."""
    wide = "int32" if static_shape(rows)[-1] * 255**2 < 2**31 else "int64"
    codes = context.emit(cast(rows, wide))
    total, squares = (
        context.emit(cast(relax.op.sum(terms, axis=[-1], keepdims=True), "float32"))
        for terms in (codes, relax.op.multiply(codes, codes))
    )
    return total, squares


def _sums_of_large_map(context: ImportContext, value: QuantizedValue, groups: int) -> tuple[Any, Any]:
    """Returns numerics.norm.sums_of_large_map; Relax's sum over one axis adds from the first element to the last."""
    batch, channels = value.shape[:2]
    codes = context.emit(cast(relax.op.reshape(value.expr, (batch, channels, -1)), "int32"))
    totals = []
    for terms in (codes, relax.op.multiply(codes, codes)):
        of_channels = context.emit(relax.op.sum(cast(context.emit(terms), "float32"), axis=[-1]))
        of_groups = relax.op.reshape(of_channels, (batch, groups, channels // groups))
        totals.append(context.emit(relax.op.sum(context.emit(of_groups), axis=[-1])))
    return totals[0], totals[1]


def _moments(
    context: ImportContext, node: Node, totals: tuple[Any, Any], count: int, qparams: PerTensor
) -> tuple[Any, Any]:
    """Returns numerics.norm.moments."""
    eps, scale = context.number(node, "eps"), np.float32(qparams.scale)
    divisor = constant([float(count)], "float32")
    mean, mean_square = (context.emit(relax.op.divide(total, divisor)) for total in totals)
    spread = fused_multiply_add((relax.op.negative(mean), mean), mean_square)
    variance = context.emit(relax.op.maximum(spread, constant([0.0], "float32")))
    wide_scale = constant([np.float64(scale)], "float64")
    scaled = cast(product(product(variance, wide_scale), wide_scale), "float64")
    deviation = context.emit(relax.op.sqrt(relax.op.add(scaled, constant([eps], "float64"))))
    factor = context.emit(cast(relax.op.divide(wide_scale, deviation), "float32"))
    centre = relax.op.subtract(mean, constant([float(qparams.zero_point)], "float32"))
    return context.emit(centre), factor


def _quantize(context: ImportContext, real: Any, output: PerTensor, *, axis: int, split: int) -> Any:
    """Returns the codes of real values: up to split along axis by quantize_body, from there on by quantize_tail."""
    extent = static_shape(real)[axis]
    inverse = np.float32(1) / np.float32(output.scale)
    zero_point = constant([float(output.zero_point)], "float32")
    parts = []
    for begin, end in ((0, split), (split, extent)):
        if begin == end:
            continue
        part = real if end - begin == extent else context.emit(relax.op.strided_slice(real, [axis], [begin], [end]))
        if end == split:
            scaled = relax.op.multiply(part, constant(inverse, "float32"))
            codes = saturate(round_value(scaled, "TONEAREST_EVEN"), output.zero_point, output.dtype)
        else:
            moved = relax.op.add(product(part, constant([np.float64(inverse)], "float64")), zero_point)
            codes = saturate(round_value(moved, "TONEAREST_EVEN"), 0, output.dtype)
        parts.append(context.emit(codes))
    return parts[0] if len(parts) == 1 else context.emit(relax.op.concat(parts, axis=axis))


def _named(context: ImportContext, node: Node, expr: Any, output: PerTensor) -> QuantizedValue:
    return QuantizedValue(context.emit(expr, node.scope or node.function), output)
