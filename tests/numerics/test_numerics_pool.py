"""Pools and spatial means: the codes of every engine, tolerance 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.numerics import pool as pool_truth
from qtorch_relay.numerics.pool import Pool2d

from .reference_torch import ENGINES, TORCH_DTYPES, codes_of, random_codes, random_qparams, tensor

# vector code only, 16 lanes and a tail, fewer channels than lanes, tails of 8 and of 16 lanes
CHANNELS = (32, 17, 3, 24, 120)
POOLS = {
    "2x2": Pool2d((2, 2), (2, 2)),
    "3x3_padded": Pool2d((3, 3), (1, 1), (1, 1)),
    "3x3_excluding_padding": Pool2d((3, 3), (2, 2), (1, 1), count_include_pad=False),
    "3x3_ceil": Pool2d((3, 3), (2, 2), (1, 1), ceil_mode=True),
    "3x3_ceil_excluding_padding": Pool2d((3, 3), (2, 2), (1, 1), ceil_mode=True, count_include_pad=False),
    "5x5_ceil": Pool2d((5, 5), (3, 3), (2, 2), ceil_mode=True),
    "8x8": Pool2d((8, 8), (1, 1)),
    "3x2": Pool2d((3, 2), (2, 1), (1, 0)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", POOLS)
def test_avg_pool2d(name: str, channels_last: bool, dtype: str, engine: str) -> None:
    pool = POOLS[name]
    lanes = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
    for channels in CHANNELS:
        rng = np.random.default_rng(channels)
        codes, qparams = random_codes(rng, (2, channels, 11, 13), dtype), random_qparams(rng, dtype)
        with quantized_engine(engine):
            found = functional.avg_pool2d(
                tensor(codes, qparams, channels_last),
                pool.kernel,
                pool.stride,
                pool.padding,
                pool.ceil_mode,
                pool.count_include_pad,
            )
        expected = pool_truth.avg_pool2d(codes, qparams, pool, engine, channels_last, lanes)
        np.testing.assert_array_equal(expected, codes_of(found))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("size", "output_size"),
    [((7, 7), (1, 1)), ((8, 8), (1, 1)), ((12, 5), (3, 5)), ((9, 11), (4, 3)), ((14, 14), (7, 7)), ((5, 5), (5, 5))],
)
def test_adaptive_avg_pool2d(
    size: tuple[int, int], output_size: tuple[int, int], channels_last: bool, dtype: str, engine: str
) -> None:
    for channels in CHANNELS:
        rng = np.random.default_rng(channels)
        codes, qparams = random_codes(rng, (2, channels, *size), dtype), random_qparams(rng, dtype)
        with quantized_engine(engine):
            found = functional.adaptive_avg_pool2d(tensor(codes, qparams, channels_last), output_size)
        expected = pool_truth.adaptive_avg_pool2d(codes, qparams, output_size, engine, channels_last)
        np.testing.assert_array_equal(expected, codes_of(found))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (4, 4), (5, 3), (14, 14), (24, 24)])
def test_mean(size: tuple[int, int], channels_last: bool, dtype: str, engine: str) -> None:
    for channels in (1024, 58, 17, 3):
        rng = np.random.default_rng(channels)
        codes, qparams = random_codes(rng, (2, channels, *size), dtype), random_qparams(rng, dtype)
        with quantized_engine(engine):
            found = tensor(codes, qparams, channels_last).mean([2, 3])
        expected = pool_truth.mean_spatial(codes, qparams, engine, contiguous=not channels_last)
        np.testing.assert_array_equal(expected, codes_of(found))


def test_order_of_the_mean_matters() -> None:
    rng = np.random.default_rng(0)
    codes, qparams = random_codes(rng, (8, 1024, 8, 8)), random_qparams(rng)
    by_layout = [pool_truth.mean_spatial(codes, qparams, "fbgemm", contiguous) for contiguous in (False, True)]
    assert (by_layout[0] != by_layout[1]).any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "pool",
    [
        Pool2d((3, 3), (2, 2), (1, 1)),
        Pool2d((2, 2), (2, 2)),
        Pool2d((3, 3), (2, 2), ceil_mode=True),
        Pool2d((3, 3), (1, 1), (1, 1)),
        Pool2d((2, 2), (2, 2), ceil_mode=True),
        Pool2d((2, 2), (1, 1), (0, 0), (2, 2)),
    ],
)
def test_max_pool2d(pool: Pool2d, channels_last: bool, dtype: str, engine: str) -> None:
    rng = np.random.default_rng(0)
    codes, qparams = random_codes(rng, (2, 33, 13, 11), dtype), random_qparams(rng, dtype)
    with quantized_engine(engine):
        found = functional.max_pool2d(
            tensor(codes, qparams, channels_last), pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
        )
    np.testing.assert_array_equal(pool_truth.max_pool2d(codes, pool), codes_of(found))
