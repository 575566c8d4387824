"""Lists, tuples and dicts of tensors at a model's boundary: flat inputs inside, and the names of tuples' fields."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import torch

from qtorch_relay.capture.graph import Operand
from qtorch_relay.capture.inputs import InputArgument, InputSpec, InputTree


def replace_inputs(graph: Any, arguments: Sequence[InputArgument]) -> None:
    """Gives a torch graph one input for each tensor, named as in the arguments.

    graph(%xs : Tensor[])    ->    graph(%xs_0 : Tensor, %xs_1 : Tensor): %xs = prim::ListConstruct(%xs_0, %xs_1)
    """
    before = list(graph.inputs())
    start = len(before) - len(arguments)
    with graph.insert_point_guard(next(graph.nodes(), graph.return_node())):
        for value, argument in zip(before[start:], arguments, strict=True):
            value.replaceAllUsesWith(_build(graph, argument.tree, value.type()))
    for index in reversed(range(start, len(before))):
        graph.eraseInput(index)
    specs = [spec for argument in arguments for spec in argument.leaves]
    for value, spec in zip(list(graph.inputs())[start:], specs, strict=True):
        value.setDebugName(spec.name)


def _build(graph: Any, tree: InputTree, torch_type: Any) -> Any:
    """Adds the inputs of a tree to a graph, and the nodes that nest them; returns the value of the whole."""
    if isinstance(tree, InputSpec):
        return graph.addInput()
    if tree is None:
        return graph.insertConstant(None)
    if torch_type.kind() == "OptionalType":
        torch_type = torch_type.containedTypes()[0]  # an optional value that is given has the type itself
    types = torch_type.containedTypes()
    values: list[Any] = []
    if isinstance(tree, dict):
        for key, item in tree.items():
            values += [graph.insertConstant(key), _build(graph, item, types[1])]
        kind = "prim::DictConstruct"
    elif torch_type.kind() == "ListType":
        values = [_build(graph, item, types[0]) for item in tree]
        kind = "prim::ListConstruct"
    else:
        values = [_build(graph, item, item_type) for item, item_type in zip(tree, types, strict=True)]
        kind = "prim::TupleConstruct"
    node = graph.insertNode(graph.create(kind, values, 1))
    node.output().setType(torch_type)
    return node.output()


def named_like_type(operands: Sequence[Operand], torch_type: Any) -> tuple[Operand, ...]:
    """Returns the items of a tuple as a named tuple if their TorchScript type is one."""
    if not torch_type.str().startswith("NamedTuple("):
        return tuple(operands)
    # a field's type may hold colons of its own, in the fields of a named tuple inside it
    text, fields = torch_type.str().removeprefix("NamedTuple("), []
    for item in torch_type.elements():
        name = text.split(" : ")[0]
        fields.append(name)
        text = text[len(f"{name} : {item.str()}, ") :]
    return _named_tuple(torch_type.annotation_str.rsplit(".", 1)[-1], fields, operands)


def name_outputs(output: Operand, returned: Any) -> Operand:
    """Returns a traced model's output with named tuples where the model returned them; a trace drops the names."""
    if isinstance(returned, torch.Tensor) or returned is None:
        return output
    if isinstance(output, tuple) and isinstance(returned, tuple) and len(output) == len(returned):
        items = [name_outputs(item, value) for item, value in zip(output, returned, strict=True)]
        fields = getattr(returned, "_fields", None)
        return tuple(items) if fields is None else _named_tuple(type(returned).__name__, fields, items)
    if isinstance(output, list) and isinstance(returned, list) and len(output) == len(returned):
        return [name_outputs(item, value) for item, value in zip(output, returned, strict=True)]
    if isinstance(output, dict) and isinstance(returned, dict):
        return {key: name_outputs(item, returned.get(key)) for key, item in output.items()}
    return output


def _named_tuple(name: str, fields: Sequence[str], items: Sequence[Operand]) -> tuple[Operand, ...]:
    made: Any = namedtuple(re.sub(r"\W", "_", name), fields)  # type: ignore[misc]  # the fields are the model's
    named: tuple[Operand, ...] = made(*items)
    return named
