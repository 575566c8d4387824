"""Models with nested inputs and outputs that torch.jit.script reads: its annotations must not be strings."""

from typing import NamedTuple

import torch
from torch import nn


class Pair(NamedTuple):
    codes: torch.Tensor
    values: torch.Tensor


class Scripted(nn.Module):
    """What torch.jit.script can say of nested values, with an optional input."""

    def forward(
        self,
        xs: list[torch.Tensor],
        pair: tuple[torch.Tensor, torch.Tensor],
        named: dict[str, torch.Tensor],
        extra: torch.Tensor | None = None,
    ) -> tuple[Pair, dict[str, list[torch.Tensor]]]:
        total = torch.quantize_per_tensor(xs[0], 0.047, 61, torch.quint8)
        for x in xs:
            total = torch.ops.quantized.add(total, torch.quantize_per_tensor(x, 0.04, 3, torch.quint8), 0.1, 50)
        if extra is not None:
            total = torch.ops.quantized.mul(total, torch.quantize_per_tensor(extra, 0.1, 9, torch.quint8), 0.1, 50)
        return Pair(total, total.dequantize()), {"first": [pair[0], total], "second": [named["a"] + named["b.c"]]}


class Optional(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, y: torch.Tensor) -> torch.Tensor:
        if mask is not None:
            x = x * mask
        q, r = torch.quantize_per_tensor(x, 0.047, 61, torch.quint8), torch.quantize_per_tensor(y, 0.1, 3, torch.quint8)
        return torch.ops.quantized.add(q, r, 0.1, 50).dequantize()
