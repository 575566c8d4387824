"""Observers that are off become fake quantization; one that is on still changes the model, and is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.ao import quantization

from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import UnsupportedOpError

INFOS = [("x", (2, 6))]


class _Observed(nn.Module):
    """An input and a weight that are observed, the weight per channel."""

    def __init__(self) -> None:
        super().__init__()
        qconfig = quantization.get_default_qat_qconfig("fbgemm")
        self.weight = nn.Parameter(torch.arange(12.0).reshape(2, 6))
        self.quantize, self.quantize_weight = qconfig.activation(), qconfig.weight()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.quantize(x) * self.quantize_weight(self.weight)
        return result


def _trained() -> nn.Module:
    model = _Observed()
    model(torch.randn(2, 6))
    return model.eval()


def _ops(model: Any) -> list[str]:
    return [node.name for node in capture_model(model, INFOS).graph.nodes]


def test_an_observer_that_is_off_quantizes_and_a_weight_is_folded() -> None:
    model = _trained().apply(quantization.disable_observer)
    assert _ops(model) == ["aten::fake_quantize_per_tensor_affine", "aten::mul"]


def test_with_fake_quantization_off_nothing_is_left() -> None:
    model = _trained().apply(quantization.disable_observer).apply(quantization.disable_fake_quant)
    assert _ops(model) == ["aten::mul"]


def test_an_observer_that_is_on_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="fused_moving_avg_obs_fake_quant"):
        _ops(_trained())
