"""Random and extreme arguments of kernels, for tests and benchmarks: codes use the whole range and some saturate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.pointwise_spec import (
    AddSpec,
    ConcatenateSpec,
    DequantizeSpec,
    FixedAddSpec,
    LookupSpec,
    MulSpec,
    QuantizeSpec,
)
from qtorch_relay.kernels.pool_spec import AvgPool2dSpec, MaxPool2dSpec
from qtorch_relay.kernels.spec import (
    AccumulatorRequantize,
    Conv2dAddSpec,
    Conv2dSpec,
    DenseSpec,
    RealRequantize,
    RequantizeParams,
)
from qtorch_relay.qparams import PerTensor, code_range


class Arguments(NamedTuple):
    """Inputs of a kernel, and what its pack and reference take after them."""

    inputs: list[npt.NDArray[Any]]
    constants: tuple[Any, ...]


def requantization(spec: Conv2dSpec | DenseSpec, rng: np.random.Generator) -> RequantizeParams:
    """Returns random parameters of the spec's kind under which codes are spread over the range."""
    channels = spec.weight_shape[0]
    low, high = code_range(spec.out_dtype)
    zero_point = int(rng.integers(low, high + 1))
    # a product of uniform codes has a standard deviation of about 74 * 74
    multiplier = (rng.uniform(0.5, 2, channels) * 60 / (74 * 74 * spec.reduction**0.5)).astype(np.float32)
    addend = rng.normal(size=channels).astype(np.float32) * np.float32(20)
    if spec.requantize == "accumulator":
        return AccumulatorRequantize(addend / multiplier, multiplier, zero_point, low, high)
    if spec.requantize == "fused":
        return AccumulatorRequantize(addend, multiplier, zero_point, low, high, 1 / multiplier)
    scale = np.float32(0.037)
    kernel_factor = (multiplier / 0.013 * scale).astype(np.float32)
    # a clamp inside the range, as a fused relu6 has
    return RealRequantize(0.013, kernel_factor, addend * scale, float(1 / scale), zero_point, low + 3, high - 5)


def matmul_arguments(spec: Conv2dSpec | DenseSpec, seed: int, extreme: bool) -> Arguments:
    """Returns arguments of a convolution or a dense layer; extreme: only the lowest and the highest codes."""
    rng = np.random.default_rng(seed)
    low, high = code_range(spec.in_dtype)
    if extreme:
        x = rng.choice([low, high], spec.in_shape).astype(spec.in_dtype)
        weight = rng.choice([-128, 127], spec.weight_shape).astype(np.int8)
        x[0], weight[0] = high, -128
        zero_point = int(rng.choice([low, high]))
    else:
        x = rng.integers(low, high + 1, spec.in_shape).astype(spec.in_dtype)
        weight = rng.integers(-128, 128, spec.weight_shape).astype(np.int8)
        zero_point = int(rng.integers(low, high + 1))
    params = requantization(spec, rng)
    bias = rng.integers(-5000, 5000, spec.weight_shape[0]).astype(np.int32) if seed % 2 else None
    return Arguments([x], (weight, zero_point, params, bias))


def _codes(shape: tuple[int, ...], dtype: str, rng: np.random.Generator, extreme: bool) -> npt.NDArray[Any]:
    low, high = code_range(dtype)
    return (rng.choice([low, high], shape) if extreme else rng.integers(low, high + 1, shape)).astype(dtype)


def _qparams(scale: float, dtype: str, rng: np.random.Generator) -> PerTensor:
    low, high = code_range(dtype)
    return PerTensor(float(scale * rng.uniform(0.7, 1.5)), int(rng.integers(low, high + 1)), dtype)


def quantize_arguments(spec: QuantizeSpec, seed: int, extreme: bool) -> Arguments:
    """Returns floats around the range of codes, ties and values that are not finite among them."""
    rng = np.random.default_rng(seed)
    qparams = PerTensor(
        2.0 ** -int(rng.integers(2, 6)), int(_codes((1,), spec.out_dtype, rng, False)[0]), spec.out_dtype
    )
    x = (rng.integers(-700, 700, spec.shape) / 2 * qparams.scale).astype(np.float32)
    if extreme:
        x = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0.3], np.float32), spec.shape)
        qparams = _qparams(0.02, spec.out_dtype, rng)
    return Arguments([x], (qparams,))


def dequantize_arguments(spec: DequantizeSpec, seed: int, extreme: bool) -> Arguments:
    """Returns codes and their parameters."""
    rng = np.random.default_rng(seed)
    return Arguments([_codes(spec.shape, spec.in_dtype, rng, extreme)], (_qparams(0.1, spec.in_dtype, rng),))


def binary_arguments(spec: AddSpec | FixedAddSpec | MulSpec, seed: int, extreme: bool) -> Arguments:
    """Returns two tensors of codes; every third time with a clamp."""
    rng = np.random.default_rng(seed)
    rhs_shape = spec.rhs_shape if isinstance(spec, MulSpec) else spec.shape
    inputs = [_codes(shape, spec.dtype, rng, extreme) for shape in (spec.shape, rhs_shape)]
    out_scale = 40.0 if isinstance(spec, MulSpec) else 0.5
    qparams = [_qparams(scale, spec.dtype, rng) for scale in (0.4, 0.6, out_scale)]
    if isinstance(spec, AddSpec) and seed % 2:
        # powers of two make ties
        scales = (0.5, 0.25, 1.0)
        qparams = [PerTensor(scale, q.zero_point, q.dtype) for scale, q in zip(scales, qparams, strict=True)]
    low, high = code_range(spec.dtype)
    clamp = (min(qparams[2].zero_point, high - 9), high - 9) if seed % 3 == 0 else (low, high)
    return Arguments(inputs, (*qparams, *clamp))


def conv2d_add_arguments(spec: Conv2dAddSpec, seed: int, extreme: bool) -> Arguments:
    """Returns arguments of a convolution and of the sum of its codes and a residual."""
    inputs, constants = matmul_arguments(spec, seed, extreme)
    (_, residual), (lhs, *add) = binary_arguments(AddSpec(spec.out_shape, spec.out_dtype), seed, extreme)
    params = constants[2]
    return Arguments([*inputs, residual], (*constants, replace(lhs, zero_point=params.zero_point), *add))


def lookup_arguments(spec: LookupSpec, seed: int, extreme: bool) -> Arguments:
    """Returns codes and a random table."""
    rng = np.random.default_rng(seed)
    return Arguments([_codes(spec.shape, spec.in_dtype, rng, extreme)], (_codes((256,), spec.out_dtype, rng, False),))


def concatenate_arguments(spec: ConcatenateSpec, seed: int, extreme: bool) -> Arguments:
    """Returns codes and random tables."""
    rng = np.random.default_rng(seed)
    inputs = [_codes(shape, spec.dtype, rng, extreme) for shape in spec.shapes]
    return Arguments(inputs, (_codes((spec.tables, 256), spec.dtype, rng, False),))


def pool_arguments(spec: MaxPool2dSpec | AvgPool2dSpec, seed: int, extreme: bool) -> Arguments:
    """Returns codes, and for averages the factor and the zero point."""
    rng = np.random.default_rng(seed)
    x = _codes(spec.in_shape, spec.dtype, rng, extreme)
    if isinstance(spec, MaxPool2dSpec):
        return Arguments([x], ())
    pixels = np.float32(spec.kernel[0] * spec.kernel[1])
    factor = pixels if spec.arithmetic == "quotient" else 1 / pixels
    factors = np.full((spec.out_h, spec.out_w), factor, np.float32)
    return Arguments([x], (factors, int(_codes((1,), spec.dtype, rng, False)[0])))


def choose_qparams_arguments(spec: ChooseQparamsSpec, seed: int, extreme: bool) -> Arguments:
    """Returns floats of any magnitude on one side of 0 or on both; extreme: tiny, equal, huge or not finite ones."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(rng.integers(-1, 2) * 3, 1, spec.shape) * 10.0 ** rng.integers(-6, 7)).astype(np.float32)
    if extreme:
        choices = ([0.0, -0.0], [1e-42, -1e-40, 0.0], [3e38, -3e38, 1.0], [np.nan, 2.0, -5.0], [np.inf, 1.0], [7e-6])
        x = rng.choice(np.array(choices[seed % len(choices)], np.float32), spec.shape)
    return Arguments([x], ())


def dynamic_quantize_arguments(spec: DynamicQuantizeSpec, seed: int, extreme: bool) -> Arguments:
    """Returns floats as quantize_arguments does, a scale from 1e-8 to 1e4 and a zero point."""
    rng = np.random.default_rng(seed)
    low, high = code_range(spec.out_dtype)
    if extreme:
        x = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0.3], np.float32), spec.shape)
        return _with_qparams(x, 10.0 ** rng.uniform(-8, 4), int(rng.choice([low, high])))
    scale = 2.0 ** -int(rng.integers(2, 6)) if seed % 2 else rng.uniform(0.01, 0.1)
    x = (rng.integers(-700, 700, spec.shape) / 2 * scale).astype(np.float32)
    return _with_qparams(x, scale, int(rng.integers(low, high + 1)))


def _with_qparams(x: npt.NDArray[np.float32], scale: float, zero_point: int) -> Arguments:
    return Arguments([x, np.array(scale, np.float32), np.array(zero_point, np.int32)], ())


def dynamic_dense_arguments(spec: DynamicDenseSpec, seed: int, extreme: bool) -> Arguments:
    """Returns codes, their parameters, weights, their scales and a bias; extreme: only the lowest and highest codes."""
    rng = np.random.default_rng(seed)
    x, weight = _codes(spec.shape, "uint8", rng, extreme), _codes(spec.weight_shape, "int8", rng, extreme)
    zero_point, scale = int(_codes((1,), "uint8", rng, extreme)[0]), 10.0 ** rng.uniform(-8, 4) if extreme else 0.02
    if extreme:
        x.reshape(-1, spec.reduction)[0], weight[0] = 255 - zero_point, -128
    factor = rng.uniform(0.001, 0.01, spec.out_features).astype(np.float32)
    # a bias of the size of the sums, so that one rounding and two differ
    addend = rng.normal(0, scale * 0.005 * 74 * 74 * spec.reduction**0.5, spec.out_features).astype(np.float32)
    inputs = [x, np.array(zero_point, np.int32), np.array(scale, np.float32)]
    return Arguments(inputs, (weight, factor, addend if seed % 3 else np.zeros_like(addend)))
