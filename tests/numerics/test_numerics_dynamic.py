"""The formulas of dynamically quantized linear layers against PyTorch's own kernels, tolerance 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.numerics.dynamic import choose_params, dequantize_sums, quantize_dynamic

ENGINES = ("fbgemm", "onednn", "qnnpack")
F32 = np.float32


def _values(rng: np.random.Generator, number: int) -> np.ndarray:
    scale = 10.0 ** rng.uniform(-8, 4)
    x = rng.normal(0, scale, (rng.integers(1, 9), rng.integers(1, 70)))
    shaped = {0: np.abs(x), 1: -np.abs(x), 2: x + 3 * scale, 3: x * 0, 4: x * (1e-41 / scale)}
    return shaped.get(number % 8, x).astype(F32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_linear_of_any_range(engine: str, reduce_range: bool, per_channel: bool) -> None:
    rng = np.random.default_rng(0)
    for number in range(48):
        x = _values(rng, number)
        units = int(rng.integers(1, 40))
        codes = rng.integers(-128, 128, (units, x.shape[1])).astype(np.int8)
        scales = rng.uniform(1e-3, 2e-2, units)
        bias = rng.normal(0, np.abs(x).max() + 1e-6, units).astype(F32) if number % 3 else None
        real = torch.from_numpy(codes.astype(F32))
        if per_channel:
            zeros = torch.zeros(units, dtype=torch.int64)
            weight = torch.quantize_per_channel(real, torch.ones(units), zeros, 0, torch.qint8)
            weight = torch._make_per_channel_quantized_tensor(weight.int_repr(), torch.from_numpy(scales), zeros, 0)
        else:
            weight = torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), float(scales[0]), 0)
        with quantized_engine(engine):
            packed = torch.ops.quantized.linear_prepack(weight, None if bias is None else torch.from_numpy(bias))
            theirs = torch.ops.quantized.linear_dynamic(torch.from_numpy(x), packed, reduce_range).numpy()
        params = choose_params(x, engine, reduce_range)
        shifted = quantize_dynamic(x, params, engine).astype(np.int64) - params.zero_point
        sums = (shifted @ codes.astype(np.int64).T).astype(np.int32)
        ours = dequantize_sums(sums, params, scales if per_channel else scales[0], bias, engine)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("engine", ENGINES)
def test_codes_of_values_near_ties(engine: str) -> None:
    rng = np.random.default_rng(1)
    features = 64
    with quantized_engine(engine):
        identity = torch._make_per_tensor_quantized_tensor(torch.eye(features, dtype=torch.int8), 1.0, 0)
        packed = torch.ops.quantized.linear_prepack(identity, torch.zeros(features))
        for number in range(60):
            low, high = -F32(10.0 ** rng.uniform(-6, 4)), F32(10.0 ** rng.uniform(-6, 4))
            params = choose_params(np.array([low, high]), engine, number % 2 == 1)
            ties = ((rng.integers(-260, 260, 16 * features - 2) + 0.5) * np.float64(params.scale)).astype(F32)
            moved = np.nextafter(ties, F32(np.inf) * rng.choice([-1, 1], ties.size).astype(F32))
            x = np.clip(np.where(rng.random(ties.size) < 0.5, ties, moved), low, high)
            x = np.concatenate([[low, high], x]).astype(F32).reshape(-1, features)
            y = torch.ops.quantized.linear_dynamic(torch.from_numpy(x), packed, number % 2 == 1).numpy()
            theirs = np.rint(y / params.scale) + params.zero_point
            np.testing.assert_array_equal(quantize_dynamic(x, params, engine), theirs)
