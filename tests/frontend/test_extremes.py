"""Extremes of tensors that are not quantized and where they are: argmax of scores, as models end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qtorch_relay as qr
from tests.frontend.models import UNOPTIMIZED, quantize

pytestmark = pytest.mark.filterwarnings("ignore:nothing in this model is int8", "ignore:there are no int8 kernels")


class Extremes(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            *(find(x) for find in (torch.max, torch.min, torch.argmax, torch.argmin, torch.amax, torch.amin)),
            *x.max(1),
            *x.min(-1, keepdim=True),
            x.argmax(1),
            x.argmin(0, keepdim=True),
            x.argmax(keepdim=True),
            x.amax((0, 2)),
            x.amin(1, keepdim=True),
        )


def _special() -> torch.Tensor:
    """Ties, infinities and NaN at the ends and in the middle."""
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).round()
    x[0, :, 0], x[0, :, 1] = -torch.inf, torch.inf
    x[1, 2, 2], x[1, 4, 2], x[2, 3, 1] = torch.nan, torch.nan, torch.inf
    x[3, 1:, 4] = -torch.inf
    return x


@pytest.mark.parametrize("target", ["host", UNOPTIMIZED], ids=["host", "unoptimized"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int8, torch.uint8])
def test_extremes_equal_pytorchs(dtype: torch.dtype, target: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 5, (4, 6, 5), generator=generator) if not dtype.is_floating_point else _special()
    x = x.to(dtype)
    for values in [x, x[2:].clone()] if dtype.is_floating_point else [x]:
        compiled = qr.compile(Extremes(), [("x", values)], target, kernels=False)
        for ours, theirs in zip(compiled(values), Extremes()(values), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


class Scores(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x).relu().dequantize().argmax(1)


def test_the_best_class_of_a_quantized_model() -> None:
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(2))
    assert torch.equal(qr.compile(Scores(), [("x", x)], UNOPTIMIZED, kernels=False)(x), Scores()(x))
