"""Layers that stay in float hand floats on: what lies between two of them is not rounded to codes."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx
from torch.ao.nn.intrinsic.modules.fused import _FusedModule

from calibration.observed import is_observer
from calibration.recipes import WEIGHTED


def pass_floats_on(prepared: fx.GraphModule, in_float: Collection[str]) -> fx.GraphModule:
    """Takes the observers out of a prepared graph that floats alone pass through, in place; returns it.

    An operation without a weight (a pool, a sum) computes in float where all it reads is float. An observer between
    such operations, or before the output, would have their values rounded to codes for nothing.

        before: layer (float) -> observer -> pool -> observer -> flatten -> observer -> layer (float)
        after:  layer (float) -> pool -> flatten -> layer (float)
    """
    modules = dict(prepared.named_modules(remove_duplicate=False))
    observers = [n for n in prepared.graph.nodes if n.op == "call_module" and is_observer(modules[n.target])]
    floats: set[fx.Node] = set()
    for node in prepared.graph.nodes:
        if _gives_floats(node, modules, floats, in_float):
            floats.add(node)
    for node in observers:
        if node in floats and all(user in floats or user.op == "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            prepared.graph.erase_node(node)
    prepared.delete_all_unused_submodules()
    prepared.recompile()
    return prepared


def _gives_floats(node: fx.Node, modules: dict[str, object], floats: set[fx.Node], in_float: Collection[str]) -> bool:
    """Whether a node computes in float; an observer hands on what it reads."""
    if node.op == "call_module" and node.target in in_float:
        return True
    is_weighted = node.op == "call_module" and _has_weight(modules[str(node.target)])
    if node.op not in ("call_module", "call_function", "call_method") or is_weighted:
        return False
    return bool(node.all_input_nodes) and all(read in floats for read in node.all_input_nodes)


def _has_weight(module: object) -> bool:
    return isinstance(module[0] if isinstance(module, _FusedModule) else module, WEIGHTED)
