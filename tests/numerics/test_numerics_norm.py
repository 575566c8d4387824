"""Quantized normalizations and prelu in numpy against PyTorch: codes, tolerance 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qtorch_relay.numerics.core import prelu
from qtorch_relay.numerics.norm import LARGE_MAP, batch_norm, group_norm, layer_norm
from qtorch_relay.qparams import PerTensor, code_range

DTYPES = ("uint8", "int8")
CANCELLING = 1e4  # weights of this size, less themselves in the bias: the last bit of every step shows in the codes


def _quantized(codes: np.ndarray, qparams: PerTensor) -> torch.Tensor:
    return torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), qparams.scale, qparams.zero_point)


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, PerTensor, PerTensor]:
    """Returns codes from a random part of the range, their parameters and the output's."""
    low, high = code_range(dtype)
    first, last = sorted(rng.integers(low, high + 1, 2))
    codes = rng.integers(first, last + 1, shape).astype(dtype)
    zero_points = rng.integers(low, high + 1, 2)
    source = PerTensor(float(10 ** rng.uniform(-3, 0)), int(zero_points[0]), dtype)
    return codes, source, PerTensor(float(10 ** rng.uniform(-2.5, -1.3)), int(zero_points[1]), dtype)


def _weights(rng: np.random.Generator, count: int, trial: int) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = (rng.normal(size=count).astype(np.float32) for _ in range(2))
    if trial % 3 == 2:
        weight *= np.float32(CANCELLING)
        bias *= -weight
    return weight, bias


def _torch(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("elements", [1, 5, 31, 32, 77, 200])
def test_layer_norm(elements: int, dtype: str) -> None:
    rng = np.random.default_rng(elements)
    for trial in range(12):
        codes, source, output = _draw(rng, (9, elements), dtype)
        weight, bias = _weights(rng, elements, trial)
        eps = float(10 ** rng.uniform(-8, 0))
        expected = torch.ops.quantized.layer_norm(
            _quantized(codes, source), [elements], *_torch(weight, bias), eps, output.scale, output.zero_point
        )
        np.testing.assert_array_equal(
            layer_norm(codes, source, weight, bias, eps, output), expected.int_repr().numpy(), f"trial {trial}"
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 6, 5), 3), ((2, 66, 40), 6), ((2, 12, 3, 5), 4), ((1, 64, 4, 2), 2), ((2, 8, 2, 2, 3), 8)],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_group_norm(shape: tuple[int, ...], groups: int, channels_last: bool, dtype: str) -> None:
    if channels_last and len(shape) != 4:
        shape = (*shape[:2], int(np.prod(shape[2:])), 1)
    rng = np.random.default_rng(groups)
    for trial in range(12):
        codes, source, output = _draw(rng, shape, dtype)
        weight, bias = _weights(rng, shape[1], trial)
        eps = float(10 ** rng.uniform(-8, 0))
        quantized = _quantized(codes, source)
        if channels_last:
            quantized = quantized.contiguous(memory_format=torch.channels_last)
        expected = torch.ops.quantized.group_norm(
            quantized, groups, *_torch(weight, bias), eps, output.scale, output.zero_point
        )
        ours = group_norm(codes, groups, source, weight, bias, eps, output, channels_last)
        np.testing.assert_array_equal(ours, expected.int_repr().numpy(), f"trial {trial}")


def test_threads_change_the_group_norm_of_a_large_channels_last_map() -> None:
    """Sums of squares past 2**24 are rounded, in an order that depends on the threads; ours is that of one thread."""
    rng = np.random.default_rng(0)
    threads, differing = torch.get_num_threads(), 0
    try:
        for _ in range(6):
            codes = rng.integers(180, 256, (1, 8, 32, 48)).astype(np.uint8)
            assert codes.shape[2] * codes.shape[3] >= LARGE_MAP
            source, output = PerTensor(0.02, 3, "uint8"), PerTensor(0.02, 120, "uint8")
            weight, bias = _weights(rng, 8, 0)
            last = _quantized(codes, source).contiguous(memory_format=torch.channels_last)
            found = []
            for count in (1, 2):
                torch.set_num_threads(count)
                result = torch.ops.quantized.group_norm(last, 2, *_torch(weight, bias), 1e-5, 0.02, 120)
                found.append(result.int_repr().numpy())
            ours = group_norm(codes, 2, source, weight, bias, 1e-5, output, channels_last=True)
            np.testing.assert_array_equal(ours, found[0])
            differing += int((found[0] != found[1]).sum())
    finally:
        torch.set_num_threads(threads)
    assert differing > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 7, 8, 33, 40, 64])
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm(channels: int, relu: bool, dtype: str) -> None:
    rng = np.random.default_rng(channels)
    op: Any = torch.ops.quantized.batch_norm_relu if relu else torch.ops.quantized.batch_norm
    for trial in range(6):
        codes, source, output = _draw(rng, (2, channels, 5, 3), dtype)
        weight, bias = _weights(rng, channels, trial)
        mean = rng.normal(size=channels).astype(np.float32)
        variance = rng.uniform(0.01, 2, channels).astype(np.float32)
        expected = op(
            _quantized(codes, source), *_torch(weight, bias, mean, variance), 1e-5, output.scale, output.zero_point
        )
        ours = batch_norm(codes, source, weight, bias, mean, variance, 1e-5, output, relu)
        np.testing.assert_array_equal(ours, expected.int_repr().numpy(), f"trial {trial}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_prelu(dtype: str) -> None:
    rng = np.random.default_rng(3)
    for channels in (1, 3, 8, 40):
        codes, source, output = _draw(rng, (2, channels, 5, 7), dtype)
        slopes, weight, _ = _draw(rng, (channels,), dtype)
        expected = torch.ops.quantized.prelu(
            _quantized(codes, source), _quantized(slopes, weight), output.scale, output.zero_point
        )
        ours = prelu(codes, source, slopes.reshape(1, -1, 1, 1), weight, output)
        np.testing.assert_array_equal(ours, expected.int_repr().numpy())
