"""Makes writes into tensors functional where other names of the same memory are read afterwards.

    %v = aten::slice(%x, 1, 1, 9, 1); %w = aten::copy_(%v, %y); return %x, %v
    ->  %v = aten::slice(%x, 1, 1, 9, 1); %w = aten::copy_(%v, %y); %x2 = aten::slice_scatter(%x, %w, 1, 1, 9, 1)
        return %x2, %w

Who shares memory with whom is read from an example run, so it is exact. What is written goes up to the tensor that a
view was taken of; any other view of that tensor is taken anew where it is read next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from qtorch_relay.capture.interpreter import parse_schema
from qtorch_relay.capture.passes import all_nodes
from qtorch_relay.capture.provenance import SourceMap
from qtorch_relay.errors import UnsupportedOpError

# Views that hold the elements of their tensor in the same order.
_RESHAPES = frozenset({
    "aten::view", "aten::reshape", "aten::flatten", "aten::unflatten", "aten::unsqueeze", "aten::squeeze",
    "aten::view_as", "aten::reshape_as", "aten::_unsafe_view", "aten::expand", "aten::expand_as", "aten::contiguous",
    "aten::detach", "aten::alias", "aten::to", "aten::dropout", "aten::type_as", "aten::broadcast_to",
})  # fmt: skip
_PARTS = frozenset({
    "aten::slice", "aten::narrow", "aten::split", "aten::split_with_sizes", "aten::chunk", "aten::tensor_split",
    "aten::unsafe_split", "aten::unsafe_chunk", "aten::unsafe_split_with_sizes",
})  # fmt: skip
_CONTAINERS = ("prim::ListConstruct", "prim::TupleConstruct", "prim::DictConstruct")
_TRANSPOSES = ("aten::transpose", "aten::swapaxes", "aten::swapdims", "aten::t")
# In-place ops that change a tensor's shape, not what it holds.
_RESHAPED_IN_PLACE = ("aten::squeeze_", "aten::unsqueeze_", "aten::transpose_", "aten::t_", "aten::detach_")


def written_input(node: Any) -> Any | None:
    """Returns the value that a node writes to, None if there is none."""
    schema = parse_schema(node.schema())
    if schema is None:
        return None
    if node.kind() in _SILENTLY_IN_PLACE:
        names = [argument.name for argument in schema.arguments]
        asked = node.inputsAt(names.index(_SILENTLY_IN_PLACE[node.kind()])).toIValue()
        return node.inputsAt(0) if asked else None
    if not schema.is_mutable:
        return None
    for argument, value in zip(schema.arguments, node.inputs(), strict=True):
        if argument.is_out or (argument.alias_info is not None and argument.alias_info.is_write):
            return value
    return None


# Ops that write to their first input if this argument is true, although their schemas do not say so.
_SILENTLY_IN_PLACE = {"quantized::relu6": "inplace"}


def open_out_forms(graph: Any, values: Mapping[str, Any]) -> bool:
    """Splits the out forms of ATen's ops on tensors that are not quantized: the result, then the write.

        %r = aten::lt.Tensor_out(%a, %b, %out)    ->    %c = aten::lt.Tensor(%a, %b); %r = aten::copy_(%out, %c)

    Returns: whether there were any. PyTorch converts the result to the dtype of out as aten::copy_ does.
    """
    changed = False
    values = dict(values)
    for node in list(graph.nodes()):
        name = node.kind()
        schema = parse_schema(node.schema())
        if schema is None or not name.startswith("aten::") or not any(a.is_out for a in schema.arguments):
            continue
        out = node.inputsAt(len(schema.arguments) - 1)
        example = values.get(out.debugName())
        twin = _without_out(name, schema)
        if twin is None or node.outputsSize() != 1 or not isinstance(example, torch.Tensor) or example.is_quantized:
            continue
        result = values.get(node.output().debugName())
        if result is None or result.shape != example.shape:
            continue  # PyTorch makes the given tensor larger; refused where nothing converts the op
        with graph.insert_point_guard(node):
            made = insert_call(graph, name, list(node.inputs())[:-1])
            written = insert_call(graph, "aten::copy_", [out, made, False])
        values[written.debugName()] = result
        node.output().replaceAllUsesWith(written)
        node.destroy()
        changed = True
    return changed


def _without_out(name: str, schema: Any) -> Any | None:
    """Returns the schema of the form without out that takes the other arguments."""
    names = [a.name for a in schema.arguments[:-1]]
    types = [str(a.type) for a in schema.arguments[:-1]]
    for candidate in torch._C._jit_get_schemas_for_operator(name):
        found = [a.name for a in candidate.arguments], [str(a.type) for a in candidate.arguments]
        if found == (names, types) and len(candidate.returns) == 1 and not candidate.is_mutable:
            return candidate
    return None


def write_back(graph: Any, values: Mapping[str, Any], sources: SourceMap) -> frozenset[str]:
    """Makes all that shares memory with a written tensor see what was written, at the top level of a graph.

    values: of an example run, by name.
    Returns: the names of the writes' results that were taken care of.
    Raises: UnsupportedOpError for a write through a view that has no way back.
    """
    return _WriteBack(graph, values, sources).run()


class _WriteBack:
    """The walk over a graph's nodes in order.

    parent: of a view, the value it is of and the node that takes it. same: of a result of a write, the value that was
    written to; it stands for both. current: what holds a value's contents now, and made: when that was made; written:
    when the memory of a tensor that is no view was last written to.
    """

    def __init__(self, graph: Any, values: Mapping[str, Any], sources: SourceMap) -> None:
        self.graph, self.values, self.sources = graph, values, sources
        self.parent: dict[str, tuple[Any, Any]] = {}
        self.same: dict[str, Any] = {}
        self.current: dict[str, Any] = {}
        self.made: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.own_parameters: dict[str, Any] = {}  # of views that have taken the scale of what was copied into them
        self.done: set[str] = set()
        self.time = 0

    def run(self) -> frozenset[str]:
        """Goes through all nodes."""
        for node in list(self.graph.nodes()):
            given = list(node.inputs())
            target = written_input(node)
            self._refresh_inputs(node)
            if target is not None and self._is_understood(node, self._first(target)):
                self._write(node, self._first(target))
            else:
                self._note_views(node, given)
        self._refresh_inputs(self.graph.return_node())
        return frozenset(self.done)

    def _first(self, value: Any) -> Any:
        return self.same.get(value.debugName(), value)

    def _is_understood(self, node: Any, target: Any) -> bool:
        """Says whether a write is one into a tensor of the example run; others are judged by rename_mutated."""
        return (
            node.kind() not in _RESHAPED_IN_PLACE
            and node.outputsSize() == 1
            and isinstance(self.values.get(target.debugName()), torch.Tensor)
            and self._chain(target)[-1].node().kind() != "prim::Constant"
        )

    def _refresh_inputs(self, node: Any) -> None:
        inner = [each for block in node.blocks() for each in _all(block)]
        for user in (node, *inner):
            for i, value in enumerate(list(user.inputs())):
                fresh = self._fresh(self._first(value), node)
                if fresh.debugName() != value.debugName():
                    user.replaceInput(i, fresh)

    def _note_views(self, node: Any, given: Sequence[Any]) -> None:
        """Notes which outputs are views, or lists of views, of which of the values that were given."""
        if node.kind() in _CONTAINERS:
            return
        for output in node.outputs():
            for value in given:
                shared = _shared(self.values.get(output.debugName()), self.values.get(value.debugName()))
                if not shared:
                    continue
                if value.node().kind() in _CONTAINERS:
                    self._note_item(output, value)
                else:
                    self.parent[output.debugName()] = (self._first(value), node)
                    self.made[output.debugName()] = self.time
                break

    def _note_item(self, item: Any, container: Any) -> None:
        """Notes which of the tensors that were put into a container an item is."""
        tensor = self.values[item.debugName()]
        if not isinstance(tensor, torch.Tensor):
            return  # a list of them, as aten::dequantize gives
        for value in container.node().inputs():
            found = self.values.get(value.debugName())
            if isinstance(found, torch.Tensor) and _shared(found, tensor) and found.shape == tensor.shape:
                self.same[item.debugName()] = self._first(value)

    def _chain(self, value: Any) -> list[Any]:
        """Returns a tensor, the tensor it is a view of, and so on; lists of views between them are left out."""
        chain = [value]
        while value.debugName() in self.parent:
            value = self.parent[value.debugName()][0]
            if isinstance(self.values[value.debugName()], torch.Tensor):
                chain.append(value)
        return chain

    def _fresh(self, value: Any, before: Any) -> Any:
        """Returns a value with the contents it has now; a view of what was written to since is taken anew."""
        name = value.debugName()
        if value.node().kind() in _CONTAINERS:
            inputs = [self._fresh(self._first(item), before) for item in value.node().inputs()]
            old = list(value.node().inputs())
            if all(a.debugName() == b.debugName() for a, b in zip(inputs, old, strict=True)):
                return value
            return self._again(value.node(), inputs, before)[0]
        root = self._chain(value)[-1].debugName()
        if name not in self.parent or self.made[name] >= self.written.get(root, 0):
            return self.current.get(name, value)
        _, node = self.parent[name]
        inputs = [self._fresh(self._first(item), before) for item in node.inputs()]
        for old, new in zip(node.outputs(), self._again(node, inputs, before), strict=True):
            copied = self.own_parameters.get(old.debugName())
            self._set(old, new if copied is None else self._with_parameters(new, copied, before))
        return self.current[name]

    def _with_parameters(self, codes: Any, other: Any, before: Any) -> Any:
        """Returns the codes of one tensor with the scale and zero point of another."""
        with self.graph.insert_point_guard(before):
            numbers = self._insert("aten::int_repr", [codes])
            scale, zero_point = self._insert("aten::q_scale", [other]), self._insert("aten::q_zero_point", [other])
            scale.setType(torch._C.FloatType.get())
            zero_point.setType(torch._C.IntType.get())
            return self._insert("aten::_make_per_tensor_quantized_tensor", [numbers, scale, zero_point])

    def _again(self, node: Any, inputs: Sequence[Any], before: Any) -> list[Any]:
        """Returns the outputs of a node on other inputs."""
        with self.graph.insert_point_guard(before):
            again = self.graph.insertNode(self.graph.create(node.kind(), list(inputs), node.outputsSize()))
        again.copyMetadata(node)
        for old, new in zip(node.outputs(), again.outputs(), strict=True):
            new.setType(old.type())
        return list(again.outputs())

    def _set(self, value: Any, result: Any) -> None:
        self.current[value.debugName()], self.made[value.debugName()] = result, self.time

    def _write(self, node: Any, target: Any) -> None:
        chain = self._chain(target)
        for value in chain[1:]:
            self._fresh(value, node)
        self.time += 1
        self.written[chain[-1].debugName()] = self.time
        result = node.output()
        self.same[result.debugName()] = target
        self.done.add(result.debugName())
        self._set(target, result)
        if len(chain) > 1:
            self._note_parameters(node, target)
        following = next((each for each in self.graph.nodes() if each.isAfter(node)), self.graph.return_node())
        with self.graph.insert_point_guard(following):
            for part, whole in pairwise(chain):
                result = self._put(part, whole, result, node)
                self._set(whole, result)

    def _note_parameters(self, node: Any, target: Any) -> None:
        if node.kind() != "aten::copy_":
            return
        written, source = (self.values.get(value.debugName()) for value in (target, node.inputsAt(1)))
        if not all(isinstance(tensor, torch.Tensor) and tensor.is_quantized for tensor in (written, source)):
            return
        self.own_parameters[target.debugName()] = node.output()
        if any(origin.debugName() == target.debugName() for origin, _ in self.parent.values()):
            raise UnsupportedOpError(
                f"{node.kind()}{self.sources.place(node)} gives a view the scale of what it copies, and views of this "
                "view keep the old one; take them after copying"
            )

    def _put(self, part_value: Any, whole_value: Any, result: Any, write: Any) -> Any:
        """Adds the node that puts a view's new contents into the tensor it is of; returns that tensor's."""
        _, node = self.parent[part_value.debugName()]
        part, whole = (self.values[value.debugName()] for value in (part_value, whole_value))
        current = self.current.get(whole_value.debugName(), whole_value)
        kind = node.kind()
        if kind in ("prim::ListUnpack", "aten::__getitem__"):
            kind = self.parent[part_value.debugName()][0].node().kind()
        if kind in _RESHAPES and part.numel() == whole.numel():
            return result if part.shape == whole.shape else self._insert("aten::reshape", [result, list(whole.shape)])
        if kind in _PARTS:
            differing = [dim for dim, size in enumerate(part.shape) if size != whole.shape[dim]]
            if not differing:
                return result
            (dim,) = differing
            start = (part.storage_offset() - whole.storage_offset()) // whole.stride(dim)
            step = part.stride(dim) // whole.stride(dim) if part.shape[dim] > 1 else 1
            end = start + (part.shape[dim] - 1) * step + 1
            return self._insert("aten::slice_scatter", [current, result, dim, start, end, step])
        if kind in ("aten::select", "aten::unbind"):
            given = parse_schema(node.schema()) if node.kind() == "aten::select" else None
            dim = node.inputsAt(1).toIValue() if given is not None else self._unbound_dim(part_value)
            dim %= whole.dim()
            index = (part.storage_offset() - whole.storage_offset()) // max(whole.stride(dim), 1)
            return self._insert("aten::select_scatter", [current, result, dim, index])
        if kind in _TRANSPOSES:
            return self._insert(kind, [result, *(value.toIValue() for value in list(node.inputs())[1:])])
        if kind == "aten::permute":
            order = [dim % part.dim() for dim in node.inputsAt(1).toIValue()]
            return self._insert("aten::permute", [result, [order.index(dim) for dim in range(len(order))]])
        raise UnsupportedOpError(
            f"{write.kind()}{self.sources.place(write)} writes through {kind}, a view without a way back to its "
            "tensor; write into a slice, or use the form that returns a new value"
        )

    def _unbound_dim(self, item: Any) -> int:
        dim: int = self.parent[item.debugName()][0].node().inputsAt(1).toIValue()
        return dim

    def _insert(self, kind: str, inputs: Sequence[Any]) -> Any:
        return insert_call(self.graph, kind, inputs)


def insert_call(graph: Any, kind: str, inputs: Sequence[Any]) -> Any:
    """Inserts a call of an op with one output, a tensor; inputs are values or constants."""
    values = [item if isinstance(item, torch._C.Value) else graph.insertConstant(item) for item in inputs]
    return graph.insertNode(graph.create(kind, values, 1)).output()


def _shared(a: Any, b: Any) -> bool:
    """Says whether some tensor in a shares memory with one in b."""
    return not {_memory(tensor) for tensor in _tensors(a)}.isdisjoint(_memory(tensor) for tensor in _tensors(b))


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors with elements in a value."""
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided and value.numel():
            yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _all(block: Any) -> Iterator[Any]:
    yield from all_nodes(block)
    yield block.returnNode()
