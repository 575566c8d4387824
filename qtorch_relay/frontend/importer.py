"""Graph -> IRModule of qnn and relax ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Block, Graph, Node
from qtorch_relay.errors import UnsupportedOpError, UnsupportedQuantSchemeError
from qtorch_relay.frontend import ops as _ops  # noqa: F401  (fills the registry)
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.interface import flatten_outputs, output_interface, write_interface
from qtorch_relay.frontend.registry import find_converter
from qtorch_relay.frontend.unsupported import Refusals
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qparams import PerTensor

ENGINE_ATTRIBUTE = "qtorch_relay.engine"

__all__ = ["ENGINE_ATTRIBUTE", "ImportedLayer", "ImportedModule", "import_graph", "output_interface"]


@dataclass(frozen=True)
class ImportedLayer:
    """One value of the graph as the module returns it when all layers are asked for.

    index: its place among main's outputs; op, scope and source say where it came from.
    """

    name: str
    index: int
    op: str
    scope: str
    source: str
    qparams: PerTensor | None


@dataclass(frozen=True, eq=False)
class ImportedModule:
    """What an import yields: the module, its parameters, and its layers if all were asked for.

    cut_short: ops that asked for more of a dimension than there is, and the extents they got instead.
    """

    mod: Any
    params: dict[str, np.ndarray[Any, Any]]
    layers: tuple[ImportedLayer, ...]
    cut_short: tuple[tuple[str, int], ...] = ()


def import_graph(graph: Graph, *, all_layers: bool = False) -> ImportedModule:
    """Returns the module whose main takes the graph's inputs, then the weights.

    all_layers: main returns every tensor of the graph, one per layer, instead of the model's outputs alone.
    Raises: UnsupportedOpError naming everything that cannot be imported, with its source lines.
    """
    refusals = Refusals(graph, frozenset(STRUCTURAL))
    builder = relax.BlockBuilder()
    context = ImportContext(builder, graph.engine, graph.layouts)
    inputs = []
    for graph_input in graph.inputs:
        var = relax.Var(graph_input.value.name, relax.TensorType(graph_input.shape, graph_input.dtype))
        inputs.append(var)
        qparams = graph_input.qparams
        context.bind(graph_input.value, TensorValue(var) if qparams is None else QuantizedValue(var, qparams))
    collected: list[tuple[Node, str, QuantizedValue | TensorValue]] = []
    with builder.function("main"):
        with builder.dataflow():
            _convert_nodes(context, graph.nodes, collected, refusals)
            refusals.raise_if_any()
            leaves: list[QuantizedValue | TensorValue] = []
            result = [value for _, _, value in collected] if all_layers else context.resolve(graph.output)
            structure = flatten_outputs(result, leaves)
            exprs = [leaf.expr for leaf in leaves]
            output = builder.emit_output(exprs[0] if structure == 0 else relax.Tuple(exprs))
        builder.emit_func_output(output, params=[*inputs, *context.param_vars])
    mod = builder.finalize()
    main = mod["main"].with_attr("num_input", len(inputs))
    mod.update_func(mod.get_global_var("main"), main)
    mod = write_interface(mod, graph, structure, leaves).with_attr(ENGINE_ATTRIBUTE, graph.engine)
    layers = tuple(
        ImportedLayer(name, i, node.op, node.scope, node.source, getattr(value, "qparams", None))
        for i, (node, name, value) in enumerate(collected)
    )
    return ImportedModule(mod, context.params, layers if all_layers else (), context.extents_cut_short)


def _convert_nodes(
    context: ImportContext,
    nodes: Sequence[Node],
    collected: list[tuple[Node, str, QuantizedValue | TensorValue]],
    refusals: Refusals,
) -> None:
    for node in nodes:
        if refusals.skips(node):
            continue
        try:
            results = _convert_structural(context, node, collected, refusals)
            if results is None:
                found = find_converter(node)
                if found is None:
                    raise AssertionError(f"{node.op} passed the check for unsupported ops")
                result = found.convert(context, node)
                results = list(result) if len(node.outputs) > 1 else [result]
        except (UnsupportedOpError, UnsupportedQuantSchemeError) as error:
            refusals.add(node, error)
            continue
        if refusals.is_unknown(list(node.outputs)):
            continue
        for value, meaning in zip(node.outputs, results, strict=True):
            meaning = context.bind(value, meaning)
            if isinstance(meaning, QuantizedValue | TensorValue):
                collected.append((node, value.name, meaning))


# ---- prim ops: the skeleton of TorchScript around the tensor ops

STRUCTURAL = {
    "prim::ListConstruct",
    "prim::TupleConstruct",
    "prim::DictConstruct",
    "prim::ListUnpack",
    "prim::TupleUnpack",
    "prim::TupleIndex",
    "prim::If",
}


def _convert_structural(context: ImportContext, node: Node, collected: Any, refusals: Refusals) -> list[Any] | None:
    """Returns the results of a prim op that only builds, takes apart or chooses; None for any other op."""
    if node.name not in STRUCTURAL:
        return None
    if node.name == "prim::If":
        return _convert_if(context, node, collected, refusals)
    arguments = context.arguments(node)
    if node.name == "prim::ListConstruct":
        return [arguments]
    if node.name == "prim::TupleConstruct":
        return [tuple(arguments)]
    if node.name == "prim::DictConstruct":
        return [dict(zip(arguments[::2], arguments[1::2], strict=True))]
    if node.name == "prim::TupleIndex":
        return [arguments[0][arguments[1]]]
    return list(arguments[0])


def _convert_if(context: ImportContext, node: Node, collected: Any, refusals: Refusals) -> list[Any]:
    condition = context.resolve(next(iter(node.args.values())))
    if isinstance(condition, np.ndarray) and condition.size == 1:
        condition = bool(condition.reshape(-1)[0])
    if not isinstance(condition, bool | int):
        raise context.unsupported(
            node,
            f"the branch depends on {describe(condition)}, which is known only at run time; trace the model instead",
        )
    block: Block = node.blocks[0] if condition else node.blocks[1]
    _convert_nodes(context, block.nodes, collected, refusals)
    if refusals.is_unknown(list(block.outputs)):
        refusals.forget(node)
        return []
    return [context.resolve(operand) for operand in block.outputs]
