"""Products of float matrices in register tiles, at their boundaries and of any number of rows."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import qtorch_relay
from qtorch_relay.errors import FloatModelWarning

# Left and right operands: whole tiles, rows and columns that fill none, fewer columns than a vector, one row.
PAIRS = (
    ((8, 12, 32), (8, 32, 128)),
    ((2, 13, 7), (2, 7, 33)),
    ((3, 5, 6, 20), (3, 5, 20, 70)),
    ((1, 9, 8), (8, 5)),
    ((7, 33), (33, 17)),
    ((1, 300), (300, 80)),
    ((2, 4, 5), (5, 6)),
    ((4, 1, 3), (1, 3, 16)),
)


class _Products(nn.Module):
    def forward(self, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(a @ b for a, b in zip(operands[::2], operands[1::2], strict=True))


class _Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, 70)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return y @ y.transpose(1, 2)


def _compiled(module: nn.Module, infos: list[Any], target: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FloatModelWarning)
        return qtorch_relay.compile(module, infos, target, kernels=False)


def _assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    # sums in another order: a few float32 roundings of the largest one
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("target", ["host", "generic"])
def test_products_equal_pytorch_up_to_the_order_of_additions(target: str) -> None:
    torch.manual_seed(0)
    operands = [torch.randn(shape) for pair in PAIRS for shape in pair]
    compiled = _compiled(_Products(), [(f"x{i}", tuple(x.shape)) for i, x in enumerate(operands)], target)
    for ours, theirs in zip(compiled(*operands), _Products()(*operands), strict=True):
        _assert_close(ours, theirs)


def test_the_number_of_rows_can_be_named() -> None:
    torch.manual_seed(0)
    module = _Linear().eval()
    compiled = _compiled(module, [("x", ("n", 5, 20))], "host")
    with torch.no_grad():
        for count in (1, 2, 7):
            x = torch.randn(count, 5, 20)
            _assert_close(compiled(x), module(x))
