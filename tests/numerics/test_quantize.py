"""numerics_quantize against PyTorch's kernels, on ties, extreme scales and zero points, NaN and infinity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.capture.packed import quantized_constant
from qtorch_relay.numerics import quantize as numerics
from qtorch_relay.qparams import FloatQuantizedTensor, PerChannel, PerTensor, code_range
from tests.matrix.quantize import reals, scaled

SCALES = (1e-8, 3.3e-5, 0.037, 1.0, 1e4)
DTYPES = {torch.quint8: "uint8", torch.qint8: "int8", torch.qint32: "int32"}
CHANNELS = 7


@pytest.mark.parametrize("zero_point", [0, 7, -12345, 16777217, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("scale", SCALES)
def test_int32_codes_and_back(scale: float, zero_point: int) -> None:
    x, qparams = reals((4000,), scale), PerTensor(scale, zero_point, "int32")
    expected = torch.quantize_per_tensor(torch.from_numpy(x), scale, zero_point, torch.qint32)
    codes = numerics.quantize_s32(x, qparams)
    np.testing.assert_array_equal(codes, expected.int_repr().numpy())
    np.testing.assert_array_equal(numerics.dequantize_s32(codes, qparams), expected.dequantize().numpy())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_per_channel_and_back(dtype: torch.dtype, axis: int) -> None:
    rng = np.random.default_rng(axis)
    shape = [40, 30, 20]
    shape[axis] = CHANNELS
    scales = 10.0 ** rng.uniform(-8, 4, CHANNELS)
    low, high = code_range(DTYPES[dtype])
    zero_points = rng.integers(low, high + 1, CHANNELS)
    x = scaled(reals(tuple(shape), 1.0), scales, axis)
    expected = torch.quantize_per_channel(
        torch.from_numpy(x), torch.from_numpy(scales), torch.from_numpy(zero_points), axis, dtype
    )
    qparams = PerChannel(scales, zero_points, axis, DTYPES[dtype])
    codes = numerics.quantize_channels(x, qparams)
    np.testing.assert_array_equal(codes, expected.int_repr().numpy())
    np.testing.assert_array_equal(numerics.dequantize_channels(codes, qparams), expected.dequantize().numpy())


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8, torch.quint4x2, torch.quint2x4])
def test_codes_with_float_zero_points_and_back(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    scales = torch.from_numpy((10.0 ** rng.uniform(-8, 4, CHANNELS)).astype(np.float32))
    zero_points = torch.from_numpy(rng.uniform(-20, 300, CHANNELS).astype(np.float32))
    x = scaled(reals((CHANNELS, 1000), 1.0), scales.numpy(), 0)
    expected = torch.quantize_per_channel(torch.from_numpy(x), scales, zero_points, 0, dtype)
    constant = quantized_constant(expected)
    assert isinstance(constant, FloatQuantizedTensor)
    np.testing.assert_array_equal(numerics.quantize_float_qparams(x, constant.qparams), constant.codes)
    found = numerics.dequantize_float_qparams(constant.codes, constant.qparams)
    np.testing.assert_array_equal(found, expected.dequantize().numpy())


@pytest.mark.parametrize(("zero_point", "low", "high"), [(0, -128, 127), (255, 0, 255), (3, 0, 15), (7, 0, 127)])
@pytest.mark.parametrize("scale", SCALES)
def test_fake_quantization(scale: float, zero_point: int, low: int, high: int) -> None:
    x = reals((4000,), scale)
    expected = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), scale, zero_point, low, high)
    np.testing.assert_array_equal(numerics.fake_quantize(x, scale, zero_point, low, high), expected.numpy())


@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize(("low", "high"), [(-128, 127), (0, 255), (0, 15)])
def test_fake_quantization_per_channel(low: int, high: int, kind: type) -> None:
    rng = np.random.default_rng(2)
    scales = (10.0 ** rng.uniform(-8, 4, CHANNELS)).astype(np.float32)
    zero_points = rng.uniform(low, high, CHANNELS).astype(kind)
    x = scaled(reals((CHANNELS, 1000), 1.0), scales, 0)
    tensors = (torch.from_numpy(value) for value in (x, scales, zero_points))
    expected = torch.fake_quantize_per_channel_affine(*tensors, 0, low, high)
    found = numerics.fake_quantize_channels(x, scales, zero_points, 0, low, high)
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("count", [1, 7, 31, 64, 1000])
def test_special_values_do_not_depend_on_their_place(count: int) -> None:
    """Vector code and what remains of it agree, on NaN, infinity and values beyond int32 too."""
    special = np.array([np.nan, np.inf, -np.inf, 3e38, -4e9, 2147483648.0], np.float32)
    x = np.resize(special, count)
    for dtype in DTYPES:
        together = torch.quantize_per_tensor(torch.from_numpy(x), 0.5, 3, dtype).int_repr()
        alone = [
            torch.quantize_per_tensor(torch.from_numpy(x[i : i + 1]), 0.5, 3, dtype).int_repr() for i in range(count)
        ]
        assert torch.equal(together, torch.cat(alone))
