"""A transformer encoder as BERT has it, quantized dynamically as PyTorch's tutorial on BERT does it.

quantize_dynamic makes every linear layer int8 (weights once, activations at run time, each tensor by its own range);
attention, softmax, gelu and layer norms stay float. It is PyTorch's default flow for transformers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from qtorch_relay.capture.engine import quantized_engine

NAME = "transformer_encoder"
LAYERS, WIDTH, HEADS, LENGTH = 4, 256, 4, 128


class EncoderLayer(nn.Module):
    """Attention and two feed-forward layers, each added to its input and normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.attended = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.attention_norm, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the layer's output for x [batch, LENGTH, WIDTH]."""
        heads = [self._heads(layer(x)) for layer in (self.query, self.key, self.value)]
        attended = functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(x + self.attended(attended))
        return self.norm(x + self.down(functional.gelu(self.up(x))))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)


def float_encoder() -> nn.Module:
    """Returns the seeded float network."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(*(EncoderLayer() for _ in range(LAYERS))).eval()


def quantized_encoder(engine: str) -> nn.Module:
    """Returns the network with int8 linear layers, packed for an engine."""
    with quantized_engine(engine):
        encoder: nn.Module = torch.ao.quantization.quantize_dynamic(float_encoder(), {nn.Linear})
        return encoder


def random_tokens(batch: int) -> torch.Tensor:
    """Returns seeded embeddings [batch, LENGTH, WIDTH]."""
    return torch.randn(batch, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))
