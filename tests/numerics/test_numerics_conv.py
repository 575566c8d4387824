"""Convolutions of one and three dimensions, transposed, saturating, with a sum: every engine's codes, tolerance 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.engine_constants import (
    AccumulatorFactors,
    RealFactors,
    requantize_factors,
    saturates_in_pairs,
    sum_factor,
)
from qtorch_relay.numerics import conv as truth
from qtorch_relay.numerics import core
from qtorch_relay.qparams import PerTensor

from .reference_torch import codes_of, random_codes, random_qparams, tensor

F32 = np.float32


@dataclass(frozen=True)
class Conv:
    """Shapes: x [2, channels, *size], kernel [outputs, channels / groups, *kernel], or the first two swapped."""

    channels: int
    outputs: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    output_padding: tuple[int, ...] | None = None  # given: the convolution is transposed

    @property
    def op(self) -> str:
        return f"conv{'' if self.output_padding is None else '_transpose'}{len(self.size)}d"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        if self.output_padding is None:
            return (self.outputs, self.channels // self.groups, *self.kernel)
        return (self.channels, self.outputs // self.groups, *self.kernel)


CONVS = {
    "1d": Conv(5, 7, (17,), (3,), (2,), (1,), (1,)),
    "1d_dilated_groups": Conv(6, 9, (20,), (4,), (1,), (2,), (3,), 3),
    "2d": Conv(5, 7, (9, 11), (3, 2), (2, 1), (1, 0), (1, 2)),
    "2d_groups": Conv(6, 12, (9, 11), (3, 3), (1, 1), (1, 1), (1, 1), 3),
    "3d": Conv(5, 7, (5, 7, 6), (3, 2, 3), (1, 2, 1), (1, 0, 2), (1, 1, 1)),
    "3d_dilated_groups": Conv(8, 16, (7, 7, 6), (3, 3, 1), (2, 1, 1), (0, 2, 0), (2, 1, 1), 2),
    "3d_1x1x1": Conv(16, 8, (3, 4, 5), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    "transposed_1d": Conv(5, 5, (9,), (3,), (2,), (1,), (1,), 1, (0,)),
    "transposed_2d": Conv(6, 6, (5, 4), (3, 2), (2, 3), (1, 0), (1, 2), 1, (0, 0)),
    "transposed_2d_groups": Conv(8, 8, (5, 4), (4, 4), (2, 2), (1, 1), (1, 1), 2, (0, 0)),
    "transposed_3d": Conv(4, 4, (3, 4, 5), (2, 3, 1), (2, 1, 3), (0, 1, 0), (1, 2, 1), 1, (0, 0, 0)),
}
# qnnpack's transposed convolution ignores the depth.
RUNS = [
    (name, engine)
    for name in CONVS
    for engine in ("fbgemm", "onednn", "qnnpack")
    if not (name == "transposed_3d" and engine == "qnnpack")
]


def torch_codes(
    conv: Conv,
    engine: str,
    x: npt.NDArray[Any],
    x_qparams: PerTensor,
    weight: torch.Tensor,
    bias: npt.NDArray[np.float32],
    out: PerTensor,
) -> npt.NDArray[Any]:
    """Returns the codes of one engine's kernel."""
    ops = torch.ops.quantized
    extra = [] if conv.output_padding is None else [conv.output_padding]
    with quantized_engine(engine):
        packed = getattr(ops, f"{conv.op}_prepack")(
            weight, torch.from_numpy(bias), conv.stride, conv.padding, *extra, conv.dilation, conv.groups
        )
        return codes_of(getattr(ops, conv.op)(tensor(x, x_qparams), packed, out.scale, out.zero_point))


def expected_codes(
    engine: str, sums: npt.NDArray[np.int32], x: PerTensor, scales: Any, bias: npt.NDArray[np.float32], out: PerTensor
) -> npt.NDArray[Any]:
    """Returns what the formulas of numerics/core.py make of the sums."""
    factors = requantize_factors(engine, "conv", x.scale, scales, out.scale, bias, sums.shape[1])
    if isinstance(factors, AccumulatorFactors):
        return core.requantize_accumulator(sums, factors, out)
    return core.requantize_real(sums, factors, out)


@pytest.mark.parametrize(("name", "engine"), RUNS)
def test_sums_give_the_engines_codes(name: str, engine: str) -> None:
    conv = CONVS[name]
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, x_qparams = random_codes(rng, (2, conv.channels, *conv.size)), random_qparams(rng)
        codes = random_codes(rng, conv.weight_shape, "int8")
        per_channel = conv.output_padding is None and seed % 2 == 0
        scales = rng.uniform(0.001, 0.02, conv.outputs) if per_channel else np.float64(rng.uniform(0.001, 0.02))
        # onednn refuses weights with zero points
        points = np.zeros(conv.outputs, np.int64) if engine == "onednn" else rng.integers(-128, 128, conv.outputs)
        if per_channel:
            weight = torch._make_per_channel_quantized_tensor(
                torch.from_numpy(codes), torch.from_numpy(scales), torch.from_numpy(points), 0
            )
        else:
            points = points[:1]
            weight = torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), float(scales), int(points[0]))
        common = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
        if conv.output_padding is None:
            sums = truth.convolution_sums(x, codes, x_qparams.zero_point, points, **common)
        else:
            sums = truth.transposed_sums(
                x, codes, x_qparams.zero_point, points, output_padding=conv.output_padding, **common
            )
        real = sums * x_qparams.scale * np.mean(scales)
        bias = rng.normal(0, real.std(), conv.outputs).astype(F32)
        out = PerTensor(float(real.std() / 30), int(rng.integers(0, 256)), "uint8")
        found = torch_codes(conv, engine, x, x_qparams, weight, bias, out)
        np.testing.assert_array_equal(expected_codes(engine, sums, x_qparams, scales, bias, out), found)


DEPTHWISE = [
    Conv(16, 16, (9, 6), (5, 5), (1, 2), (2, 2), (1, 1), 16),
    Conv(8, 16, (4, 5), (7, 7), (1, 1), (3, 3), (1, 1), 8),
    Conv(8, 8, (5, 6, 4), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 8),
    Conv(8, 16, (5, 6, 4), (3, 3, 3), (2, 1, 2), (1, 1, 1), (1, 1, 1), 8),
    Conv(24, 24, (2, 3, 6), (3, 5, 5), (1, 1, 1), (1, 2, 2), (1, 1, 1), 24),
    Conv(8, 8, (5, 4, 6), (5, 3, 3), (1, 2, 2), (2, 1, 1), (1, 1, 1), 8),
    Conv(8, 8, (1, 1, 1), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 8),
]


@pytest.mark.parametrize("conv", DEPTHWISE, ids=lambda conv: f"{conv.op}-{conv.channels}-{conv.kernel}")
@pytest.mark.parametrize("weight_zero_point", [0, -7])
def test_depthwise_sums_saturate_as_fbgemm_does(conv: Conv, weight_zero_point: int) -> None:
    rng = np.random.default_rng(1)
    x, x_qparams = random_codes(rng, (2, conv.channels, *conv.size)), random_qparams(rng)
    codes = random_codes(rng, conv.weight_shape, "int8")
    assert saturates_in_pairs(
        codes,
        groups=conv.groups,
        in_channels=conv.channels,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
    )
    sums = truth.depthwise_sums_fbgemm(x, codes, x_qparams.zero_point, conv.stride, conv.padding, weight_zero_point)
    bias, out = np.zeros(conv.outputs, F32), PerTensor(float((sums * x_qparams.scale).std() * 0.01 / 30), 99, "uint8")
    weight = torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), 0.01, weight_zero_point)
    found = torch_codes(conv, "fbgemm", x, x_qparams, weight, bias, out)
    np.testing.assert_array_equal(
        expected_codes("fbgemm", sums, x_qparams, np.float64(0.01), bias, out), found, strict=True
    )


@pytest.mark.parametrize("relu", [False, True])
def test_sum_is_fused_by_one_multiply_add(relu: bool) -> None:
    """Biases lie within three float32 steps of a tie between two codes, where one rounding more or less shows."""
    op = torch.ops.quantized.conv2d_add_relu if relu else torch.ops.quantized.conv2d_add
    plain_differs = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        channels, scale = 2048, float(rng.uniform(0.001, 0.02))
        x, x_qparams = random_codes(rng, (1, 1, 1, 1)), random_qparams(rng)
        residual, residual_qparams = random_codes(rng, (1, channels, 1, 1)), random_qparams(rng)
        out = PerTensor(float(rng.uniform(0.02, 0.2)), int(rng.integers(30, 200)), "uint8")
        codes = random_codes(rng, (channels, 1, 1, 1), "int8")
        sums = (x.astype(np.int32) - x_qparams.zero_point) * codes.reshape(1, -1, 1, 1).astype(np.int32)
        share = (residual.astype(float) - residual_qparams.zero_point) * residual_qparams.scale
        tie = (rng.integers(5, 250, channels) + 0.5 - out.zero_point) * out.scale
        bias = (tie - share.reshape(-1) - sums.reshape(-1) * x_qparams.scale * scale).astype(F32)
        bias = (bias.view(np.int32) + rng.integers(-3, 4, channels).astype(np.int32)).view(F32)
        with quantized_engine("onednn"):
            weight = torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), scale, 0)
            packed = torch.ops.quantized.conv2d_prepack(weight, torch.from_numpy(bias), [1, 1], [0, 0], [1, 1], 1)
            # PyTorch writes the result over the residual
            added = tensor(residual.copy(), residual_qparams)
            found = codes_of(op(tensor(x, x_qparams), added, packed, out.scale, out.zero_point))
        factors = requantize_factors("onednn", "conv", x_qparams.scale, np.float64(scale), out.scale, bias, channels)
        assert isinstance(factors, RealFactors)
        factor = sum_factor(residual_qparams.scale)
        ours = truth.requantize_sum(sums, factors, residual, residual_qparams, factor, out, relu)
        np.testing.assert_array_equal(ours, found)
        real = sums.astype(F32) * factors.input_factor[0] * factors.kernel_factor[0] + bias.reshape(1, -1, 1, 1)
        unfused = real + (residual.astype(F32) - F32(residual_qparams.zero_point)) * factor
        rounded = np.clip(np.rint(unfused * factors.output_factor[0] + F32(out.zero_point)), 0, 255)
        plain_differs += int((np.maximum(rounded, out.zero_point if relu else 0) != found).sum())
    assert plain_differs > 0
