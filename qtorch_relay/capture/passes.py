"""Passes on a copy of a torch graph: attributes become constants, mutation and foldable control flow disappear.

Only passes that leave every number alone are used. Constant propagation runs PyTorch's own kernels.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from qtorch_relay.capture.provenance import SourceMap
from qtorch_relay.errors import UnsupportedOpError


def all_nodes(block: Any) -> Iterator[Any]:
    """Yields the nodes of a torch graph or block in order, each followed by those of its blocks."""
    for node in list(block.nodes()):
        yield node
        for inner in node.blocks():
            yield from all_nodes(inner)


def inline(module: Any) -> Any:
    """Returns a copy of forward's graph with all calls inlined; the module's own graph is untouched."""
    graph = module._get_method("forward").inlined_graph
    torch._C._jit_pass_inline_fork_wait(graph)
    # Shapes recorded while tracing say nothing about the shapes asked for here.
    torch._C._jit_pass_erase_shape_information(graph)
    return graph


def resolve_attributes(graph: Any, module: Any, sources: SourceMap) -> None:
    """Replaces prim::GetAttr chains by constants named "self.<attribute path>" and removes the self input.

    Attributes named training read False: a model is imported as it behaves in eval mode.
    Raises: UnsupportedOpError if forward assigns to attributes, that is, keeps state between calls.
    """
    # An attribute that is assigned to is not a constant. Most such code hangs on `if self.training` and is folded
    # away first, so attributes of that name are resolved in a second turn, when no assignment is left.
    assigned = {node.s("name") for node in all_nodes(graph) if node.kind() == "prim::SetAttr"}
    _resolve(graph, module, skipped=assigned)
    if assigned:
        fold(graph, functionalize=False)
        left = [node for node in all_nodes(graph) if node.kind() == "prim::SetAttr"]
        if left:
            places = dict.fromkeys(f"self.{node.s('name')}{sources.place(node)}" for node in left)
            raise UnsupportedOpError(
                f"the model changes its own attributes as it runs: {', '.join(places)}; make them inputs and outputs"
            )
        _resolve(graph, module, skipped=set())
    torch._C._jit_pass_dce(graph)
    self_value = next(graph.inputs())
    if not list(self_value.uses()):
        graph.eraseInput(0)


def _resolve(graph: Any, module: Any, skipped: set[str]) -> None:
    objects: dict[str, tuple[str, Any]] = {next(graph.inputs()).debugName(): ("self", module)}
    constants: dict[str | int, Any] = {}
    first = next(graph.nodes(), None)
    for node in list(all_nodes(graph)):
        if node.kind() != "prim::GetAttr" or node.s("name") in skipped:
            continue
        owner = objects.get(node.inputsAt(0).debugName())
        if owner is None:
            continue
        path = f"{owner[0]}.{node.s('name')}"
        value = False if node.s("name") == "training" else owner[1].getattr(node.s("name"))
        if isinstance(value, torch._C.ScriptModule):
            objects[node.output().debugName()] = (path, value)
            continue
        # An object has one constant, however many paths lead to it; hash() is the identity of the C++ object.
        key = hash(value) if isinstance(value, torch.ScriptObject) else path
        if key not in constants:
            # The guard matters: an insert point left on a node that is removed later crashes torch's passes.
            with graph.insert_point_guard(first):
                constants[key] = _insert_constant(graph, value, node.output().type())
            constants[key].setDebugName(path)
        elif path < constants[key].debugName():
            constants[key].setDebugName(path)  # one name, whatever the order in which a shared module is reached
        node.output().replaceAllUsesWith(constants[key])


def _insert_constant(graph: Any, value: Any, torch_type: Any) -> Any:
    if isinstance(value, list) and not value:
        # torch cannot tell the element type of an empty Python list.
        empty = graph.insertNode(graph.create("prim::ListConstruct", 1)).output()
        empty.setType(torch_type)
        return empty
    if isinstance(value, torch.ScriptObject):
        try:
            return graph.insertConstant(value)
        except RuntimeError:
            # torch refuses objects that own the code they were loaded with; a copy is the same weights without it.
            return graph.insertConstant(copy.deepcopy(value))
    return graph.insertConstant(_detached(value))


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()  # constants of a graph must not require a gradient
    if isinstance(value, list):
        return [_detached(v) for v in value]
    if isinstance(value, tuple):
        return tuple(_detached(v) for v in value)
    if isinstance(value, dict):
        return {k: _detached(v) for k, v in value.items()}
    return value


# What a program can ask of the mode it runs in. It is imported as it runs in inference: without gradients and
# automatic casts.
_MODES = frozenset({
    "aten::is_grad_enabled", "aten::is_autocast_enabled", "aten::is_autocast_cpu_enabled",
})  # fmt: skip


def answer_modes(graph: Any) -> None:
    """Replaces questions for the mode that the program runs in by constants, which choose branches."""
    for node in list(all_nodes(graph)):
        if node.kind() in _MODES:
            with graph.insert_point_guard(node):
                node.output().replaceAllUsesWith(graph.insertConstant(False))
            node.destroy()


def drop_messages(graph: Any, sources: SourceMap) -> None:
    """Removes prints and warnings from the program; each is a Python warning now, at import."""
    for node in list(all_nodes(graph)):
        if node.kind() not in ("prim::Print", "aten::warn"):
            continue
        text = [value.toIValue() for value in node.inputs()]
        said = f" {text[0]!r}" if text and isinstance(text[0], str) else ""
        action = "print" if node.kind() == "prim::Print" else "warning"
        warnings.warn(f"the model's {action}{said}{sources.place(node)} is left out of the import", stacklevel=4)
        node.destroy()


def fold(graph: Any, functionalize: bool = True) -> None:
    """Folds constants, branches on constants, loops of constant length and tuples.

    functionalize: replace in-place ops too, where torch can prove that nothing else sees the mutated tensor.
    """
    changed = True
    while changed:
        changed = torch._C._jit_pass_constant_propagation(graph)
        changed |= torch._C._jit_pass_peephole(graph, disable_shape_peepholes=True)
        changed |= torch._C._jit_pass_constant_loop_unrolling(graph)
        if functionalize:
            changed |= torch._C._jit_pass_remove_mutation(graph)
        changed |= _forward_containers(graph)
        torch._C._jit_pass_dce(graph)


def _forward_containers(graph: Any) -> bool:
    """Connects what takes an item out of a tuple, list or dict to what was put in, if nothing else changes it."""
    changed = False
    aliases = graph.alias_db()
    for node in list(all_nodes(graph)):
        if node.kind() not in _MAKERS:
            continue
        maker = node.inputsAt(0).node()
        if maker.kind() not in _MAKERS[node.kind()]:
            continue
        if maker.kind() != "prim::TupleConstruct" and aliases.has_writers(maker.output()):
            continue
        values = _items_taken(node, maker)
        if values is None:
            continue
        for output, value in zip(list(node.outputs()), values, strict=True):
            output.replaceAllUsesWith(value)
        node.destroy()
        changed = True
    return changed


_MAKERS = {
    "prim::TupleUnpack": ("prim::TupleConstruct",),
    "prim::ListUnpack": ("prim::ListConstruct",),
    "prim::TupleIndex": ("prim::TupleConstruct",),
    "aten::__getitem__": ("prim::ListConstruct", "prim::DictConstruct"),
}


def _items_taken(node: Any, maker: Any) -> list[Any] | None:
    """Returns the values that a node takes out of what maker puts together, None if they are not known."""
    values = list(maker.inputs())
    if node.kind() in ("prim::TupleUnpack", "prim::ListUnpack"):
        return values if len(values) == node.outputsSize() else None
    key = node.inputsAt(1).toIValue()
    if key is None:
        return None
    if maker.kind() == "prim::DictConstruct":
        # of two entries with one key the last counts
        found = [value for name, value in zip(values[::2], values[1::2], strict=True) if name.toIValue() == key]
        return found[-1:] or None
    return [values[key]] if -len(values) <= key < len(values) else None
