"""What is said to come nearest to an op that cannot be imported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qtorch_relay as qr
from qtorch_relay.capture.graph import Node
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend import ops as _ops  # noqa: F401  (fills the registry)
from qtorch_relay.frontend.unsupported import nearest_form


@pytest.mark.parametrize(
    ("op", "nearest"),
    [
        ("aten::quantize_per_tensor.no_such_overload", "aten::quantize_per_tensor"),
        ("somebody::hardswish", "aten::hardswish, quantized::hardswish"),
        ("quantized::convolution2d", "aten::_convolution"),
        ("quantized::my_own_op", "aten::dequantize, the op on floats, and aten::quantize_per_tensor"),
        ("aten::real", ""),
    ],
)
def test_the_nearest_form(op: str, nearest: str) -> None:
    assert nearest_form(Node(op, {}, ())).startswith(nearest)
    assert bool(nearest_form(Node(op, {}, ()))) is bool(nearest)


class Refused(nn.Module):
    """Ops that have no converter, and ops whose converter does not take these operands, one after another."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        spectrum = torch.fft.fft(x).abs()
        first = x.topk(2)[0] + 1
        return spectrum + first.sum(), x.sort()[0].relu(), torch.linalg.inv(x), x.relu()


@pytest.mark.parametrize("script", [False, True])
def test_everything_that_cannot_be_imported_is_told_at_once(script: bool) -> None:
    x = torch.randn(4, 4)
    model = torch.jit.script(Refused()) if script else Refused()
    with pytest.raises(UnsupportedOpError) as caught:
        qr.from_pytorch(model, [("x", x)])
    message = str(caught.value)
    for op, line in (("fft_fft", "fft.fft"), ("linalg_inv", "linalg.inv"), ("topk", "topk"), ("sort", "sort")):
        said = next(part for part in message.splitlines() if f"aten::{op}" in part)
        assert "test_unsupported.py:" in said, line
    # what depends on them is not to blame, nor what can be imported
    assert "aten::add" not in message
    assert "aten::relu" not in message
