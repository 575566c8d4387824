"""Folds what follows from the input shapes alone, so that scripted models become straight-line programs.

    %s = aten::size(%x); %n = aten::len(%s); %bad = aten::ne(%n, 4); prim::If(%bad) {raise}      ->     (nothing)

The program is run once on example inputs. Sizes are taken from that run only where nothing but the input shapes can
decide them; a size that depends on the data (nonzero, a branch on values) stays in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qtorch_relay.capture.inputs import InputSpec
from qtorch_relay.capture.interpreter import has_rule, op_name, parse_schema, run_node
from qtorch_relay.capture.made_tensors import fold_made_tensors
from qtorch_relay.capture.passes import all_nodes, fold
from qtorch_relay.capture.provenance import SourceMap
from qtorch_relay.capture.written_views import written_input
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.layout import Layout

# What can be asked of a tensor without its numbers; whether it is another one, too.
_SHAPE_QUERIES = frozenset({
    "aten::size", "aten::dim", "aten::len", "aten::numel", "prim::shape", "prim::dtype", "prim::device", "prim::layout",
    "prim::is_quantized", "prim::is_cuda", "prim::requires_grad", "aten::is_floating_point", "aten::is_complex",
    "aten::__is__", "aten::__isnot__", "prim::is_nested",
})  # fmt: skip
# Ops whose output shape depends on the values of their inputs, and ops with an effect other than their outputs.
_NOT_RUN = frozenset({
    "aten::nonzero", "aten::nonzero_numpy", "aten::masked_select", "aten::unique", "aten::_unique", "aten::_unique2",
    "aten::unique_consecutive", "aten::unique_dim", "aten::bincount", "aten::repeat_interleave",
    "aten::argwhere", "aten::resize_", "aten::set_", "torchvision::nms", "torchvision::qnms",
    "prim::RaiseException", "prim::SetAttr", "prim::PythonOp",
})  # fmt: skip


# Outputs that follow from some of the arguments alone: of an op the output's number and those arguments'.
_PARTLY_FIXED = {"aten::_pack_padded_sequence": (1, (1, 2))}


class _NodeError(Exception):
    """A node cannot run on what it was given."""


def specialize(graph: Any, specs: Sequence[InputSpec], sources: SourceMap) -> Mapping[str, Any]:
    """Folds shape queries and all that follows from them, until nothing changes.

    Returns: the values of the last run, by their names.
    Raises: InvalidInputError if the model cannot take inputs of these shapes and dtypes.
    """
    examples = [spec.example() for spec in specs]
    changed = True
    while changed:
        try:
            changed, values = _fold_queries(graph, examples, sources)
        except _NodeError as error:
            raise InvalidInputError(
                f"the model cannot run on {'; '.join(map(str, specs))}: {error}; "
                "check the shapes and dtypes in input_infos (--input)"
            ) from error
        if not changed:
            changed = fold_made_tensors(graph, values)
        if changed:
            fold(graph)
    _refuse_certain_exception(graph, sources)
    return values


def layouts_of(values: Mapping[str, Any]) -> Mapping[str, Layout]:
    """Returns how a run held its values in memory, by their names."""
    return {name: _layout(value) for name, value in values.items() if _is_strided(value)}


def _refuse_certain_exception(graph: Any, sources: SourceMap) -> None:
    for node in graph.nodes():
        if node.kind() == "prim::RaiseException":
            said = node.inputsAt(0).toIValue()
            raise InvalidInputError(
                f"the model raises an exception for these inputs{sources.place(node)}"
                f"{'' if said is None else f': {said}'}; check the shapes and dtypes in input_infos (--input)"
            )


def _is_strided(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def _layout(value: torch.Tensor) -> Layout:
    return Layout(tuple(value.shape), tuple(value.stride()), value.storage_offset())


def _fold_queries(graph: Any, examples: list[torch.Tensor], sources: SourceMap) -> tuple[bool, dict[str, Any]]:
    """Replaces the shape queries that can be answered by constants.

    Returns: whether there were any, and the values of the run.
    """
    values: dict[str, Any] = {}  # of what has been run
    fixed: set[str] = set()  # values that hold for every input of these shapes; of the others only shape and dtype do
    for value, example in zip(graph.inputs(), examples, strict=True):
        values[value.debugName()] = example
    aliases = graph.alias_db()
    changing = [target for node in all_nodes(graph) if (target := written_input(node)) is not None and _holds(target)]
    changed = False
    for node in list(graph.nodes()):
        names = [v.debugName() for v in node.inputs()]
        if not _can_run(node, aliases, changing) or any(name not in values for name in names):
            continue
        args = [values[name] for name in names]
        if node.kind() == "aten::index" and any(_is_mask(index) for index in args[1]):
            continue
        outputs = _run(node, args, sources)
        is_query = node.kind() in _SHAPE_QUERIES
        is_fixed = all(name in fixed for name in names) or (is_query and _has_shape_only(args[0]))
        if is_query and is_fixed:
            with graph.insert_point_guard(node):
                constant = graph.insertConstant(outputs[0])
            node.output().replaceAllUsesWith(constant)
            values[constant.debugName()] = outputs[0]
            fixed.add(constant.debugName())
            changed = True
            continue
        if node.kind() in _PARTLY_FIXED and not is_fixed:
            number, deciding = _PARTLY_FIXED[node.kind()]
            value = list(node.outputs())[number]
            if all(names[i] in fixed for i in deciding) and list(value.uses()):
                with graph.insert_point_guard(node):
                    value.replaceAllUsesWith(graph.insertConstant(outputs[number]))
                changed = True
        for value, output in zip(node.outputs(), outputs, strict=True):
            if is_fixed or _has_shape_only(output):
                values[value.debugName()] = output
        if is_fixed:
            fixed.update(v.debugName() for v in node.outputs())
    return changed, values


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _holds(value: Any) -> bool:
    """Says whether a value is a list, tuple or dict, or anything else that is no tensor."""
    return str(value.type()) != "Tensor"


def _can_run(node: Any, aliases: Any, changing: Sequence[Any]) -> bool:
    """Says whether a node's outputs can be known now; changing: the containers that the program writes to."""
    if node.kind() in _NOT_RUN or op_name(node) == "aten::where":
        return False
    # attention may drop elements at random; what it gives without has the same shape
    if node.isNondeterministic() and node.kind() != "aten::scaled_dot_product_attention":
        return False
    if not has_rule(node):
        return False
    schema = parse_schema(node.schema())
    if schema is not None and any("Tensor" not in str(a.type) and a.alias_info for a in schema.arguments):
        return not schema.is_mutable  # a list that grows
    # A container that is mutated later has no one length.
    return not any(_holds(v) and aliases.may_contain_alias(v, other) for v in node.outputs() for other in changing)


def _run(node: Any, args: list[Any], sources: SourceMap) -> tuple[Any, ...]:
    schema = parse_schema(node.schema())
    if schema is not None and schema.is_mutable:
        args = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]  # the model's constants stay as they are
    try:
        return run_node(node, args)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # oneDNN knows no more to say than that it could not; what the node was given tells.
        found = [f"{value.dtype} {list(value.shape)}" for value in args if isinstance(value, torch.Tensor)]
        given = f" given {', '.join(found)}".replace("torch.", "") if found else ""
        raise _NodeError(f"{node.kind()}{sources.place(node)}{given} says: {reason.rstrip('.')}") from error


def _has_shape_only(value: Any) -> bool:
    """Tells whether all that can be asked about a value is a tensor's shape and dtype, never a number."""
    if isinstance(value, list | tuple):
        return all(_has_shape_only(v) for v in value)
    return isinstance(value, torch.Tensor)
