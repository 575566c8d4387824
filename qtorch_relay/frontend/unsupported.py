"""What a model's author is told of ops that cannot be imported: all of them, where they are, and what comes nearest."""

from __future__ import annotations

from difflib import get_close_matches

from qtorch_relay.capture.graph import Graph, Node
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.context import location
from qtorch_relay.frontend.registry import CONVERTERS, find_converter, find_refusal

# Below this a similar name is another op ("real" and "relu" are 0.75 alike).
_LEAST_SIMILARITY = 0.85
_SHOWN_PLACES = 3


def refuse_unsupported(graph: Graph, structural: frozenset[str]) -> None:
    """Raises UnsupportedOpError naming every op without a converter, if there are any.

    structural: the ops that need none.
    """
    missing: dict[str, list[Node]] = {}
    for node in graph.walk():
        if node.name not in structural and find_converter(node) is None:
            missing.setdefault(node.op, []).append(node)
    if not missing:
        return
    lines = [line for _, nodes in sorted(missing.items()) for line in _lines(nodes)]
    raise UnsupportedOpError(
        "the model has ops that cannot be imported:\n"
        + "\n".join(lines)
        + "\n`qtorch-relay ops` lists what can; keep such parts in PyTorch, outside the imported module."
    )


def _lines(nodes: list[Node]) -> list[str]:
    """Returns what is said of one op: how often and where, why not, and what comes nearest."""
    places = [place for place in dict.fromkeys(map(location, nodes)) if place]
    more = len(places) - _SHOWN_PLACES
    shown = ";".join(places[:_SHOWN_PLACES]) + (f" and {more} more places" if more > 0 else "")
    first = nodes[0]
    lines = [f"  {first.op} ({len(nodes)} times){shown}"]
    refusal = find_refusal(first)
    if refusal is not None:
        lines.append(f"    {refusal.reason}")
    nearest = nearest_form(first) if refusal is None else refusal.nearest
    return [*lines, f"    nearest: {nearest}"] if nearest else lines


def nearest_form(node: Node) -> str:
    """Returns what can be imported and comes nearest to an unknown op, in words; "" if nothing does.

    Another overload of the op, the same name in another namespace (aten::relu6 for quantized::relu6), or a similar one.
    """
    namespace, name = node.name.split("::")
    overloads = sorted(op for op in CONVERTERS if op.split(".")[0] == node.name)
    if overloads:
        return ", ".join(overloads)
    known = {op.split(".")[0] for op in CONVERTERS}
    base = name.rstrip("_")
    same = sorted(op for op in known if op.split("::")[1] == base)
    if same:
        return ", ".join(same)
    names = sorted({op.split("::")[1] for op in known})
    similar = get_close_matches(base, names, n=1, cutoff=_LEAST_SIMILARITY)
    if similar:
        # of the ops with this name the one in the same namespace comes first
        return min((op for op in known if op.split("::")[1] == similar[0]), key=lambda op: not op.startswith(namespace))
    if namespace == "quantized":
        return "aten::dequantize, the op on floats, and aten::quantize_per_tensor"
    return ""
