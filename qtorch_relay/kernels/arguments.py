"""Random and extreme arguments of kernels, for tests and benchmarks: codes use the whole range and some saturate."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.spec import AccumulatorRequantize, Conv2dSpec, DenseSpec, RealRequantize, RequantizeParams
from qtorch_relay.qparams import code_range


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
