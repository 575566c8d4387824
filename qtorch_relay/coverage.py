"""What of a model is int8: each op, how often it occurs, and whether its results are codes or floats."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from qtorch_relay.capture.torchscript import from_torch
from qtorch_relay.errors import FloatModelWarning
from qtorch_relay.frontend.importer import ImportedLayer, import_graph
from qtorch_relay.frontend.registry import CONVERTERS
from qtorch_relay.pipeline import import_model
from qtorch_relay.qnn.printer import to_text

INT8, FLOAT = "int8", "float"


@dataclass(frozen=True)
class CoverageRow:
    """An op: kind is "int8" if its result is a quantized tensor; lowering is what the op becomes."""

    op: str
    kind: str
    count: int
    lowering: str

    def to_json(self) -> dict[str, Any]:
        """Returns the row as JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Coverage:
    """A model's QNN IR as text, and its ops, the most frequent first."""

    ir: str
    rows: tuple[CoverageRow, ...]

    @property
    def count(self) -> int:
        """The number of tensors the model computes."""
        return sum(row.count for row in self.rows)

    @property
    def int8_count(self) -> int:
        """The number of quantized tensors the model computes."""
        return sum(row.count for row in self.rows if row.kind == INT8)


def cover(model: Any, input_infos: Any, engine: str | None = None) -> Coverage:
    """Returns what of a model is int8. Arguments as in from_pytorch; warns if nothing is."""
    graph = from_torch(model, input_infos, engine)
    counts = Counter((layer.op, _kind(layer)) for layer in import_graph(graph, all_layers=True).layers)
    rows = tuple(CoverageRow(op, kind, count, _lowering(op)) for (op, kind), count in counts.most_common())
    covered = Coverage(to_text(import_model(model, input_infos, engine).mod), rows)
    if covered.int8_count == 0:
        warnings.warn(FloatModelWarning(), stacklevel=2)
    return covered


def _kind(layer: ImportedLayer) -> str:
    return FLOAT if layer.qparams is None else INT8


def _lowering(op: str) -> str:
    found = CONVERTERS.get(op) or CONVERTERS.get(op.split(".")[0])
    return "" if found is None else found.lowering
