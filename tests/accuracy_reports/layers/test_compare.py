"""What compare takes for PyTorch's result: codes to the last one, floats within rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from accuracy_reports.layers import compare
from accuracy_reports.layers.compare import LayerComparison, compare_captured
from accuracy_reports.layers.cuts import cut_at_quantization, cut_every_float
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import CapturedModel, capture_model
from tests.frontend.models import UNOPTIMIZED, quantize
from tests.frontend.test_floating import Calls

SHAPE = (1, 4, 8, 8)


def _between_codes(_: Any, x: torch.Tensor) -> torch.Tensor:
    """Codes, a float part that is not exact, codes again, and a float output."""
    real = functional.max_pool2d(quantize(x), 2).dequantize()
    again = quantize(functional.softmax(real * 3, 1), 0.004, 0)
    return functional.relu(again).dequantize()


def _captured() -> tuple[CapturedModel, list[Any]]:
    captured = capture_model(Calls(_between_codes).eval(), [("x", SHAPE)], "fbgemm")
    return captured, [np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)]


def test_floats_between_codes_are_cut_where_they_are_read() -> None:
    captured, inputs = _captured()
    reference = run_reference(captured, inputs)
    at_quantization = cut_at_quantization(captured.graph, reference)
    assert [array.shape for array in at_quantization.given] == [(1, 4, 4, 4)]  # the softmax
    assert len(at_quantization.graph.inputs) == 2
    assert len(cut_every_float(captured.graph, reference).given) == 3  # what mul, softmax and quantize read


def test_a_float_part_is_within_rounding_and_codes_are_equal() -> None:
    captured, inputs = _captured()
    result = compare_captured(captured, run_reference(captured, inputs), inputs, UNOPTIMIZED)
    assert result.wrong == ()
    assert all(layer.differing == 0 for layer in result.layers if layer.kind == "codes")
    assert result.largest_steps <= 4
    assert result.to_json()["wrong"] == []


def test_a_wrong_float_is_found() -> None:
    captured, inputs = _captured()
    reference = run_reference(captured, inputs)
    softmax = next(node for node in captured.graph.walk() if node.name == "aten::softmax").outputs[0].name
    reference.values[softmax] = reference.values[softmax] * np.float32(1.001)
    result = compare_captured(captured, reference, inputs, UNOPTIMIZED)
    assert [layer.op for layer in result.wrong if layer.kind == "floats"][:1] == ["aten::softmax.int"]


def test_moved_codes_lie_at_ties() -> None:
    captured, inputs = _captured()
    reference = run_reference(captured, inputs)
    node = [node for node in captured.graph.walk() if node.name == "aten::quantize_per_tensor"][1]
    source = node.args["self"].name  # type: ignore[union-attr]
    ours = reference.values[source].copy()
    ours[0, 0, 0, 0] += 0.004
    (moved,) = compare._moved_codes(captured.graph, reference, {source: ours})
    assert (moved.differing, moved.largest_difference, moved.elements) == (1, 1, ours.size)


@pytest.mark.parametrize(
    ("kind", "steps", "limit"), [("codes", 0.0, 0.0), ("floats", 1.0, 0.0), ("floats", 33.0, 32.0)]
)
def test_a_differing_code_or_too_large_a_difference_never_agrees(kind: str, steps: float, limit: float) -> None:
    layer = LayerComparison("y", "aten::relu", "", "", kind, (4,), 1, 1.0, steps, limit, 9.0)
    assert not layer.agrees
    assert LayerComparison("y", "aten::relu", "", "", kind, (4,), 0, 0.0, 0.0, limit, 9.0).agrees
