"""Small quantized models in every form a user can have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

from qtorch_relay.capture.engine import quantized_engine


class Block(nn.Module):
    """A residual block, so that scopes nest and one value has two readers.

    forward has no annotations: torch.jit.script fails on those that FX copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.sum = nn.quantized.FloatFunctional()

    def forward(self, x):
        return self.sum.add_relu(self.relu(self.bn(self.conv(x))), x)


class FxBlock(Block):
    def forward(self, x):
        return torch.relu(self.relu(self.bn(self.conv(x))) + x)


class SmallNet(nn.Module):
    """Convolution, depthwise convolution, residual block, hardswish, pooling and linear."""

    def __init__(self, block: type[Block]) -> None:
        super().__init__()
        self.quant = quantization.QuantStub()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.act = nn.Hardswish()
        self.blocks = nn.Sequential(block(), block())
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 5)
        self.dequant = quantization.DeQuantStub()

    def forward(self, x):
        x = self.blocks(self.act(self.stem(self.quant(x))))
        x = torch.flatten(self.pool(self.depthwise(x)), 1)
        return self.dequant(self.fc(x))


SMALL_SHAPE = (2, 3, 17, 17)


def quantize_eager(model: nn.Module, engine: str, *examples: torch.Tensor, qat: bool = False) -> nn.Module:
    """Returns a model converted by the eager flow; it has its own QuantStubs."""
    with quantized_engine(engine):
        model.train(qat)
        model.qconfig = (quantization.get_default_qat_qconfig if qat else quantization.get_default_qconfig)(engine)
        (quantization.prepare_qat if qat else quantization.prepare)(model, inplace=True)
        model(*examples)
        return quantization.convert(model.eval(), inplace=True)


def quantize_with_fx(model: nn.Module, engine: str, *examples: torch.Tensor, qat: bool = False) -> nn.Module:
    """Returns a model converted by the FX flow."""
    with quantized_engine(engine):
        model.train(qat)
        if qat:
            mapping = quantization.get_default_qat_qconfig_mapping(engine)
            prepared = quantize_fx.prepare_qat_fx(model, mapping, examples)
        else:
            mapping = quantization.get_default_qconfig_mapping(engine)
            prepared = quantize_fx.prepare_fx(model, mapping, examples)
        prepared(*examples)
        return quantize_fx.convert_fx(prepared.eval())


def small_model(flow: str, engine: str, qat: bool = False) -> nn.Module:
    torch.manual_seed(0)
    example = torch.randn(SMALL_SHAPE)
    if flow == "fx":
        return quantize_with_fx(SmallNet(FxBlock), engine, example, qat=qat)
    model = SmallNet(Block).train(qat)
    fuse = quantization.fuse_modules_qat if qat else quantization.fuse_modules
    for block in model.blocks:
        fuse(block, ["conv", "bn", "relu"], inplace=True)
    return quantize_eager(model, engine, example, qat=qat)


def in_form(model: nn.Module, form: str, example: torch.Tensor, folder: Path) -> Any:
    """Returns a model as a user may hand it over."""
    if form == "module":
        return model
    script = torch.jit.script(model) if "scripted" in form else torch.jit.trace(model, example)
    if "frozen" in form:
        return torch.jit.freeze(script.eval())
    if form == "saved":
        torch.jit.save(script, folder / "model.pt")
        return folder / "model.pt"
    return script


@pytest.fixture
def fbgemm() -> Iterator[None]:
    """Weights are packed for the engine that is set."""
    with quantized_engine("fbgemm"):
        yield


@pytest.fixture
def make_small_model() -> Callable[..., nn.Module]:
    return small_model


@pytest.fixture
def convert_eager() -> Callable[..., nn.Module]:
    return quantize_eager


@pytest.fixture
def as_form(tmp_path: Path) -> Callable[[nn.Module, str, torch.Tensor], Any]:
    return lambda model, form, example: in_form(model, form, example, tmp_path)
