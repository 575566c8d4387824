"""Runs a captured model with PyTorch's own kernels and keeps every intermediate value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.inputs import InputSpec
from qtorch_relay.capture.interpreter import run_node
from qtorch_relay.capture.packed import is_packed, quantized_tensor, repack
from qtorch_relay.capture.torchscript import CapturedModel
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.qparams import PerTensor


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """What a model computed.

    values: by Value.name of the model's Graph: QuantizedTensor (codes and parameters), array, number, or a list,
        tuple or dict of these. Values in a loop hold their last turn; those of a branch not taken are absent.
    output: the model's output, in its own structure, as torch tensors (quantized ones stay quantized).
    """

    values: dict[str, Any]
    output: Any

    @property
    def flat_outputs(self) -> list[Any]:
        """The tensors of the output, in the order of a compiled model's flat outputs: QuantizedTensor or array."""
        return [quantized_tensor(t) if t.is_quantized else t.detach().numpy() for t in _flat(self.output)]


def run_reference(
    captured: CapturedModel,
    inputs: Sequence[Any] | Mapping[str, Any],
    engine: str | None = None,
    keep: Collection[str] | None = None,
) -> ReferenceRun:
    """Returns every intermediate value of a model, computed node by node by PyTorch's kernels.

    inputs: torch tensors or numpy arrays, in order or by name; for a quantized input, an array holds its codes.
    engine: whose kernels run; None = the engine the model was captured for. Weights are packed anew for it, so the
        result is that engine's even where the model was made under another.
    keep: the tensors whose values are wanted, by name; None = all. The others take memory only while they are used.
    Raises: InvalidInputError if inputs differ from those the model was captured for.
    """
    tensors = _check_inputs(captured, inputs)
    with quantized_engine(engine or captured.graph.engine), torch.no_grad():
        run = _Run(keep, _last_uses(captured.torch_graph))
        for value, tensor in zip(captured.torch_graph.inputs(), tensors, strict=True):
            run.bind(value, tensor.clone())  # the model may change its input in place
        outputs = run.graph(captured.torch_graph)
    return ReferenceRun(run.recorded, outputs[0] if len(outputs) == 1 else tuple(outputs))


class _Run:
    """Live values by name, and copies of them made at once, before an in-place op changes them.

    last_uses: the values that no node behind one of the graph's uses, by that node's place.
    """

    def __init__(self, keep: Collection[str] | None, last_uses: Mapping[int, Sequence[str]]) -> None:
        self._keep = keep
        self._last_uses = last_uses
        self.live: dict[str, Any] = {}
        self.recorded: dict[str, Any] = {}
        self._repacked: dict[int, Any] = {}

    def bind(self, value: Any, result: Any) -> None:
        name = value.debugName()
        self.live[name] = result
        is_wanted = self._keep is None or not isinstance(result, torch.Tensor) or name in self._keep
        if is_wanted and not isinstance(result, torch.ScriptObject):
            self.recorded[name] = _copy(result)

    def graph(self, graph: Any) -> list[Any]:
        """Runs the whole graph, lets go of values that nothing will use, and returns its outputs."""
        for place, node in enumerate(graph.nodes()):
            self._node(node)
            for name in self._last_uses.get(place, ()):
                del self.live[name]
        return [self.live[value.debugName()] for value in graph.outputs()]

    def block(self, block: Any) -> list[Any]:
        """Runs a graph or block and returns its outputs."""
        for node in block.nodes():
            self._node(node)
        return [self.live[value.debugName()] for value in block.outputs()]

    def _node(self, node: Any) -> None:
        kind = node.kind()
        if kind == "prim::Constant":
            self.live[node.output().debugName()] = self._constant(node.output().toIValue())
            return
        args = [self.live[value.debugName()] for value in node.inputs()]
        if kind == "prim::If":
            results = self._if(node, args)
        elif kind == "prim::Loop":
            results = self._loop(node, args)
        else:
            results = list(run_node(node, args))
        for value, result in zip(node.outputs(), results, strict=True):
            self.bind(value, result)

    def _constant(self, value: Any) -> Any:
        if is_packed(value):
            key = hash(value)
            if key not in self._repacked:
                self._repacked[key] = repack(value)
            return self._repacked[key]
        return value

    def _if(self, node: Any, args: list[Any]) -> list[Any]:
        taken, other = node.blocks()
        return self.block(taken if args[0] else other)

    def _loop(self, node: Any, args: list[Any]) -> list[Any]:
        """prim::Loop(int max_trip_count, bool condition, carried...); body: (int i, carried) -> (bool, carried)"""
        (body,) = node.blocks()
        trips, condition, *carried = args
        turn = 0
        while condition and turn < trips:
            for value, result in zip(body.inputs(), [turn, *carried], strict=True):
                self.bind(value, result)
            condition, *carried = self.block(body)
            turn += 1
        return carried


def _last_uses(graph: Any) -> dict[int, list[str]]:
    """Returns which values have their last use at each of a graph's own nodes, blocks within it included."""
    made = {value.debugName() for value in graph.inputs()}
    last: dict[str, int] = {}
    for place, node in enumerate(graph.nodes()):
        for name in _reads(node):
            if name in made:
                last[name] = place
        made.update(value.debugName() for value in node.outputs())
    for value in graph.outputs():
        last.pop(value.debugName(), None)
    places: dict[int, list[str]] = {}
    for name, place in last.items():
        places.setdefault(place, []).append(name)
    return places


def _reads(node: Any) -> Iterator[str]:
    for value in node.inputs():
        yield value.debugName()
    for block in node.blocks():
        for inner in block.nodes():
            yield from _reads(inner)
        for value in block.outputs():
            yield value.debugName()


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return quantized_tensor(value) if value.is_quantized else _array(value)
    if isinstance(value, list | tuple):
        return type(value)(_copy(v) for v in value)
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return value


def _flat(output: Any) -> list[torch.Tensor]:
    if isinstance(output, list | tuple | dict):
        items = output.values() if isinstance(output, dict) else output
        return [leaf for item in items for leaf in _flat(item)]
    return [] if output is None else [output]


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    copy: npt.NDArray[Any] = np.array(tensor.detach().numpy(), order="C", copy=True)
    return copy


def _tensor(array: npt.NDArray[Any], qparams: PerTensor | None) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array, order="C"))
    if qparams is None or array.dtype != qparams.dtype:
        return tensor
    return torch._make_per_tensor_quantized_tensor(tensor, qparams.scale, qparams.zero_point)


def _check_inputs(captured: CapturedModel, inputs: Sequence[Any] | Mapping[str, Any]) -> list[torch.Tensor]:
    expected = captured.graph.inputs
    names = [item.value.name for item in expected]
    if isinstance(inputs, Mapping):
        if set(inputs) != set(names):
            raise InvalidInputError(f"inputs are named {', '.join(inputs)}; the model's are {', '.join(names)}")
        inputs = [inputs[name] for name in names]
    if isinstance(inputs, torch.Tensor | np.ndarray):
        inputs = [inputs]
    if len(inputs) != len(expected):
        raise InvalidInputError(f"{len(inputs)} inputs given; the model takes {len(expected)}: {', '.join(names)}")
    given = zip(inputs, expected, strict=True)
    tensors = [_tensor(x, item.qparams) if isinstance(x, np.ndarray) else x for x, item in given]
    for item, tensor in zip(expected, tensors, strict=True):
        spec = InputSpec(item.value.name, item.shape, item.dtype, item.qparams)
        if tuple(tensor.shape) != item.shape or tensor.dtype != spec.torch_dtype:
            raise InvalidInputError(
                f"input {item.value.name!r} is {tensor.dtype} {tuple(tensor.shape)}; "
                f"the model was captured for {item.dtype} {item.shape}"
            )
    return tensors
