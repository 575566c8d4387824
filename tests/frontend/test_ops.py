"""Every converter against PyTorch's own kernels: all layers, integer codes, tolerance 0, through both paths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from accuracy_reports.layers.compare import compare_layers
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from tests.frontend.models import CASES, UNOPTIMIZED, build

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
REAL_RANGE = (-2.8, 3.1)


@pytest.fixture(autouse=True)
def _engine_as_it_was() -> Iterator[None]:
    engine = torch.backends.quantized.engine
    yield
    torch.backends.quantized.engine = engine


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_all_layers_equal_pytorch(name: str, engine: str) -> None:
    module, input_infos = build(name, engine)
    captured = capture_model(module, input_infos, engine)
    rng = np.random.default_rng(3)
    inputs = [rng.uniform(*REAL_RANGE, item.shape).astype(np.float32) for item in captured.graph.inputs]
    reference = run_reference(captured, inputs)
    # x86 is fbgemm's arithmetic for some layers and onednn's for others: its portable code is theirs
    for target in ("host",) if engine == "x86" else ("host", UNOPTIMIZED):
        layers = compare_layers(captured, reference, inputs, target)
        differing = [(layer.op, layer.differing) for layer in layers if layer.differing]
        assert differing == [], f"target={target}"
        assert len(layers) > len(captured.graph.inputs)
