"""Attention and transformers in float against PyTorch, through its fused ops ("fast path") and without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import qtorch_relay
from qtorch_relay.errors import FloatModelWarning
from tests.frontend.models import UNOPTIMIZED
from tests.frontend.test_floating import ROUNDING, Calls, largest_deviation

# MultiheadAttention compares sizes, which are numbers of the trace.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor to a Python (boolean|float)")

WIDTH, HEADS, LENGTH = 32, 4, 10


@pytest.fixture(params=[True, False], ids=["fast_path", "plain"])
def fast_path(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(request.param)
    yield request.param
    torch.backends.mha.set_fastpath_enabled(before)


def _shaken(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def _check(module: nn.Module, *inputs: torch.Tensor) -> None:
    infos = [(f"x{i}", (tuple(x.shape), str(x.dtype).removeprefix("torch."))) for i, x in enumerate(inputs)]
    with pytest.warns(FloatModelWarning):
        compiled = qtorch_relay.compile(module.eval(), infos, UNOPTIMIZED)
    with torch.no_grad():
        assert largest_deviation(compiled(*inputs), module(*inputs)) <= ROUNDING


def _encoder(**options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, **({"batch_first": True} | options))
    encoder = _shaken(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    assert isinstance(encoder, nn.TransformerEncoder)
    return encoder


@pytest.mark.parametrize(
    "options", [{}, {"activation": "gelu"}, {"norm_first": True}, {"batch_first": False, "activation": "gelu"}]
)
def test_encoders_equal_pytorch(fast_path: bool, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    _check(_encoder(**options), torch.randn(2, LENGTH, WIDTH))


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"batch_first": False, "activation": "gelu"}])
def test_scripted_encoders_equal_pytorch(fast_path: bool, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = _encoder(**options).eval()
    for module in (encoder, encoder.layers[0]):
        x = torch.randn(2, LENGTH, WIDTH)
        with pytest.warns(FloatModelWarning):
            compiled = qtorch_relay.compile(torch.jit.script(module), [("x", tuple(x.shape))], UNOPTIMIZED)
        with torch.no_grad():
            assert largest_deviation(compiled(x), module(x)) <= ROUNDING


def test_masked_encoders_equal_pytorch(fast_path: bool) -> None:
    torch.manual_seed(0)
    padding = torch.zeros(2, LENGTH, dtype=torch.bool)
    padding[0, 7:] = True
    encoder = _encoder()
    padded = Calls(lambda m, x, mask: m.encoder(x, src_key_padding_mask=mask), encoder=encoder)
    _check(padded, torch.randn(2, LENGTH, WIDTH), padding)
    triangle = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    causal = Calls(lambda m, x: m.encoder(x, mask=m.mask, is_causal=True), encoder=encoder, mask=triangle)
    _check(causal, torch.randn(2, LENGTH, WIDTH))


def test_a_transformer_equals_pytorch(fast_path: bool) -> None:
    torch.manual_seed(0)
    transformer = _shaken(nn.Transformer(WIDTH, HEADS, 1, 1, 64, batch_first=True))
    _check(transformer, torch.randn(2, LENGTH, WIDTH), torch.randn(2, LENGTH + 3, WIDTH))


def test_multi_head_attention_equals_pytorch(fast_path: bool) -> None:
    torch.manual_seed(0)
    attention = _shaken(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))

    def function(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        alone, _ = m.attention(x, x, x, need_weights=False)
        return (alone, *m.attention(x, x, x, average_attn_weights=False), *m.attention(x, x + 1, x - 1))

    _check(Calls(function, attention=attention), torch.randn(2, LENGTH, WIDTH))


def test_scaled_dot_product_attention_equals_pytorch() -> None:
    attention = functional.scaled_dot_product_attention

    def function(_: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> Any:
        return (
            attention(q, k, v),
            attention(q, k, v, is_causal=True),
            attention(q, k, v, scale=0.3),
            attention(q, k[:, :2], v[:, :2], enable_gqa=True),
            attention(q, k, v, attn_mask=mask),
            attention(q, k, v, attn_mask=mask * 1.5),
        )

    torch.manual_seed(0)
    mask = torch.rand(LENGTH, 7) > 0.5
    mask[3] = False  # a query that may look at nothing
    keys = [torch.randn(2, HEADS, 7, 8) for _ in range(2)]
    _check(Calls(function), torch.randn(2, HEADS, LENGTH, 8), *keys, mask)
