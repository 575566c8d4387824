"""A small network with branches, its quantized forms, and faults to plant in them."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import quantize_fx

SHAPE = (2, 3, 12, 12)
INPUTS = [("x", SHAPE)]
BLOCKS = ("stem", "left", "right", "mix")
LAYERS = ("stem.0", "left.0", "right.0", "mix.0", "head")


def images(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """stem, two branches of one input, concatenated, mixed, a residual addition, pooled, a linear layer."""

    def __init__(self, stubs: bool) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

        self.quant = quantization.QuantStub() if stubs else nn.Identity()
        self.dequant = quantization.DeQuantStub() if stubs else nn.Identity()
        self.stem, self.left, self.right, self.mix = block(3, 8), block(8, 8), block(8, 8), block(16, 8)
        self.joined, self.added = FloatFunctional(), FloatFunctional()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.quant(x))
        y = self.mix(self.joined.cat([self.left(x), self.right(x)], 1))
        y = self.drop(self.added.add(x, y))
        result: Tensor = self.dequant(self.head(y.mean((2, 3))))
        return result


@cache
def make(flow: str) -> tuple[nn.Module, nn.Module]:
    """Returns the float and the quantized network of a flow, "eager" or "fx"."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = Net(stubs=flow == "eager")
        network.train()(images(0))
        network.eval()
        made = copy.deepcopy(network)
        if flow == "eager":
            made = quantization.fuse_modules(
                made, [[f"{b}.{i}" for i in range(3)] for b in ("stem", "left", "right", "mix")]
            )
            made.qconfig = quantization.get_default_qconfig("fbgemm")
            prepared = quantization.prepare(made)
            prepared(images(1))
            return network, quantization.convert(prepared)
        prepared = quantize_fx.prepare_fx(made, quantization.get_default_qconfig_mapping("fbgemm"), (images(1),))
        prepared(images(1))
        return network, quantize_fx.convert_fx(prepared)


def plant(module: nn.Module, name: str, fault: str) -> nn.Module:
    """Returns a copy of a quantized network with one wrong scale: "weight" (by a half), or "output" (24 times)."""
    changed = copy.deepcopy(module)
    layer: Any = changed.get_submodule(name)
    if fault == "output":
        layer.scale *= 24
        return changed
    weight, bias = layer.weight(), layer.bias()
    codes = weight.int_repr()
    scales, points = weight.q_per_channel_scales() * 1.5, weight.q_per_channel_zero_points()
    layer.set_weight_bias(torch._make_per_channel_quantized_tensor(codes, scales, points, 0), bias)
    return changed
