"""Ops on quantized tensors that write to an argument: whoever reads it afterwards gets what was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.importer import import_graph
from qtorch_relay.pipeline import compile_imported
from tests.frontend.models import UNOPTIMIZED
from tests.matrix.case import Apply

q = torch.ops.quantized
SHAPE = (2, 64)


def _quantize(x: torch.Tensor, scale: float = 0.05) -> torch.Tensor:
    return torch.quantize_per_tensor(x, scale, 99, torch.quint8)


def _add_out(x: torch.Tensor) -> Any:
    out = _quantize(x, 0.031)
    q.add.out(_quantize(x), _quantize(x, 0.02), out)
    return out


def _out_is_an_operand(x: torch.Tensor) -> Any:
    a = _quantize(x)
    q.mul_out(a, _quantize(x, 0.02), a)
    return q.add.Scalar(a, 0.5)


def _written_twice(x: torch.Tensor) -> Any:
    out = _quantize(x, 0.031)
    first = q.add(_quantize(x), q.add.out(_quantize(x), out, out), 0.06, 80)
    q.cat_out([_quantize(x)], 0, out)
    return q.add(first, out, 0.07, 90)


def _scalar_moves_the_parameters(x: torch.Tensor) -> Any:
    out = _quantize(x, 0.5)
    q.add.Scalar_out(_quantize(x), 30.0, out)
    return torch.relu(out)


def _relu6_in_place(x: torch.Tensor) -> Any:
    a = _quantize(x)
    q.relu6(a, True)
    return a


@pytest.mark.parametrize(
    "function", [_add_out, _out_is_an_operand, _written_twice, _scalar_moves_the_parameters, _relu6_in_place]
)
def test_later_readers_get_what_was_written(function: Callable[[torch.Tensor], Any]) -> None:
    x = np.random.default_rng(1).uniform(-4, 9, SHAPE).astype(np.float32)
    captured = capture_model(Apply(function).eval(), [("x", SHAPE)], "fbgemm")
    ours = compile_imported(import_graph(captured.graph), UNOPTIMIZED).run_flat([x])
    np.testing.assert_array_equal(ours[0], function(torch.from_numpy(x)).int_repr().numpy())


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = _quantize(torch.zeros(SHAPE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return q.add.out(_quantize(x), self.out, self.out)


def test_a_tensor_of_the_model_is_not_written_to() -> None:
    with pytest.raises(UnsupportedOpError, match="changes"):
        capture_model(Remembers().eval(), [("x", SHAPE)], "fbgemm")
