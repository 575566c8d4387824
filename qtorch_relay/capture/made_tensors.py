"""Computes at import the tensors that a model makes from nothing but shapes and constants, in place if need be.

    %m = aten::new_zeros(%x, [4, 4]); %s = aten::slice(%m, ...); %_ = aten::fill_(%s, 1); %y = f(%x, %m)
    ->  %y = f(%x, <constant>)

torch folds such nodes itself where nothing is written in place and no tensor is asked for its shape; attention masks
(torchvision's Swin Transformer) do both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from qtorch_relay.capture.interpreter import has_rule, parse_schema, run_node
from qtorch_relay.capture.passes import all_nodes

# Their result depends on the shape and dtype of the first argument alone, and on numbers.
_LIKE = frozenset({
    "aten::zeros_like", "aten::ones_like", "aten::full_like", "aten::new_zeros", "aten::new_ones", "aten::new_full",
})  # fmt: skip


def fold_made_tensors(graph: Any, values: Mapping[str, Any]) -> bool:
    """Replaces, in the nodes that take part in the model's data, the tensors made from shapes alone by constants.

    values: of an example run, by name, from which shapes are taken.
    Returns: whether anything was replaced.
    """
    made = _made(graph, values)
    return bool(made) and _replace(graph, values, made)


def _made(graph: Any, values: Mapping[str, Any]) -> set[str]:
    """Returns the names of the values that can be computed now, constants left out.

    What shares memory with them must be computed now too, if any of it is written in place.
    """
    aliases = graph.alias_db()
    excluded: set[str] = set()
    while True:
        made: set[str] = set()
        nodes = [node for node in graph.nodes() if _is_made(node, made, excluded, values)]
        others = [node for node in all_nodes(graph) if node.kind() != "prim::Constant" and node not in nodes]
        results = [value for node in nodes for value in node.outputs()]
        bad = {value.debugName() for value in results if _is_shared(aliases, value, others)}
        constants = [node.output() for node in all_nodes(graph) if node.kind() == "prim::Constant"]
        written = [target for node in nodes if (target := _target(node)) is not None]
        for target in written:
            if any(_is_tensor(c) and aliases.may_contain_alias(target, c) for c in constants):
                bad |= {value.debugName() for value in results if aliases.may_contain_alias(target, value)}
        if not bad:
            return made
        excluded |= bad


def _is_made(node: Any, made: set[str], excluded: set[str], values: Mapping[str, Any]) -> bool:
    """Says whether a node can be computed now; if so its results join made."""
    names = {value.debugName() for value in node.outputs()}
    if node.kind() == "prim::Constant" or not names or names & excluded:
        return False
    if not has_rule(node) or node.isNondeterministic() or node.kind() == "prim::RaiseException":
        return False
    inputs = list(node.inputs())
    if node.kind() in _LIKE:
        if not isinstance(values.get(inputs[0].debugName()), torch.Tensor):
            return False
        inputs = inputs[1:]
    if not all(value.node().kind() == "prim::Constant" or value.debugName() in made for value in inputs):
        return False
    made |= names
    return True


def _is_shared(aliases: Any, value: Any, others: list[Any]) -> bool:
    """Says whether another node writes to a value, or sees the memory of one that is written to."""
    if not _is_tensor(value):
        return False
    for node in others:
        target = _target(node)
        if target is not None and aliases.may_contain_alias(target, value):
            return True
        if aliases.has_writers(value) and any(aliases.may_contain_alias(out, value) for out in node.outputs()):
            return True
    return False


def _target(node: Any) -> Any | None:
    """Returns what a node writes to."""
    schema = parse_schema(node.schema())
    if schema is None or not schema.is_mutable:
        return None
    for argument, value in zip(schema.arguments, node.inputs(), strict=True):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return value
    return None


def _is_tensor(value: Any) -> bool:
    return bool(value.type().isSubtypeOf(torch._C.TensorType.get()))


def _replace(graph: Any, values: Mapping[str, Any], made: set[str]) -> bool:
    """Runs the nodes of made values in order; every other node reads constants of what the values are at its turn."""
    live: dict[str, Any] = {}
    constants: dict[tuple[str, int], Any] = {}
    changed = False
    for node in [*graph.nodes(), graph.return_node()]:
        outputs = list(node.outputs())
        if outputs and outputs[0].debugName() in made:
            results = run_node(node, [_argument(value, live, values) for value in node.inputs()])
            live.update(zip((value.debugName() for value in outputs), results, strict=True))
            continue
        for user in (node, *(inner for block in node.blocks() for inner in _inside(block))):
            for i, value in enumerate(list(user.inputs())):
                tensor = live.get(value.debugName())
                if not isinstance(tensor, torch.Tensor):
                    continue
                key = (value.debugName(), tensor._version)
                if key not in constants:
                    with graph.insert_point_guard(next(graph.nodes())):
                        constants[key] = graph.insertConstant(tensor.detach().clone())
                user.replaceInput(i, constants[key])
                changed = True
    if changed:
        _remove_dead(graph, made)
    return changed


def _inside(block: Any) -> Iterator[Any]:
    yield from all_nodes(block)
    yield block.returnNode()


def _argument(value: Any, live: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    name = value.debugName()
    if name in live:
        return live[name]
    return value.toIValue() if value.node().kind() == "prim::Constant" else values[name]


def _remove_dead(graph: Any, made: set[str]) -> None:
    """Removes the nodes of made values, which only each other use now; torch keeps those that write in place."""
    for node in reversed(list(graph.nodes())):
        outputs = list(node.outputs())
        if outputs and outputs[0].debugName() in made and not any(list(value.uses()) for value in outputs):
            node.destroy()
