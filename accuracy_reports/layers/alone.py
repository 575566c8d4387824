"""Runs a few ops of a float model on given inputs: what a layer would give if it alone were not quantized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from accuracy_reports.layers.counterparts import Counterpart, Reads
from qtorch_relay.capture.interpreter import run_node
from qtorch_relay.capture.torchscript import CapturedModel


class FloatOps:
    """The ops of a captured float model by the names of their outputs."""

    def __init__(self, captured: CapturedModel) -> None:
        self._root = Reads(captured.graph).root
        self._makers = {value.debugName(): node for node in _walk(captured.torch_graph) for value in node.outputs()}

    def reads(self, counterpart: Counterpart) -> set[str]:
        """Returns the values that run needs of a run of the whole model, where they are not given."""
        nodes = [self._makers[name] for name in counterpart.chain]
        return {value.debugName() for node in nodes for value in node.inputs()} - set(counterpart.chain)

    def run(self, counterpart: Counterpart, given: Mapping[str, Any], values: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Returns the value of a counterpart, its chain computed from given values.

        given: by float value, in place of what the float model computed (and of what only hands that on); values: what
        it did, for anything else that the chain reads. Both are numpy arrays, numbers, or lists of these.
        """
        known = {self._root(name): _tensor(value) for name, value in given.items()}
        with torch.no_grad():
            for name in counterpart.chain:
                node = self._makers[name]
                arguments = [self._value(item, known, values) for item in node.inputs()]
                results = run_node(node, arguments)
                known.update(zip((value.debugName() for value in node.outputs()), results, strict=True))
        result: npt.NDArray[Any] = known[counterpart.value].detach().numpy()
        return result

    def _value(self, value: Any, known: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        name = value.debugName()
        if self._root(name) in known:
            return known[self._root(name)]
        node = self._makers.get(name)
        if node is not None and node.kind() == "prim::Constant":
            return node.output().toIValue()
        if node is not None and node.kind() == "prim::ListConstruct":
            return [self._value(item, known, values) for item in node.inputs()]
        return _tensor(values[name])


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # A copy: ops may write into what they are given.
        return torch.from_numpy(np.array(value))
    if isinstance(value, list | tuple):
        return type(value)(_tensor(item) for item in value)
    return value


def _walk(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _walk(inner)
