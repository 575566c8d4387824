"""Turns a cleaned torch graph into the neutral Graph: constants become operands, packed params are unpacked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from qtorch_relay.capture.graph import (
    Block,
    CellParams,
    ConvParams,
    EmbeddingParams,
    Graph,
    GraphInput,
    LinearFp16Params,
    LinearParams,
    Node,
    Operand,
    QuantizedConstant,
    TensorConstant,
    Value,
)
from qtorch_relay.capture.input_arguments import named_like_type
from qtorch_relay.capture.inputs import InputSpec
from qtorch_relay.capture.interpreter import op_name, parse_schema
from qtorch_relay.capture.packed import is_packed, quantized_constant, unpack
from qtorch_relay.capture.provenance import SourceMap, module_path
from qtorch_relay.errors import QTorchRelayError, UnsupportedOpError, UnsupportedQuantSchemeError
from qtorch_relay.layout import Layout
from qtorch_relay.qparams import PerChannel

Packed: TypeAlias = ConvParams | LinearParams | LinearFp16Params | CellParams | EmbeddingParams


def to_graph(
    torch_graph: Any, specs: Iterable[InputSpec], engine: str, sources: SourceMap, layouts: Mapping[str, Layout]
) -> Graph:
    """Returns the neutral graph of a torch graph whose inputs are the given ones.

    Raises: UnsupportedQuantSchemeError or UnsupportedOpError that lists every constant that has no neutral form.
    """
    converter = _Converter(sources)
    inputs = tuple(
        GraphInput(Value(value.debugName()), _sizes(spec), spec.dtype, spec.qparams)
        for value, spec in zip(torch_graph.inputs(), specs, strict=True)
    )
    nodes = converter.nodes(torch_graph)
    outputs = [converter.output(value) for value in torch_graph.outputs()]
    converter.raise_problems()
    output = outputs[0] if len(outputs) == 1 else tuple(outputs)
    return Graph(inputs, _without_dead(nodes, output), output, engine, layouts)


def _sizes(spec: InputSpec) -> tuple[int, ...]:
    return tuple(int(size) for size in spec.shape)


class _Converter:
    def __init__(self, sources: SourceMap) -> None:
        self._sources = sources
        self._constants: dict[tuple[str, str], Operand] = {}
        self._packed: dict[tuple[int, bool], Packed] = {}
        self._contents: dict[bytes, Packed] = {}
        self._problems: list[QTorchRelayError] = []

    def raise_problems(self) -> None:
        if not self._problems:
            return
        message = "; ".join(dict.fromkeys(str(problem) for problem in self._problems))
        kinds = {type(problem) for problem in self._problems}
        raise (kinds.pop() if len(kinds) == 1 else UnsupportedOpError)(message)

    def nodes(self, block: Any) -> tuple[Node, ...]:
        return tuple(self._node(node) for node in block.nodes() if node.kind() != "prim::Constant")

    def output(self, value: Any) -> Operand:
        """Returns a graph output with the structure the model returns: tuples, lists and dicts are opened."""
        node = value.node()
        operands = [self.output(v) for v in node.inputs()] if node.kind() in _CONTAINERS else []
        if node.kind() == "prim::TupleConstruct":
            return named_like_type(operands, value.type())
        if node.kind() == "prim::ListConstruct":
            return operands
        if node.kind() == "prim::DictConstruct":
            return dict(zip(operands[::2], operands[1::2], strict=True))
        return self._operand(value, "the model's output")

    def _node(self, node: Any) -> Node:
        op = _functional_name(node)
        source = self._sources.line(node)
        schema = None if op.startswith("prim::") else parse_schema(node.schema())
        values = list(node.inputs())
        names = [] if schema is None else [a.name for a in schema.arguments]
        # prim ops have no schema; aten::format takes any number of arguments behind those in its schema
        names += [str(i) for i in range(len(names), len(values))]
        label = f"{_reader_name(node)}{self._sources.place(node)}"
        return Node(
            op=op,
            args={name: self._operand(value, label) for name, value in zip(names, values, strict=True)},
            outputs=tuple(Value(v.debugName()) for v in node.outputs()),
            scope=module_path(node),
            source=source,
            blocks=tuple(self._block(block) for block in node.blocks()),
        )

    def _block(self, block: Any) -> Block:
        return Block(
            inputs=tuple(Value(v.debugName()) for v in block.inputs()),
            nodes=self.nodes(block),
            outputs=tuple(self._operand(v, "a block's output") for v in block.outputs()),
        )

    def _operand(self, value: Any, consumer: str) -> Operand:
        if value.node().kind() != "prim::Constant":
            return Value(value.debugName())
        name: str = value.debugName()
        key = (name, "1d" if "1d" in consumer else "")
        if key not in self._constants:
            path = name.removeprefix("self.") if name.startswith("self.") else None
            try:
                self._constants[key] = self._constant(value.toIValue(), path, consumer, name)
            except QTorchRelayError as error:
                self._problems.append(error)
                return None
        return self._constants[key]

    def _constant(self, value: Any, path: str | None, consumer: str, name: str) -> Operand:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.Tensor):
            return _tensor(value, path, consumer)
        if is_packed(value):
            return self._unpacked(value, path or f"packed.{name}", consumer)
        if isinstance(value, list):
            return [self._constant(v, path, consumer, name) for v in value]
        if isinstance(value, tuple):
            return tuple(self._constant(v, path, consumer, name) for v in value)
        if isinstance(value, dict):
            return {k: self._constant(v, path, consumer, name) for k, v in value.items()}
        if isinstance(value, torch.device | torch.dtype):
            return str(value)
        what = value._type() if isinstance(value, torch.ScriptObject) else type(value).__name__
        raise UnsupportedOpError(f"{consumer} takes {path or 'a constant'} of type {what}, which cannot be imported")

    def _unpacked(self, packed: Any, path: str, consumer: str) -> Packed:
        # hash() of a ScriptObject is the identity of the C++ object; every path to a shared module gives the same.
        key = (hash(packed), "1d" in consumer)
        if key not in self._packed:
            params = unpack(packed, path, consumer)
            # Freezing copies a shared module's weights for every path to it; equal contents find each other again.
            self._packed[key] = self._contents.setdefault(_digest(params), params)
        return self._packed[key]


def _functional_name(node: Any) -> str:
    """Returns the op's name; an in-place op of one tensor, whose mutation nobody else sees, has its functional name.

    With two tensors the names stay apart: add promotes to the wider dtype, add_ keeps that of its first tensor.
    """
    name = op_name(node)
    schema = parse_schema(node.schema())
    base, _, overload = name.partition(".")
    if schema is None or not base.endswith("_") or sum("Tensor" in str(a.type) for a in schema.arguments) != 1:
        return name
    twin = torch._C._get_schema(base[:-1], overload) if overload in _overloads(base[:-1]) else None
    if twin is None or [a.name for a in twin.arguments] != [a.name for a in schema.arguments]:
        return name
    return name.replace(base, base[:-1], 1)


def _overloads(name: str) -> list[str]:
    try:
        return list(torch._C._jit_get_operation(name)[1] or [])
    except RuntimeError:
        return []


def _reader_name(node: Any) -> str:
    """Returns the op that uses a node's arguments: for a list or tuple, the op that takes it."""
    while node.kind() in _CONTAINERS and list(node.output().uses()):
        node = next(iter(node.output().uses())).user
    return op_name(node)


_CONTAINERS = ("prim::TupleConstruct", "prim::ListConstruct", "prim::DictConstruct")


def _digest(params: Packed) -> bytes:
    digest = hashlib.sha256(type(params).__name__.encode())
    if isinstance(params, EmbeddingParams):
        digest.update(repr((params.rows.shape, params.bits)).encode() + params.rows.tobytes())
        return digest.digest()
    if isinstance(params, CellParams):
        layers = (params.input_layer, params.hidden_layer)
        digest.update(repr([params.reduce_range, *(_digest(layer) for layer in layers)]).encode())
        return digest.digest()
    bias = None if params.bias is None else params.bias.tobytes()
    if isinstance(params, LinearFp16Params):
        digest.update(repr((params.weight.shape, bias)).encode() + params.weight.tobytes())
        return digest.digest()
    qparams = params.weight.qparams
    if isinstance(qparams, PerChannel):
        scheme: tuple[Any, ...] = (qparams.scales.tobytes(), qparams.zero_points.tobytes(), qparams.axis)
    else:
        scheme = (qparams.scale, qparams.zero_point)
    attributes: tuple[Any, ...] = ()
    if isinstance(params, ConvParams):
        attributes = (
            params.stride,
            params.padding,
            params.output_padding,
            params.dilation,
            params.groups,
            params.transpose,
        )
    codes = params.weight.codes
    digest.update(repr((codes.shape, str(codes.dtype), scheme, attributes, bias)).encode())
    digest.update(codes.tobytes())
    return digest.digest()


def _tensor(tensor: torch.Tensor, path: str | None, consumer: str) -> TensorConstant | QuantizedConstant:
    if tensor.is_quantized:
        try:
            return QuantizedConstant(quantized_constant(tensor), path)
        except UnsupportedQuantSchemeError as error:
            raise UnsupportedQuantSchemeError(f"{consumer} takes {path or 'a tensor'} with {error}") from None
    try:
        return TensorConstant(np.ascontiguousarray(tensor.detach().cpu().numpy()).reshape(tuple(tensor.shape)), path)
    except TypeError:
        raise UnsupportedOpError(
            f"{consumer} takes {path or 'a tensor'} of dtype {tensor.dtype} and layout {tensor.layout}; "
            "accepted are dense tensors of a numpy dtype"
        ) from None


def _without_dead(nodes: tuple[Node, ...], output: Operand) -> tuple[Node, ...]:
    """Returns the nodes without the containers that only built the output."""
    used = _names(output)
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.op in _CONTAINERS and not any(value.name in used for value in node.outputs):
            continue
        kept.append(node)
        used |= _used_names(node)
    return tuple(reversed(kept))


def _used_names(node: Node) -> set[str]:
    used = _names(list(node.args.values()))
    for block in node.blocks:
        used |= _names(block.outputs)
        for inner in block.nodes:
            used |= _used_names(inner)
    return used


def _names(operand: Operand) -> set[str]:
    if isinstance(operand, Value):
        return {operand.name}
    if isinstance(operand, dict):
        return _names([*operand.keys(), *operand.values()])
    if isinstance(operand, list | tuple):
        return set().union(*(_names(item) for item in operand)) if operand else set()
    return set()
