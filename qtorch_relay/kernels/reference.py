"""What convolution and dense kernels compute, in plain numpy: the truth for their tests, tolerance 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.pointwise_spec import AddSpec, DequantizeSpec, FixedAddSpec, MulSpec, QuantizeSpec
from qtorch_relay.kernels.spec import (
    AccumulatorRequantize,
    Conv2dAddSpec,
    Conv2dSpec,
    DenseSpec,
    PairSaturatedDepthwiseSpec,
    RequantizeParams,
)
from qtorch_relay.numerics import core
from qtorch_relay.numerics.conv import depthwise_sums_fbgemm
from qtorch_relay.numerics.core import fma_f32
from qtorch_relay.numerics.dynamic import DynamicParams, choose_scale, quantize_dynamic, scale_sums
from qtorch_relay.qparams import PerTensor

Codes = npt.NDArray[Any]


def requantize(accumulator: npt.NDArray[np.int32], params: RequantizeParams, dtype: str) -> Codes:
    """Returns codes of accumulators [..., channels]; every operation rounds to f32."""
    value = accumulator.astype(np.float32)
    if isinstance(params, AccumulatorRequantize):
        if params.addend_factor is None:
            total = value + params.addend
        else:
            total = fma_f32(params.addend, params.addend_factor, value)
        rounded = np.rint(total * params.multiplier).astype(np.float64) + params.zero_point
    else:
        real = value * np.float32(params.input_factor) * params.kernel_factor + params.addend
        rounded = np.rint(real * np.float32(params.output_factor) + np.float32(params.zero_point)).astype(np.float64)
    codes: Codes = np.clip(rounded, params.low, params.high).astype(dtype)
    return codes


def conv2d_accumulator(
    spec: Conv2dSpec, x: Codes, weight: npt.NDArray[np.int8], in_zero_point: int
) -> npt.NDArray[np.int32]:
    """Returns sum((x - in_zero_point) * weight) in NHWC; x NHWC codes, weight OIHW codes."""
    top, left, bottom, right = spec.padding
    # float64 holds every partial sum exactly: they stay far below 2^53
    data = np.pad(
        x.astype(np.float64) - in_zero_point,
        ((0, 0), (top, bottom), (left, right), (0, 0)),
    )
    group_in, group_out = (
        spec.in_channels // spec.groups,
        spec.out_channels // spec.groups,
    )
    total = np.zeros((spec.groups, spec.batch * spec.out_h * spec.out_w, group_out))
    for row in range(spec.kernel_h):
        for column in range(spec.kernel_w):
            first_row, first_column = row * spec.dilation[0], column * spec.dilation[1]
            window = data[
                :,
                first_row : first_row + (spec.out_h - 1) * spec.stride[0] + 1 : spec.stride[0],
                first_column : first_column + (spec.out_w - 1) * spec.stride[1] + 1 : spec.stride[1],
            ]
            pixels = window.reshape(-1, spec.groups, group_in).transpose(1, 0, 2)
            taps = weight[:, :, row, column].reshape(spec.groups, group_out, group_in).transpose(0, 2, 1)
            total += pixels @ taps.astype(np.float64)
    return total.transpose(1, 0, 2).reshape(spec.out_shape).astype(np.int64).astype(np.int32)


def conv2d(
    spec: Conv2dSpec,
    x: Codes,
    weight: npt.NDArray[np.int8],
    in_zero_point: int,
    params: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
) -> Codes:
    """Returns the NHWC codes of a convolution."""
    accumulator = conv2d_accumulator(spec, x, weight, in_zero_point)
    if bias_s32 is not None:
        accumulator = accumulator + bias_s32
    return requantize(accumulator, params, spec.out_dtype)


def conv2d_add(
    spec: Conv2dAddSpec,
    x: Codes,
    residual: Codes,
    weight: npt.NDArray[np.int8],
    in_zero_point: int,
    params: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None,
    *add_arguments: Any,
) -> Codes:
    """Returns the sum of a convolution's codes and the residual; add_arguments: those of add."""
    codes = conv2d(spec, x, weight, in_zero_point, params, bias_s32)
    return add(AddSpec(spec.out_shape, spec.out_dtype), codes, residual, *add_arguments)


def dense(
    spec: DenseSpec,
    x: Codes,
    weight: npt.NDArray[np.int8],
    in_zero_point: int,
    params: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
) -> Codes:
    """Returns the codes [rows, out_features] of a linear layer; weight [out_features, in_features]."""
    accumulator = ((x.astype(np.float64) - in_zero_point) @ weight.astype(np.float64).T).astype(np.int64)
    if bias_s32 is not None:
        accumulator = accumulator + bias_s32
    return requantize(accumulator.astype(np.int32), params, spec.out_dtype)


def quantize(spec: QuantizeSpec, x: npt.NDArray[np.float32], qparams: PerTensor) -> Codes:
    """Returns core.quantize_f32, NHWC if the spec says so."""
    codes = core.quantize_f32(x, qparams)
    return np.ascontiguousarray(codes.transpose(0, 2, 3, 1)) if spec.channels_last else codes


def dequantize(spec: DequantizeSpec, x: Codes, qparams: PerTensor) -> Codes:
    """Returns core.dequantize_f32."""
    return core.dequantize_f32(x, qparams)


def add(
    spec: AddSpec, lhs: Codes, rhs: Codes, left: PerTensor, right: PerTensor, out: PerTensor, low: int, high: int
) -> Codes:
    """Returns core.add_f32_fma of the first vector_size codes and add_f32_scalar of the rest."""
    fused = core.add_f32_fma(lhs, left, rhs, right, out).ravel()
    scalar = core.add_f32_scalar(lhs, left, rhs, right, out).ravel()
    codes = np.where(np.arange(fused.size) < spec.vector_size, fused, scalar)
    return np.clip(codes, low, high).reshape(spec.shape)


def fixed_add(
    spec: FixedAddSpec, lhs: Codes, rhs: Codes, left: PerTensor, right: PerTensor, out: PerTensor, low: int, high: int
) -> Codes:
    """Returns core.add_fixed_point."""
    return np.clip(core.add_fixed_point(lhs, left, rhs, right, out), low, high).astype(spec.dtype)


def mul(
    spec: MulSpec, lhs: Codes, rhs: Codes, left: PerTensor, right: PerTensor, out: PerTensor, low: int, high: int
) -> Codes:
    """Returns core.mul_f32."""
    return np.clip(core.mul_f32(lhs, left, rhs, right, out), low, high).astype(spec.dtype)


def depthwise_pairs(
    spec: PairSaturatedDepthwiseSpec,
    x: Codes,
    weight: npt.NDArray[np.int8],
    in_zero_point: int,
    params: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
) -> Codes:
    """Returns the NHWC codes of a depthwise convolution with pairs of taps saturated to int16."""
    planar = x.transpose(0, 3, 1, 2)
    sums = depthwise_sums_fbgemm(planar, weight, in_zero_point, spec.stride, spec.padding[:2])
    accumulator = sums.transpose(0, 2, 3, 1)
    if bias_s32 is not None:
        accumulator = accumulator + bias_s32
    return requantize(accumulator, params, spec.out_dtype)


def choose_qparams(spec: ChooseQparamsSpec, x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns the scale and the zero point for the range of x and 0, NaN skipped."""
    low, high = np.fmin.reduce(x, None, initial=0), np.fmax.reduce(x, None, initial=0)
    wide, zero_point = choose_scale(low, high, spec.quant_min, spec.quant_max)
    with np.errstate(all="ignore"):
        narrow = np.float32(1) / np.float32(1 / wide) if spec.arithmetic == "reciprocal" else np.float32(wide)
    scale = np.asarray(wide if spec.arithmetic == "float64" else narrow)
    return scale, np.asarray(zero_point, np.int32)


def dynamic_quantize(
    spec: DynamicQuantizeSpec, x: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], zero_point: Codes
) -> Codes:
    """Returns numerics.dynamic.quantize_dynamic; NaN is the highest code, or 0 if rounded twice."""
    params = DynamicParams(np.float32(scale), int(zero_point))
    if spec.arithmetic == "fused":
        return quantize_dynamic(x, params, "fbgemm", spec.out_dtype)
    numbers = np.where(np.isnan(x), np.float32(-np.inf), x)
    return quantize_dynamic(numbers, params, "onednn", spec.out_dtype)


def dynamic_dense(
    spec: DynamicDenseSpec,
    x: Codes,
    zero_point: Codes,
    scale: npt.NDArray[np.float32],
    weight: npt.NDArray[np.int8],
    factor: npt.NDArray[np.float32],
    addend: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Returns numerics.dynamic.scale_sums of the product of codes, no less than 0 if relu."""
    sums = ((x.astype(np.float64) - int(zero_point)) @ weight.astype(np.float64).T).astype(np.int32)
    real = scale_sums(sums, np.float32(scale), factor, addend, spec.arithmetic)
    return np.maximum(real, np.float32(0)) if spec.relu else real
