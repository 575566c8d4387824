"""Products of float matrices in register tiles, at their boundaries and of any number of rows; attention.

PyTorch has Intel MKL multiply. Where its order of additions is known, ours is the same to the last bit.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import qtorch_relay
from qtorch_relay.errors import FloatModelWarning
from tests.frontend.mkl import in_mkls_order

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


def _differing(module: nn.Module, inputs: list[torch.Tensor], infos: list[Any] | None = None) -> list[int]:
    """Returns how many elements of each output differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            expected = module.eval()(*inputs)
    finally:
        torch.set_num_threads(threads)
    compiled = _compiled(module, infos or [(f"x{i}", tuple(x.shape)) for i, x in enumerate(inputs)], "host")
    pairs = zip(compiled(*inputs), expected, strict=True)
    return [int((ours != theirs).sum()) for ours, theirs in pairs]


# At least 4 rows and 12 columns; depths of one block, of two halves, of two halves and one, of blocks and a rest.
EXACT_PAIRS = (
    ((8, 12, 32), (8, 32, 128)),
    ((3, 5, 6, 20), (3, 5, 20, 70)),
    ((4, 192), (192, 12)),
    ((7, 300), (300, 17)),
    ((6, 193), (193, 80)),
    ((2, 9, 383), (2, 383, 33)),
    ((5, 400), (400, 64)),
    ((13, 1100), (1100, 16)),
)


@in_mkls_order
def test_products_equal_pytorch_to_the_last_bit() -> None:
    torch.manual_seed(0)
    operands = [torch.randn(shape) for pair in EXACT_PAIRS for shape in pair]
    assert _differing(_Products(), operands) == [0] * len(EXACT_PAIRS)


class _Linears(nn.Module):
    """Linear layers of inputs that are contiguous, and that are not: PyTorch adds the bias first, or last."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(400, 33), nn.Linear(300, 20)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = x.reshape(-1, 400)
        return (
            self.wide(x),
            self.wide(rows),
            self.wide(x.unsqueeze(1)),
            self.narrow(x[..., 50:350]),
            self.narrow(rows[:, :300]),
            torch.addmm(self.narrow.bias, rows[:, :300], self.narrow.weight.t()),
        )


@in_mkls_order
@pytest.mark.parametrize("batch", [2, "n"])
def test_linear_layers_equal_pytorch_to_the_last_bit(batch: int | str) -> None:
    torch.manual_seed(0)
    assert _differing(_Linears(), [torch.randn(2, 7, 400)], [("x", (batch, 7, 400))]) == [0] * 6


class _Attention(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v, added, allowed = inputs
        attend = functional.scaled_dot_product_attention
        return (
            attend(q, k, v),
            attend(q, k, v, is_causal=True),
            attend(q, k, v, scale=0.3),
            attend(q, k, v, attn_mask=added),
            attend(q, k, v, attn_mask=allowed > 0),
        )


@in_mkls_order
@pytest.mark.parametrize(("length", "keys", "width"), [(50, 50, 32), (70, 197, 64), (9, 300, 16)])
def test_attention_equals_pytorchs_fused_kernel_to_the_last_bit(length: int, keys: int, width: int) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, count, width) for count in (length, keys, keys)]
    allowed = torch.randn(length, keys)
    allowed[3] = -1  # looks at nothing
    assert _differing(_Attention(), [*tensors, torch.randn(length, keys), allowed]) == [0] * 5


def test_attention_of_long_sequences_is_within_rounding() -> None:
    """PyTorch takes more than 512 keys in pieces, each relative to the greatest score so far."""
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, count, 16) for count in (20, 600, 600)]
    inputs += [torch.randn(20, 600) for _ in range(2)]
    compiled = _compiled(_Attention(), [(f"x{i}", tuple(x.shape)) for i, x in enumerate(inputs)], "host")
    for ours, theirs in zip(compiled(*inputs), _Attention()(*inputs), strict=True):
        _assert_close(ours, theirs)
