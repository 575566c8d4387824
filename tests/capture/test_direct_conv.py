"""Weights that PyTorch's fbgemm packs for a kernel from which it cannot unpack them are read all the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization

import qtorch_relay as qr
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.graph import ConvParams
from qtorch_relay.capture.packed import repack, unpack
from qtorch_relay.errors import PyTorchDiffersWarning, UnsupportedQuantSchemeError
from tests.frontend.models import UNOPTIMIZED

# Channels, outputs, kernel, stride: all but the last take the direct kernel of fbgemm.
LAYERS = ((8, 16, (2, 2), 2), (8, 8, (2, 2), 1), (16, 16, (2, 3), 2), (8, 24, (2, 1), 2), (8, 24, (3, 1), 2))


def _packed(engine: str, layer: tuple[int, int, tuple[int, int], int], zero_point: int) -> tuple[object, torch.Tensor]:
    channels, outputs, kernel, stride = layer
    generator = np.random.default_rng(0)
    codes = torch.from_numpy(generator.integers(-128, 128, (channels, outputs, *kernel)).astype(np.int8))
    weight = torch._make_per_tensor_quantized_tensor(codes, 0.02, zero_point)
    bias = torch.from_numpy(generator.normal(0, 30, outputs).astype(np.float32))
    with quantized_engine(engine):
        arguments = ([stride] * 2, [0, 0], [0, 0], [1, 1], 1)
        return torch.ops.quantized.conv_transpose2d_prepack(weight, bias, *arguments), codes


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("engine", "zero_point"), [("fbgemm", 0), ("onednn", 0), ("qnnpack", 0), ("qnnpack", -128)])
def test_weights_are_those_that_were_packed(
    engine: str, zero_point: int, layer: tuple[int, int, tuple[int, int], int]
) -> None:
    packed, codes = _packed(engine, layer, zero_point)
    with quantized_engine("qnnpack"):
        again = repack(packed)
    for params in (unpack(packed, "weight", "conv_transpose2d"), unpack(again, "weight", "conv_transpose2d")):
        assert isinstance(params, ConvParams)
        np.testing.assert_array_equal(params.weight.codes, codes.numpy())


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_weights_in_another_order_in_memory_are_not_taken_for_unpacked_ones(engine: str) -> None:
    """fbgemm unpacks what the memory held before: here, often, the same codes sorted."""
    packed, codes = _packed(engine, LAYERS[1], 0)
    for _ in range(100):
        left = [torch.sort(codes.flatten())[0] for _ in range(40)]
        del left
        params = unpack(packed, "weight", "conv_transpose2d")
        assert isinstance(params, ConvParams)
        np.testing.assert_array_equal(params.weight.codes, codes.numpy())


def test_weights_with_a_zero_point_are_refused() -> None:
    """The kernel's results hang on what the memory held before."""
    packed, _ = _packed("fbgemm", LAYERS[2], 7)
    with pytest.raises(UnsupportedQuantSchemeError, match="zero point 7 and a form for FBGEMM's direct kernel"):
        unpack(packed, "weight", "conv_transpose2d")


@pytest.mark.filterwarnings("ignore:there are no int8 kernels", "ignore:Converting a tensor to a Python")
@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack", "x86"])
def test_upsampling_of_a_unet_is_what_the_layer_means(engine: str) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(16, 8, 2, 2)
    model = nn.Sequential(quantization.QuantStub(), layer, quantization.DeQuantStub()).eval()
    weight = quantization.default_weight_observer
    model.qconfig = quantization.QConfig(quantization.MinMaxObserver.with_args(reduce_range=True), weight)
    x = torch.randn(2, 16, 5, 5)
    with quantized_engine(engine), torch.no_grad():
        observed = quantization.prepare(model)
        observed(x)
        quantized = quantization.convert(observed)
        if engine == "qnnpack":
            ours = qr.compile(quantized, [("x", x)], UNOPTIMIZED, engine)(x)
            assert torch.equal(ours, quantized(x))
        else:
            with pytest.warns(PyTorchDiffersWarning, match=r"conv_transpose2d.*PyTorch's (fbgemm|onednn).* right"):
                ours = qr.compile(quantized, [("x", x)], UNOPTIMIZED, engine)(x)
        step = quantized[1].scale
        assert float((ours - layer(x)).abs().max()) < 8 * step
