"""In-place ops that torch could not make functional: accepted where the SSA form stays right, refused elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from qtorch_relay.capture.passes import all_nodes
from qtorch_relay.capture.provenance import SourceMap
from qtorch_relay.capture.written_views import written_input
from qtorch_relay.errors import UnsupportedOpError


def refuse_state(graph: Any, sources: SourceMap) -> None:
    """Raises UnsupportedOpError if the program changes tensors of the model in place: it would keep state.

    To be called before in-place ops are made functional, which would freeze the state of the first call.
    """
    aliases = graph.alias_db()
    attributes = [
        node.output()
        for node in all_nodes(graph)
        if node.kind() == "prim::Constant" and isinstance(node.output().toIValue(), torch.Tensor)
    ]
    places: list[str] = []
    for node in all_nodes(graph):
        target = written_input(node)
        # a list that grows by a tensor of the model leaves the tensor as it is
        if target is None or not target.type().isSubtypeOf(torch._C.TensorType.get()):
            continue
        changed = [v.debugName() for v in attributes if aliases.may_contain_alias(target, v)]
        places += [f"{node.kind()}{sources.place(node)} changes {name}" for name in changed if "self." in name]
    if places:
        raise UnsupportedOpError(
            f"the model changes its own tensors as it runs: {'; '.join(places)}; make them inputs and outputs"
        )


def rename_mutated(graph: Any, sources: SourceMap, understood: frozenset[str] = frozenset()) -> None:
    """Makes later uses of a mutated value use the in-place op's output.

        %y = aten::relu_(%x); %z = f(%x)    ->    %y = aten::relu_(%x); %z = f(%y)

    understood: the results of writes that write_back has taken care of.
    Raises: UnsupportedOpError if another name of the same memory is read afterwards (it would keep the old values),
    or if the memory belongs to the model; all such places are listed.
    """
    problems: list[str] = []
    for node in list(all_nodes(graph)):
        target = written_input(node)
        if target is None or any(value.debugName() in understood for value in node.outputs()):
            continue
        reason = _problem(graph, node, target)
        if reason is not None:
            problems.append(f"{node.kind()}{sources.place(node)} {reason}")
            continue
        if node.outputsSize() == 1:
            target.replaceAllUsesAfterNodeWith(node, node.output())
    if problems:
        raise UnsupportedOpError(
            "tensors or lists are changed in place in a way that cannot be imported: "
            f"{'; '.join(problems)}; use the form that returns a new value"
        )


def _problem(graph: Any, node: Any, target: Any) -> str | None:
    aliases = graph.alias_db()
    others = [v for v in _values(graph) if v.debugName() != target.debugName() and aliases.may_contain_alias(target, v)]
    if _is_input(target):
        others = [v for v in others if not _is_input(v)]  # torch supposes that inputs may be views of each other
    if any(v.node().kind() == "prim::Constant" for v in (target, *others)):
        return "changes a tensor of the model itself"
    if node.outputsSize() == 0 and _used_after(target, node):
        return "changes a value that is used later"
    if target.node().owningBlock() != node.owningBlock() and _used_after(target, node):
        return "changes, inside a branch or loop, a value from outside"
    for other in others:
        if other.node().isBefore(node) and _used_after(other, node):
            return "changes a value that is used later under another name"
    return None


def _is_input(value: Any) -> bool:
    return bool(value.node().kind() == "prim::Param")


def _used_after(value: Any, node: Any) -> bool:
    # The return node of a block is after all of its nodes, so block and graph outputs count as uses.
    return any(use.user.isAfter(node) for use in value.uses())


def _values(graph: Any) -> Iterator[Any]:
    yield from graph.inputs()
    for node in all_nodes(graph):
        yield from node.outputs()
        for block in node.blocks():
            yield from block.inputs()
