"""Layer by layer: the integer codes of a compiled model against those of PyTorch's own kernels, tolerance 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.capture.packed import quantized_tensor
from qtorch_relay.capture.reference import ReferenceRun, run_reference
from qtorch_relay.capture.torchscript import CapturedModel, capture_model
from qtorch_relay.frontend.importer import ImportedLayer, import_graph
from qtorch_relay.pipeline import compile_imported
from qtorch_relay.qparams import QuantizedTensor

DEFAULT_SEED = 0


@dataclass(frozen=True)
class LayerComparison:
    """One value of the model: how many of its elements differ from PyTorch's.

    kind: "codes" for quantized tensors, "floats" for others (compared bit for bit; NaN equals NaN).
    largest_difference: in codes, or in real units for floats.
    """

    name: str
    op: str
    scope: str
    source: str
    kind: str
    shape: tuple[int, ...]
    differing: int
    largest_difference: float

    @property
    def elements(self) -> int:
        """The number of elements compared."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Comparison:
    """A whole model: every layer, run with all layers kept, and the outputs of the program as it is deployed.

    Keeping every layer keeps a fused program from hiding one; the outputs come from the program without that.
    """

    engine: str
    target: str
    path: str
    messages: tuple[str, ...]
    layers: tuple[LayerComparison, ...]
    outputs: tuple[LayerComparison, ...]

    @property
    def first_differing(self) -> LayerComparison | None:
        """The first layer with a difference, in the order of execution."""
        return next((layer for layer in self.layers if layer.differing), None)

    @property
    def differing(self) -> int:
        """Differing elements over all layers and outputs."""
        return sum(layer.differing for layer in (*self.layers, *self.outputs))

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as JSON data."""
        first = self.first_differing
        data = asdict(self)
        for key in ("layers", "outputs"):
            for row, layer in zip(data[key], getattr(self, key), strict=True):
                row["elements"] = layer.elements
        return {**data, "differing": self.differing, "first_differing": None if first is None else first.name}


def random_inputs(captured: CapturedModel, seed: int = DEFAULT_SEED) -> list[npt.NDArray[Any]]:
    """Returns seeded inputs: standard normal floats, integers below 2."""
    rng = np.random.default_rng(seed)
    arrays: list[npt.NDArray[Any]] = []
    for graph_input in captured.graph.inputs:
        if graph_input.dtype.startswith("float"):
            arrays.append(rng.standard_normal(graph_input.shape).astype(graph_input.dtype))
        else:
            arrays.append(rng.integers(0, 2, graph_input.shape).astype(graph_input.dtype))
    return arrays


def compare_model(
    model: Any,
    input_infos: Any,
    engine: str | None = None,
    target: Any = "host",
    *,
    kernels: bool = True,
    inputs: Sequence[npt.NDArray[Any]] | None = None,
    seed: int = DEFAULT_SEED,
) -> Comparison:
    """Compares every layer of a compiled model with PyTorch.

    model, input_infos, engine, target: as in qtorch_relay.compile; the target must run on this host.
    kernels: False compares the portable path. inputs: one array per model input; None = seeded random ones.
    """
    captured = capture_model(model, input_infos, engine)
    arrays = list(inputs) if inputs is not None else random_inputs(captured, seed)
    return compare_captured(captured, run_reference(captured, arrays), arrays, target, kernels=kernels)


def compare_captured(
    captured: CapturedModel,
    reference: ReferenceRun,
    inputs: Sequence[npt.NDArray[Any]],
    target: Any = "host",
    *,
    kernels: bool = True,
) -> Comparison:
    """Compares a captured model with a reference run that was made before, so one run serves several paths."""
    deployed = compile_imported(import_graph(captured.graph), target, kernels=kernels)
    outputs = tuple(
        _compare(ImportedLayer(f"output{i}", i, "", "", "", None), _reference_value(expected), ours)
        for i, (expected, ours) in enumerate(zip(_flat(reference.output), deployed.run_flat(list(inputs)), strict=True))
    )
    return Comparison(
        captured.graph.engine,
        deployed.target.name,
        str(deployed.report["path"]),
        tuple(deployed.report["messages"]),
        compare_layers(captured, reference, inputs, target, kernels=kernels),
        outputs,
    )


def compare_layers(
    captured: CapturedModel,
    reference: ReferenceRun,
    inputs: Sequence[npt.NDArray[Any]],
    target: Any = "host",
    *,
    kernels: bool = True,
) -> tuple[LayerComparison, ...]:
    """Compares every layer, computed by a program that returns them all."""
    every_layer = import_graph(captured.graph, all_layers=True)
    values = compile_imported(every_layer, target, kernels=kernels).run_flat(list(inputs))
    return tuple(
        _compare(layer, reference.values[layer.name], ours)
        for layer, ours in zip(every_layer.layers, values, strict=True)
    )


def _compare(layer: ImportedLayer, expected: Any, ours: npt.NDArray[Any]) -> LayerComparison:
    kind, theirs = ("codes", expected.codes) if isinstance(expected, QuantizedTensor) else ("floats", expected)
    if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
        raise AssertionError(
            f"{layer.name}: PyTorch has {theirs.dtype}{theirs.shape}, ours is {ours.dtype}{ours.shape}"
        )
    unequal = theirs != ours
    if kind == "floats" and theirs.dtype.kind == "f":
        unequal &= ~(np.isnan(theirs) & np.isnan(ours))
    differences = np.abs(theirs[unequal].astype(np.float64) - ours[unequal].astype(np.float64))
    return LayerComparison(
        layer.name,
        layer.op,
        layer.scope,
        layer.source,
        kind,
        ours.shape,
        int(unequal.sum()),
        float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0)),
    )


def _flat(output: Any) -> list[Any]:
    """Returns the tensors of a nested output, in the order of the compiled model's flat outputs."""
    if isinstance(output, list | tuple):
        return [leaf for item in output for leaf in _flat(item)]
    if isinstance(output, dict):
        return [leaf for item in output.values() for leaf in _flat(item)]
    return [] if output is None else [output]


def _reference_value(tensor: Any) -> Any:
    if tensor.is_quantized:
        return quantized_tensor(tensor)
    return tensor.detach().numpy()
