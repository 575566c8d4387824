"""Convolutions and linear layers: the codes of every engine, tolerance 0.

The biases are searched so that the engines' formulas disagree on the channels they are for: a formula of the wrong
engine, or with one rounding more or less, fails these tests at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.engine_constants import AccumulatorFactors, requantize_factors, resolve_x86
from qtorch_relay.numerics import core as numerics
from qtorch_relay.qparams import PerChannel, PerTensor

from .reference_torch import codes_of, tensor, weight

F32 = np.float32
FORMULAS = ("fbgemm", "onednn", "qnnpack")


@dataclass(frozen=True)
class Layer:
    """A convolution [batch, channels, size, size] * [outputs, channels / groups, *kernel], linear if size is 0."""

    batch: int
    channels: int
    size: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1

    @property
    def kind(self) -> str:
        return "conv" if self.size else "linear"


LAYERS = {
    "conv_1x1": Layer(2, 64, 14, 96),
    "conv_1x1_strided": Layer(1, 64, 9, 64, stride=2),
    "conv_1x1_of_one_pixel": Layer(1, 16, 1, 64),
    "conv_1x1_odd_channels": Layer(1, 61, 13, 37),
    "conv_3x3": Layer(2, 32, 14, 48, (3, 3), padding=(1, 1)),
    "conv_3x3_odd_channels": Layer(3, 13, 11, 7, (3, 3), padding=(1, 1)),
    "conv_3x3_first_layer": Layer(1, 3, 40, 32, (3, 3), stride=2, padding=(1, 1)),
    "conv_7x7_first_layer": Layer(1, 3, 32, 64, (7, 7), stride=2, padding=(3, 3)),
    "conv_1x7": Layer(1, 96, 9, 64, (1, 7), padding=(0, 3)),
    "conv_dilated": Layer(1, 32, 12, 32, (3, 3), padding=(2, 2), dilation=2),
    "conv_one_channel": Layer(2, 1, 28, 8, (3, 3), padding=(1, 1)),
    "depthwise_3x3": Layer(2, 96, 14, 96, (3, 3), padding=(1, 1), groups=96),
    "depthwise_5x5_strided": Layer(2, 72, 14, 72, (5, 5), stride=2, padding=(2, 2), groups=72),
    "depthwise_odd_channels": Layer(1, 17, 12, 17, (3, 3), padding=(1, 1), groups=17),
    "depthwise_120": Layer(1, 120, 7, 120, (5, 5), padding=(2, 2), groups=120),
    "grouped_32": Layer(1, 256, 7, 256, (3, 3), padding=(1, 1), groups=32),
    "grouped_2_channels_each": Layer(1, 64, 9, 64, (3, 3), padding=(1, 1), groups=32),
    "grouped_6_to_12": Layer(1, 24, 9, 48, (3, 3), padding=(1, 1), groups=4),
    "linear": Layer(1, 256, 0, 100),
    "linear_batch": Layer(5, 130, 0, 64),
    "linear_odd": Layer(3, 17, 0, 33),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A layer with numbers: exact accumulators, and per engine the codes they become."""

    layer: Layer
    x: npt.NDArray[np.uint8]
    x_qparams: PerTensor
    weight: npt.NDArray[np.int8]
    weight_scales: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float32] | None
    out: PerTensor
    acc: npt.NDArray[np.int64]

    def expected(self, engine: str, relu: bool, bias: npt.NDArray[np.float32] | None) -> npt.NDArray[Any]:
        factors = requantize_factors(
            engine,
            self.layer.kind,
            self.x_qparams.scale,
            self.weight_scales,
            self.out.scale,
            bias,
            self.layer.outputs,
        )
        if isinstance(factors, AccumulatorFactors):
            return numerics.requantize_accumulator(self.acc, factors, self.out, relu)
        return numerics.requantize_real(self.acc, factors, self.out, relu)

    def torch_codes(self, engine: str, relu: bool, run_engine: str | None = None) -> npt.NDArray[Any]:
        layer, ops = self.layer, torch.ops.quantized
        bias = None if self.bias is None else torch.from_numpy(self.bias)
        packed_weight = weight(self.weight, self.weight_scales)
        with quantized_engine(engine):
            if layer.kind == "linear":
                packed = ops.linear_prepack(packed_weight, bias)
            else:
                packed = ops.conv2d_prepack(
                    packed_weight, bias, [layer.stride] * 2, layer.padding, [layer.dilation] * 2, layer.groups
                )
        name = ("linear" if layer.kind == "linear" else "conv2d") + ("_relu" if relu else "")
        with quantized_engine(run_engine or engine):
            data = tensor(self.x, self.x_qparams, channels_last=layer.kind == "conv")
            return codes_of(getattr(ops, name)(data, packed, self.out.scale, self.out.zero_point))


def accumulate(layer: Layer, x: npt.NDArray[np.int64], w: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Returns exact accumulators; float64 holds them, as they stay far below 2**53."""
    data, kernel = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(w.astype(np.float64))
    if layer.kind == "linear":
        return (data @ kernel.T).numpy().astype(np.int64)
    result = torch.nn.functional.conv2d(data, kernel, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return result.numpy().astype(np.int64)


@functools.cache
def make_case(layer: Layer, per_channel: bool, bias: bool, seed: int, greatest_code: int) -> Case:
    """Returns a layer whose biases make the engines' formulas disagree where the input is constant over the image."""
    rng = np.random.default_rng(seed)
    channels = rng.integers(0, greatest_code + 1, layer.channels)
    shape = (layer.batch, layer.channels, layer.size, layer.size)[: 4 if layer.size else 2]
    x = np.broadcast_to(channels.reshape((1, -1, 1, 1)[: len(shape)]), shape).astype(np.uint8)
    x_qparams = PerTensor(float(rng.uniform(0.005, 0.1)), int(rng.integers(0, greatest_code + 1)), "uint8")
    kernel = layer.kernel if layer.size else ()
    w = rng.integers(-128, 128, (layer.outputs, layer.channels // layer.groups, *kernel)).astype(np.int8)
    scales = rng.uniform(0.001, 0.02, layer.outputs) if per_channel else np.array(rng.uniform(0.001, 0.02))
    acc = accumulate(layer, x.astype(np.int64) - x_qparams.zero_point, w)
    middle = (
        acc[:1, :, layer.size // layer.stride // 2 : layer.size // layer.stride // 2 + 1] if layer.size else acc[:1]
    )
    middle = middle[..., middle.shape[-1] // 2 :][..., :1] if layer.size else middle
    real = middle.reshape(-1) * x_qparams.scale * scales
    spread = float(np.sqrt(np.mean(real**2))) + 1e-3
    out = PerTensor(spread / 40, int(rng.integers(60, 200)), "uint8")
    probe = Case(layer, x, x_qparams, w, scales, None, out, middle)
    chosen = rng.normal(0, spread, layer.outputs).astype(F32) if bias else None
    if chosen is not None:
        for _ in range(24):
            step = np.clip(np.floor((real + rng.normal(0, spread, layer.outputs)) / out.scale), -50, 50) + 0.5
            trial = (step * out.scale - real).astype(F32)
            trial = (trial.view(np.int32) + rng.integers(-2, 3, layer.outputs).astype(np.int32)).view(F32)
            codes = [probe.expected(engine, False, trial).reshape(-1) for engine in FORMULAS]
            differ = (codes[0] != codes[1]) | (codes[1] != codes[2])
            chosen[differ] = trial[differ]
    return Case(layer, x, x_qparams, w, scales, chosen, out, acc)


needs_vnni = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="x86 gives convolutions to onednn only on CPUs with AVX512-VNNI"
)


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", pytest.param("x86", marks=needs_vnni), "qnnpack"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_has_the_engines_codes(name: str, engine: str) -> None:
    layer = LAYERS[name]
    for index, (per_channel, bias, relu) in enumerate(
        [(True, True, False), (False, True, False), (True, True, True), (False, False, False), (True, False, True)]
    ):
        # fbgemm saturates depthwise products of full-range activations
        greatest = 127 if engine in ("fbgemm", "x86") else 255
        case = make_case(layer, per_channel, bias, index, greatest)
        given = PerChannel(case.weight_scales, np.zeros(layer.outputs, np.int64), 0, "int8") if per_channel else None
        qparams = given or PerTensor(float(case.weight_scales), 0, "int8")
        resolved = resolve_x86(layer.kind, qparams, layer.groups) if engine == "x86" else engine
        found = case.torch_codes(engine, relu)
        np.testing.assert_array_equal(case.expected(resolved, relu, case.bias), found)


def test_searched_biases_tell_the_engines_apart() -> None:
    case = make_case(LAYERS["conv_1x1"], True, True, 0, 127)
    codes = [case.expected(engine, False, case.bias) for engine in FORMULAS]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert (codes[first] != codes[second]).mean() > 0.1


def test_engine_is_fixed_when_weights_are_packed() -> None:
    case = make_case(LAYERS["conv_1x1"], True, True, 3, 127)
    for engine in FORMULAS:
        for run_engine in FORMULAS:
            found = case.torch_codes(engine, False, run_engine)
            np.testing.assert_array_equal(case.expected(engine, False, case.bias), found)


@pytest.mark.parametrize(
    ("groups", "zero_point", "resolved"), [(100, 0, "onednn"), (101, 0, "fbgemm"), (1, 3, "fbgemm")]
)
def test_x86_gives_to_onednn_what_it_can(groups: int, zero_point: int, resolved: str) -> None:
    points = np.full(groups, zero_point)
    assert resolve_x86("conv", PerChannel(np.full(groups, 0.1), points, 0, "int8"), groups) == resolved
    assert resolve_x86("linear", PerTensor(0.1, zero_point, "int8")) == "fbgemm"


@needs_vnni
def test_x86_uses_fbgemm_from_101_groups_on() -> None:
    for groups, engine in ((100, "onednn"), (101, "fbgemm")):
        case = make_case(Layer(1, groups, 6, groups, (3, 3), padding=(1, 1), groups=groups), True, True, 1, 127)
        found = case.torch_codes("x86", False)
        np.testing.assert_array_equal(case.expected(engine, False, case.bias), found)
        other = "fbgemm" if engine == "onednn" else "onednn"
        assert (case.expected(other, False, case.bias) != found).any()


@pytest.mark.parametrize("engine", ["onednn", "qnnpack"])
def test_full_range_depthwise_activations_do_not_saturate(engine: str) -> None:
    layer = LAYERS["depthwise_3x3"]
    rng = np.random.default_rng(0)
    x = rng.integers(240, 256, (2, 96, 14, 14)).astype(np.uint8)
    w = rng.integers(118, 128, (96, 1, 3, 3)).astype(np.int8)
    acc = accumulate(layer, x.astype(np.int64), w)
    case = Case(
        layer,
        x,
        PerTensor(0.01, 0, "uint8"),
        w,
        np.full(96, 0.01),
        None,
        PerTensor(float(acc.max() * 1e-4 / 250), 0, "uint8"),
        acc,
    )
    np.testing.assert_array_equal(case.expected(engine, False, None), case.torch_codes(engine, False))


def test_accumulator_beyond_24_bits_rounds_once() -> None:
    factors = requantize_factors("fbgemm", "linear", 0.5, np.array([0.5]), 2.0**20, None, 1)
    assert isinstance(factors, AccumulatorFactors)
    acc = np.array([[2**24 + 1], [2**30 + 1], [-(2**30) - 1]])
    codes = numerics.requantize_accumulator(acc, factors, PerTensor(2.0**20, 0, "int8"))
    np.testing.assert_array_equal(codes, [[4], [127], [-128]])
