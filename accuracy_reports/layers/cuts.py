"""Cuts a program where floats are read, so that what is behind the cut starts from PyTorch's own values.

A difference of one float32 step is harmless in a float layer, but may move a code at a rounding tie, and that code
everything after it. Behind a cut nothing is inherited: what still differs was made there.

    y = layer_norm(x); q = quantize(y)     ->     y = layer_norm(x); q = quantize(y.given), where y.given is an input
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.capture.graph import Block, Graph, GraphInput, Node, Operand, Value
from qtorch_relay.capture.reference import ReferenceRun
from qtorch_relay.qparams import PerTensor, QuantizedTensor

GIVEN = ".given"


@dataclass(frozen=True, eq=False)
class Cut:
    """A graph with more inputs: the model's, then one for each value that was cut.

    names: the values that were cut, which the graph still computes; given: PyTorch's arrays in their place.
    """

    graph: Graph
    names: tuple[str, ...]
    given: tuple[npt.NDArray[Any], ...]

    def with_ends(self) -> Graph:
        """Returns the graph with the cut values among its outputs, behind the model's own."""
        return replace(self.graph, output=(self.graph.output, tuple(Value(name) for name in self.names)))


def cut_every_float(graph: Graph, reference: ReferenceRun) -> Cut:
    """Returns the graph in which every op reads PyTorch's floats, so that each float op stands alone."""
    return _cut(graph, reference, lambda node: True)


def cut_every_value(graph: Graph, reference: ReferenceRun) -> Cut:
    """Returns the graph in which every op reads PyTorch's floats and codes, so that each op stands alone."""
    return _cut(graph, reference, lambda node: True, codes=True)


def cut_at_quantization(graph: Graph, reference: ReferenceRun) -> Cut:
    """Returns the graph in which whatever makes codes of floats reads PyTorch's, so that no code moves at a tie."""
    return _cut(graph, reference, makes_codes)


def makes_codes(node: Node) -> bool:
    """Says whether a node quantizes the floats that it reads: quantize_per_tensor, or a layer that does so inside."""
    return node.name.startswith(("aten::quantize_per_", "quantized::"))


def _cut(graph: Graph, reference: ReferenceRun, is_cut: Callable[[Node], bool], *, codes: bool = False) -> Cut:
    """codes: cut tensors that are quantized per tensor too, not floats alone."""
    inputs = {item.value.name for item in graph.inputs}
    given: dict[str, npt.NDArray[Any]] = {}
    qparams: dict[str, PerTensor] = {}

    def operand(value: Operand) -> Operand:
        if isinstance(value, list | tuple):
            return type(value)(operand(item) for item in value)
        if not isinstance(value, Value) or value.name in inputs:
            return value
        array = reference.values.get(value.name)
        if codes and isinstance(array, QuantizedTensor) and isinstance(array.qparams, PerTensor):
            qparams[value.name], array = array.qparams, array.codes
        elif not isinstance(array, np.ndarray) or array.ndim == 0 or array.dtype.kind != "f":
            return value
        given[value.name] = array
        return Value(value.name + GIVEN)

    def rewrite(node: Node) -> Node:
        blocks = tuple(Block(block.inputs, tuple(map(rewrite, block.nodes)), block.outputs) for block in node.blocks)
        if not is_cut(node):
            return replace(node, blocks=blocks)
        return replace(node, args={name: operand(value) for name, value in node.args.items()}, blocks=blocks)

    nodes = tuple(rewrite(node) for node in graph.nodes)
    added = tuple(
        GraphInput(Value(name + GIVEN), array.shape, str(array.dtype), qparams.get(name))
        for name, array in given.items()
    )
    layouts = dict(graph.layouts)
    layouts.update({name + GIVEN: layouts[name] for name in given if name in layouts})
    cut = replace(graph, inputs=(*graph.inputs, *added), nodes=nodes, layouts=layouts, arguments=())
    return Cut(cut, tuple(given), tuple(given.values()))
