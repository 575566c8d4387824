"""Finds for each value of a quantized model the value of the float model that it stands for.

The two graphs are walked side by side along the data: an op's counterpart is the float op of its kind that reads the
counterparts of its inputs. Where several do (branches of one input), the module's name decides, then the order. A fused
op stands for the last op that was fused into it:

    quantized::conv2d_relu (layer1.conv1)     <->     aten::_convolution, aten::batch_norm, aten::relu (layer1.relu)

Quantizing and dequantizing change nothing in float: their counterpart is their input's. Modules are matched by name
alone where what is before them has no counterpart, so that one unknown op does not lose the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from qtorch_relay.capture.graph import (
    ConvParams,
    Graph,
    LinearFp16Params,
    LinearParams,
    Node,
    Operand,
    TensorConstant,
    Value,
)

_NO_CHANGE = {"quantize_per_tensor", "quantize_per_channel", "dequantize", "contiguous", "clone", "dropout", "alias"}
_PARAMETERS = ("._packed_params", ".weight")
# One kind for the names that an op has in float and quantized.
_KINDS = {
    "_convolution": "conv",
    "addmm": "linear",
    "add_scalar": "add",
    "mul_scalar": "mul",
    "relu6": "hardtanh",
    "clamp": "hardtanh",
    "reshape": "view",
    "batch_norm1d": "batch_norm",
    "batch_norm2d": "batch_norm",
    "batch_norm3d": "batch_norm",
}
_RELU, _NORM, _CONCATENATE, _LIST = "relu", "batch_norm", "cat", "prim::ListConstruct"
_FOLDS_NORMS = ("conv", "linear")


@dataclass(frozen=True)
class Counterpart:
    """value: of the float model. chain: the outputs of the ops that make it, first to last; () if nothing is computed.

    label: the module (else the op) that computes it last.
    inputs: values of the quantized model whose counterparts the chain reads; () if not all have some.
    """

    value: str
    chain: tuple[str, ...]
    label: str
    inputs: tuple[str, ...]


def module_name(node: Node) -> str:
    """Returns the qualified name of the module that a node belongs to, "" for the model itself.

    The parameters' own name is better than the scope, in which FX keeps only the last part ("0" for "stage2.0").
    """
    for value in node.args.values():
        if isinstance(value, ConvParams | LinearParams | LinearFp16Params | TensorConstant) and value.name is not None:
            for suffix in _PARAMETERS:
                if suffix in value.name:
                    return value.name.split(suffix)[0]
    return node.scope


def tensors_read(operand: Operand) -> Iterator[str]:
    """Yields the names of the values in an operand, those in lists and tuples too."""
    if isinstance(operand, Value):
        yield operand.name
    elif isinstance(operand, list | tuple):
        for item in operand:
            yield from tensors_read(item)


def inputs_of(node: Node) -> tuple[str, ...]:
    """Returns the names of the values that a node reads, in order."""
    return tuple(name for value in node.args.values() for name in tensors_read(value))


def kind_of(node: Node) -> tuple[str, bool]:
    """Returns the kind of op, the same in float and quantized, and whether a relu is fused into it."""
    base = node.name.partition("::")[2].removesuffix("_dynamic")
    fused = node.name.startswith("quantized::") and base.endswith(f"_{_RELU}")
    base = base.removesuffix(f"_{_RELU}") if fused else base
    base = _KINDS.get(base, base).removesuffix("_")
    if base.startswith("conv"):
        base = "conv"
    return _KINDS.get(base, base), fused


def find_counterparts(quantized: Graph, floats: Graph) -> dict[str, Counterpart]:
    """Returns the counterpart of each value of the quantized model that has one, by its name."""
    return _Search(quantized, floats).run()


class Reads:
    """What the ops of a graph read: values that are no lists, since a list that an op reads stands for its items."""

    def __init__(self, graph: Graph) -> None:
        self.makers = {value.name: node for node in graph.walk() for value in node.outputs}
        self._same: dict[str, str] = {}  # what an op hands on unchanged, by that op's output
        self.readers: dict[str, list[Node]] = defaultdict(list)
        self.of_module: dict[tuple[str, str], list[Node]] = defaultdict(list)
        for node in graph.walk():
            if kind_of(node)[0] in _NO_CHANGE and inputs_of(node):
                self._same[node.outputs[0].name] = self.root(inputs_of(node)[0])
            elif node.name != _LIST:
                for name in dict.fromkeys(map(self.root, self.inputs(node))):
                    self.readers[name].append(node)
                self.of_module[kind_of(node)[0], module_name(node)].append(node)

    def root(self, name: str) -> str:
        """Returns the value that a value is but quantized, dequantized or handed on."""
        return self._same.get(name, name)

    def inputs(self, node: Node) -> list[str]:
        """Returns what a node reads, in order."""
        return [item for name in inputs_of(node) for item in self._items(name)]

    def _items(self, name: str) -> Iterator[str]:
        maker = self.makers.get(name)
        if maker is None or maker.name != _LIST:
            yield name
            return
        for item in inputs_of(maker):
            yield from self._items(item)


class _Search:
    """found: counterparts by value of the quantized model; claimed: outputs of float ops that are counterparts."""

    def __init__(self, quantized: Graph, floats: Graph) -> None:
        self.quantized = quantized
        self.ours, self.theirs = Reads(quantized), Reads(floats)
        self.claimed: set[str] = set()
        self.found: dict[str, Counterpart] = {
            ours.value.name: Counterpart(theirs.value.name, (), "input", (ours.value.name,))
            for ours, theirs in zip(quantized.inputs, floats.inputs, strict=False)
        }

    def run(self) -> dict[str, Counterpart]:
        for node in self.quantized.walk():
            if node.blocks or node.name == _LIST:
                continue
            if kind_of(node)[0] in _NO_CHANGE:
                self._hand_on(node)
                continue
            start = self._start(node)
            if start is not None:
                self._claim(node, start)
        return self.found

    def _hand_on(self, node: Node) -> None:
        """The counterpart of what is only quantized or dequantized is its input's."""
        source = self.found.get(inputs_of(node)[0]) if inputs_of(node) else None
        if source is not None:
            self.found[node.outputs[0].name] = replace(source, chain=(), inputs=inputs_of(node))

    def _start(self, node: Node) -> Node | None:
        """Returns the first float op of what a quantized op stands for."""
        kind, module = kind_of(node)[0], module_name(node)
        names = self._known_inputs(node)
        if names is not None:
            wanted = self._float_roots(names)
            candidates = [
                reader
                for reader in self.theirs.readers[wanted[0]]
                if self._fits(reader, node) and sorted(map(self.theirs.root, self.theirs.inputs(reader))) == wanted
            ]
            named = [reader for reader in candidates if module_name(reader) == module]
            return next(iter(named or candidates), None)
        named = self.theirs.of_module[kind, module]
        is_unique = len(named) == 1 and len(self.ours.of_module[kind, module]) == 1
        return named[0] if module and is_unique and self._fits(named[0], node) else None

    def _float_roots(self, names: list[str]) -> list[str]:
        return sorted(self.theirs.root(self.found[name].value) for name in names)

    def _known_inputs(self, node: Node) -> list[str] | None:
        """Returns what a node reads if all of that has counterparts; None if it has not, or reads nothing.

        TorchScript may have made one concatenation of two in float: then the inner one has no counterpart, and what
        it reads is taken in its place.
        """
        names: list[str] = []
        for name in self.ours.inputs(node):
            maker = self.ours.makers.get(name)
            if name in self.found:
                names.append(name)
                continue
            inner = None
            if maker is not None and kind_of(maker)[0] == kind_of(node)[0] == _CONCATENATE:
                inner = self._known_inputs(maker)
            if inner is None:
                return None
            names += inner
        return names or None

    def _fits(self, candidate: Node, node: Node) -> bool:
        return (
            kind_of(candidate)[0] == kind_of(node)[0]
            and candidate.outputs[0].name not in self.claimed
            and len(candidate.outputs) == len(node.outputs)
        )

    def _claim(self, node: Node, start: Node) -> None:
        """Follows what was fused into the quantized op, and notes the counterparts of its outputs."""
        self.claimed.add(start.outputs[0].name)
        chain = [start]
        kind, fused = kind_of(node)
        if len(node.outputs) == 1:
            readers = self.ours.readers[self.ours.root(node.outputs[0].name)]
            if kind in _FOLDS_NORMS and not any(kind_of(reader)[0] == _NORM for reader in readers):
                self._extend(chain, _NORM)
            if fused and not self._extend(chain, _RELU):
                self._extend(chain, "hardtanh")
        label = module_name(chain[-1]) or chain[-1].op
        names = tuple(item.outputs[0].name for item in chain)
        inputs = tuple(self._known_inputs(node) or ())
        for ours, theirs in zip(node.outputs, chain[-1].outputs, strict=True):
            self.found[ours.name] = Counterpart(theirs.name, names, label, inputs)

    def _extend(self, chain: list[Node], kind: str) -> bool:
        """Appends the one op that reads the end of a chain, if it is of a kind."""
        readers = self.theirs.readers[chain[-1].outputs[0].name]
        if len(readers) != 1 or kind_of(readers[0])[0] != kind:
            return False
        chain.append(readers[0])
        self.claimed.add(readers[0].outputs[0].name)
        return True


def why_missing(node: Node, reads: Reads, found: Mapping[str, Counterpart]) -> str:
    """Says why a node of the quantized model has no counterpart. reads: of that model."""
    kind, _ = kind_of(node)
    if any(name not in found for name in reads.inputs(node)):
        return f"the float model has no {kind} of this name, and an input of this one has no counterpart"
    return f"the float model has no {kind} that reads the same"
