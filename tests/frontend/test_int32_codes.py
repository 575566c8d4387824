"""Ops that PyTorch runs on qint32 and we do not convert for it: they are refused by name, with what is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.frontend.importer import import_graph
from tests.matrix.case import Apply

q = torch.ops.quantized
ONES = torch.ones(4)

OPS: dict[str, Callable[[torch.Tensor], Any]] = {
    "quantized::softmax": lambda x: q.softmax(x, 1, 1e-6, 0),
    "quantized::layer_norm": lambda x: q.layer_norm(x, [4], None, None, 1e-5, 0.01, 0),
    "quantized::instance_norm": lambda x: q.instance_norm(x, None, None, 1e-5, 0.01, 0),
    "quantized::batch_norm": lambda x: q.batch_norm(x, ONES, ONES, ONES, ONES, 1e-5, 0.01, 0),
    "quantized::hardswish": lambda x: q.hardswish(x, 0.01, 0),
    "quantized::add.Scalar": lambda x: q.add.Scalar(x, 0.5),
}


@pytest.mark.parametrize("name", OPS)
def test_refused_by_name(name: str) -> None:
    def forward(x: torch.Tensor) -> Any:
        return OPS[name](torch.quantize_per_tensor(x, 1e-3, 5, torch.qint32))

    captured = capture_model(Apply(forward).eval(), [("x", (2, 4, 4))], "fbgemm")
    with pytest.raises(UnsupportedQuantSchemeError, match=rf"{name}.*int32; accepted are uint8 and int8"):
        import_graph(captured.graph)
