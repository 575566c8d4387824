"""Whole models as people write them, quantized as PyTorch's tutorials do: its codes and floats to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.nn import functional

import qtorch_relay as qr
from qtorch_relay.capture.engine import quantized_engine
from tests.frontend.mkl import in_mkls_order
from tests.frontend.models import UNOPTIMIZED
from tests.frontend.test_language_models import steps_between

WIDTH, HEADS, WORDS, TOKENS = 48, 3, 90, 16

pytestmark = pytest.mark.filterwarnings("ignore:there are no int8 kernels")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class SelfAttention(nn.Module):
    """Attention in single ops, as BERT had it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), x.size(1), HEADS, -1).permute(0, 2, 1, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        weights = functional.softmax(torch.matmul(query, key.transpose(-1, -2)) / 4.0 + mask, -1)
        merged = torch.matmul(weights, value).permute(0, 2, 1, 3).contiguous()
        return self.out(merged.view(merged.size(0), merged.size(1), -1))


class Bert(nn.Module):
    """Embeddings, two encoder layers after the norm, a pooled class; a dict comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.ModuleList(SelfAttention() for _ in range(2))
        self.wide = nn.ModuleList(nn.Linear(WIDTH, 4 * WIDTH) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(4 * WIDTH, WIDTH) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.pool, self.scores = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, words: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.norm(self.words(words) + self.places(torch.arange(words.size(1)).unsqueeze(0)))
        added = (1.0 - mask[:, None, None, :].float()) * -10000.0
        for i, attention in enumerate(self.attention):
            x = self.norms[2 * i](x + attention(x, added))
            x = self.norms[2 * i + 1](x + self.narrow[i](functional.gelu(self.wide[i](x))))
        return {"states": x, "scores": self.scores(functional.relu(self.pool(x[:, 0])))}


def _bert() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = quantization.quantize_dynamic(Bert().eval(), {nn.Linear})
    mask = torch.ones(2, TOKENS, dtype=torch.long)
    mask[1, 10:] = 0
    return model, (torch.randint(0, WORDS, (2, TOKENS)), mask)


class Recommender(nn.Module):
    """Tables of bags whose offsets come with each call, a network of numbers, and all products of the two (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(40 + i, 16, mode="sum", include_last_offset=True) for i in range(3))
        self.bottom = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(22, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, numbers: torch.Tensor, *bags: torch.Tensor) -> torch.Tensor:
        dense, pairs = self.bottom(numbers), zip(bags[::2], bags[1::2], strict=True)
        looked_up = [table(*pair) for table, pair in zip(self.tables, pairs, strict=True)]
        stacked = torch.stack([dense, *looked_up], 1)
        pairs_below = [(row, column) for row in range(4) for column in range(row)]
        rows, columns = (list(places) for places in zip(*pairs_below, strict=True))
        products = (stacked.unsqueeze(1) * stacked.unsqueeze(2)).sum(-1)[:, rows, columns]
        return self.top(torch.cat([dense, products], 1))


def _recommender(qconfig: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = Recommender().eval()
    for table in model.tables:
        table.qconfig = qconfig
    quantization.prepare(model, inplace=True)
    quantization.convert(model, inplace=True)
    offsets = torch.tensor([0, 2, 5, 5, 8])
    bags = [tensor for _ in range(3) for tensor in (torch.randint(0, 40, (8,)), offsets)]
    return quantization.quantize_dynamic(model, {nn.Linear}), (torch.randn(4, 13), *bags)


class Segmentation(nn.Module):
    """Dilated convolutions, pooled context, upsampling, and the class of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=rate, dilation=rate) for rate in (1, 2))
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.first(x)
        context = functional.interpolate(functional.adaptive_avg_pool2d(features, 1), size=features.shape[-2:])
        scores = self.last(torch.cat([*(branch(features) for branch in self.branches), context], 1))
        scores = functional.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return {"scores": scores, "classes": scores.argmax(1)}


class Conformer(nn.Module):
    """A gated convolution over time and a feed-forward network with half its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.gates, self.depthwise = nn.Conv1d(32, 64, 1), nn.Conv1d(32, 32, 15, padding=7, groups=32)
        self.batch_norm, self.mix = nn.BatchNorm1d(32), nn.Conv1d(32, 32, 1)
        self.forwards = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.glu(self.gates(self.norm(x).transpose(1, 2)), 1)
        x = x + self.mix(functional.silu(self.batch_norm(self.depthwise(y)))).transpose(1, 2)
        return x + 0.5 * self.forwards(x)


def _fx(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    prepared = quantize_fx.prepare_fx(model.eval(), quantization.get_default_qconfig_mapping("fbgemm"), (x,))
    prepared(torch.randn_like(x))
    return quantize_fx.convert_fx(prepared), (x,)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "bert": _bert,
    "recommender-8bit": lambda: _recommender(quantization.float_qparams_weight_only_qconfig),
    "recommender-4bit": lambda: _recommender(quantization.float_qparams_weight_only_qconfig_4bit),
    "segmentation": lambda: _fx(Segmentation(), torch.randn(1, 3, 16, 16)),
    "conformer": lambda: _fx(Conformer(), torch.randn(1, 32, 32)),
}


# The sums of floats in the recommender are rounded once, PyTorch's after each of several partial sums.
MOST_STEPS = {"recommender-8bit": 2, "recommender-4bit": 2}


def _flat(output: Any) -> list[torch.Tensor]:
    return list(output.values()) if isinstance(output, dict) else [output]


@in_mkls_order
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python", "ignore:All inputs of this cat operator")
@pytest.mark.parametrize("name", MODELS)
def test_models_equal_pytorch(name: str) -> None:
    torch.manual_seed(1)
    with quantized_engine("fbgemm"), torch.no_grad():
        model, inputs = MODELS[name]()
        expected = _flat(model(*inputs))
        found = _flat(qr.compile(model, list(inputs), UNOPTIMIZED, "fbgemm")(*inputs))
    for ours, theirs in zip(found, expected, strict=True):
        if name in MOST_STEPS:
            assert steps_between(ours, theirs) <= MOST_STEPS[name]
        else:
            assert torch.equal(ours, theirs), f"{int((ours != theirs).sum())} of {ours.numel()} differ"
