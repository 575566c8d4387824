"""Ops that move elements at the edges of what is legal: empty slices, tensors without dimensions; dropout."""

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
from tests.frontend.models import UNOPTIMIZED, quantize
from tests.matrix.case import Apply


def _outputs(result: Any) -> list[Any]:
    tensors = result if isinstance(result, tuple) else (result,)
    return [tensor.int_repr().numpy() if tensor.is_quantized else tensor.numpy() for tensor in tensors]


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: torch.cat([x[3:1], x]), (5, 4)),
        (lambda x: quantize(x)[-1:-3], (5, 4)),
        (lambda x: quantize(x)[-9:9], (5, 4)),
        (lambda x: quantize(x).flatten(), ()),
        (lambda x: quantize(x).squeeze(0), ()),
        (lambda x: quantize(x).squeeze((-1,)), ()),
        (lambda x: quantize(x).transpose(0, -1), ()),
        (lambda x: tuple(quantize(x).max(0)), ()),
        (lambda x: tuple(quantize(x).min(-1, True)), ()),
        (lambda x: nn.functional.dropout(x, 0.0, True), (3, 4)),
        (lambda x: nn.functional.dropout(x, 0.5, False), (3, 4)),
    ],
)
def test_edges_give_pytorchs_result(function: Callable[[torch.Tensor], Any], shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(2).uniform(-3, 3, shape), np.float32)
    captured = capture_model(Apply(function).eval(), [("x", shape)], "fbgemm")
    ours = compile_imported(import_graph(captured.graph), UNOPTIMIZED).run_flat([x])
    for found, expected in zip(ours, _outputs(function(torch.from_numpy(x))), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"])
def test_dropout_that_drops_is_refused(name: str) -> None:
    captured = capture_model(Apply(lambda x: getattr(torch, name)(x, 0.5, True)).eval(), [("x", (2, 3, 4))], "fbgemm")
    with pytest.raises(UnsupportedOpError, match="train is True, so it drops values at random"):
        import_graph(captured.graph)
