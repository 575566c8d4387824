"""Captures whose reference run is held against the model itself."""

# No `from __future__ import annotations`: torch.jit.script cannot read annotations that are strings.

import torch
from torch import nn

from qtorch_relay.capture.graph import Graph, Node
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model


def quantize(x: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(x, 0.05, 64, torch.quint8)


def check(model: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    """Captures a model, compares the reference run with the model itself, and returns the graph."""
    captured = capture_model(model, [(f"x{i}", shape) for i, shape in enumerate(shapes)], "fbgemm")
    examples = [torch.randn(shape, generator=torch.Generator().manual_seed(7)) for shape in shapes]
    expected = model(*(example.clone() for example in examples))
    torch.testing.assert_close(run_reference(captured, examples).output, expected, rtol=0, atol=0)
    return captured.graph


def only(graph: Graph, name: str) -> Node:
    (node,) = (node for node in graph.walk() if node.name == name)
    return node
