"""What a model's author is told of ops that cannot be imported: all of them, where they are, and what comes nearest."""

from __future__ import annotations

from difflib import get_close_matches

from qtorch_relay.capture.graph import Graph, Node, Operand, Value
from qtorch_relay.errors import QTorchRelayError, UnsupportedOpError
from qtorch_relay.frontend.context import location
from qtorch_relay.frontend.registry import CONVERTERS, find_converter, find_refusal

# Below this a similar name is another op ("real" and "relu" are 0.75 alike).
_LEAST_SIMILARITY = 0.85
_SHOWN_PLACES = 3


class Refusals:
    """Gathers what of a graph cannot be imported, so that its author is told of all of it at once.

    What such an op returns is unknown, and so is what depends on that: nothing is said of it.
    structural: the ops that need no converter.
    """

    def __init__(self, graph: Graph, structural: frozenset[str]) -> None:
        self._missing: dict[str, list[Node]] = {}
        self._errors: list[QTorchRelayError] = []
        self._unknown: set[str] = set()
        for node in graph.walk():
            if node.name not in structural and find_converter(node) is None:
                self._missing.setdefault(node.op, []).append(node)

    def skips(self, node: Node) -> bool:
        """Tells whether a node has no converter or depends on what is unknown; then so is what it returns."""
        skipped = node.op in self._missing or self.is_unknown(list(node.args.values()))
        if skipped:
            self.forget(node)
        return skipped

    def is_unknown(self, operand: Operand) -> bool:
        """Tells whether an operand is unknown, or holds what is."""
        if isinstance(operand, Value):
            return operand.name in self._unknown
        if isinstance(operand, dict):
            operand = list(operand.values())
        return isinstance(operand, list | tuple) and any(map(self.is_unknown, operand))

    def forget(self, node: Node) -> None:
        """Takes what a node returns for unknown."""
        self._unknown.update(value.name for value in node.outputs)

    def add(self, node: Node, error: QTorchRelayError) -> None:
        """Takes down why a node cannot be converted."""
        self._errors.append(error)
        self.forget(node)

    def raise_if_any(self) -> None:
        """Raises what was gathered.

        Raises: UnsupportedOpError that names every op without a converter and every other refusal; the refusal itself
            if it is the only one.
        """
        if not self._missing and len(self._errors) < 2:
            for error in self._errors:
                raise error
            return
        lines = [line for _, nodes in sorted(self._missing.items()) for line in _lines(nodes)]
        # packed parameters of one layer may be read by several nodes
        lines += dict.fromkeys(f"  {error}" for error in self._errors)
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
