"""Layer by layer: a compiled model against PyTorch's own kernels. Integer codes: tolerance 0. Floats: rounding.

Every layer is computed from PyTorch's floats (see cuts), so that it is judged by what it does itself: a code never
differs, and a float differs at most by what another order of additions or another library's exp may round differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from accuracy_reports.layers.cuts import Cut, cut_at_quantization, cut_every_float
from qtorch_relay.capture.graph import Graph, Node, TensorConstant, Value
from qtorch_relay.capture.reference import ReferenceRun, run_reference
from qtorch_relay.capture.torchscript import CapturedModel, capture_model
from qtorch_relay.frontend.importer import ImportedLayer, import_graph
from qtorch_relay.numerics.core import quantize_f32
from qtorch_relay.pipeline import compile_imported
from qtorch_relay.qparams import PerTensor, QuantizedTensor
from qtorch_relay.runtime import CompiledModel
from qtorch_relay.runtime.model import Model
from qtorch_relay.runtime.random_inputs import DEFAULT_SEED, random_inputs

# One float layer, in float32 steps. A sum's rounding errors grow with the root of the number of its terms (the partial
# sums of random terms do, and each is rounded), so a layer with more than 32 ** 2 terms may differ by that root.
LAYER_STEPS = 32.0
# The ends of a part of the program, and so all float layers of that part together, as a fraction of the largest value.
PART_FRACTION = 1e-4


# Takes a compiled program to where it runs: this process, or a board.
Place: TypeAlias = Callable[[CompiledModel], Model]


def here(program: CompiledModel) -> Model:
    """Returns the program itself, which runs in this process."""
    return program


@dataclass(frozen=True)
class LayerComparison:
    """One value of the model: how many of its elements differ from PyTorch's.

    kind: "codes" for quantized tensors, "floats" for others (NaN equals NaN; integers and bools are floats too).
    largest_difference: in codes, or in real units for floats.
    steps: the same in steps of the tensor's dtype at its largest magnitude (ulp), for floats; infinite where one is NaN
        or infinite and the other is not. limit: how many steps are taken for rounding; 0 for codes and integers.
    magnitude: the largest finite one of PyTorch's elements.
    """

    name: str
    op: str
    scope: str
    source: str
    kind: str
    shape: tuple[int, ...]
    differing: int
    largest_difference: float
    steps: float
    limit: float
    magnitude: float

    @property
    def agrees(self) -> bool:
        """Whether the value is PyTorch's: codes to the last one, floats within rounding."""
        return self.differing == 0 or (self.limit > 0 and self.steps <= self.limit)

    @property
    def largest_fraction(self) -> float:
        """The largest difference as a fraction of the tensor's largest magnitude."""
        return self.largest_difference / self.magnitude if self.differing else 0.0

    @property
    def elements(self) -> int:
        """The number of elements compared."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class MovedCodes:
    """A float inside the program that differs by rounding: how many codes move by that where it is quantized.

    Quantizing is monotonic, so each of them lies at a rounding tie, no further from it than the floats are apart.
    largest_difference: in codes.
    """

    name: str
    elements: int
    differing: int
    largest_difference: int


@dataclass(frozen=True)
class Comparison:
    """A whole model: every layer, run with all layers kept, and the ends of the program's parts, fused as deployed.

    layers: each computed from PyTorch's floats. Keeping every layer keeps a fused program from hiding one.
    deployed: the model's outputs from its inputs alone. Where floats are quantized inside, a code at a rounding tie
        may have moved, and what follows from it with it: then these are told, not judged.
    outputs: those of deployed if they are equal or nothing is quantized inside; else the model's outputs and the floats
        that are quantized inside, each part of the program computed from PyTorch's floats where it is quantized first.
    moved: what quantizing the floats among these outputs gives.
    """

    engine: str
    target: str
    path: str
    messages: tuple[str, ...]
    layers: tuple[LayerComparison, ...]
    outputs: tuple[LayerComparison, ...]
    deployed: tuple[LayerComparison, ...]
    moved: tuple[MovedCodes, ...]

    @property
    def wrong(self) -> tuple[LayerComparison, ...]:
        """Whatever differs from PyTorch by more than the rounding of floats."""
        return tuple(layer for layer in (*self.layers, *self.outputs) if not layer.agrees)

    @property
    def largest_steps(self) -> float:
        """The largest difference of a float layer, in steps."""
        return max((layer.steps for layer in self.layers if layer.kind == "floats"), default=0.0)

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
        for key in ("layers", "outputs", "deployed"):
            for row, layer in zip(data[key], getattr(self, key), strict=True):
                row["elements"], row["agrees"] = layer.elements, layer.agrees
        data["wrong"] = [layer.name for layer in self.wrong]
        return {**data, "differing": self.differing, "first_differing": None if first is None else first.name}


def compare_model(
    model: Any,
    input_infos: Any,
    engine: str | None = None,
    target: Any = "host",
    *,
    kernels: bool = True,
    inputs: Sequence[npt.NDArray[Any]] | None = None,
    seed: int = DEFAULT_SEED,
    place: Place = here,
) -> Comparison:
    """Compares every layer of a compiled model with PyTorch.

    model, input_infos, engine, target: as in qtorch_relay.compile.
    kernels: False compares the portable path. inputs: one array per model input; None = seeded random ones.
    place: takes a compiled program to where it runs, for whose CPU the target must be; by default this process.
    """
    captured = capture_model(model, input_infos, engine)
    given = inputs if inputs is not None else random_inputs(((x.shape, x.dtype) for x in captured.graph.inputs), seed)
    arrays = list(given)
    return compare_captured(captured, run_reference(captured, arrays), arrays, target, kernels=kernels, place=place)


def compare_captured(
    captured: CapturedModel,
    reference: ReferenceRun,
    inputs: Sequence[npt.NDArray[Any]],
    target: Any = "host",
    *,
    kernels: bool = True,
    place: Place = here,
) -> Comparison:
    """Compares a captured model with a reference run that was made before, so one run serves several paths."""
    graph = captured.graph
    theirs = reference.flat_outputs
    program = compile_imported(import_graph(graph), target, kernels=kernels)
    deployed = outputs = _compare_outputs(theirs, place(program).run_flat(list(inputs)))
    cut = cut_at_quantization(graph, reference)
    moved: tuple[MovedCodes, ...] = ()
    if cut.names and any(output.differing for output in deployed):
        parts = compile_imported(import_graph(cut.with_ends()), target, kernels=kernels)
        ends = place(parts).run_flat([*inputs, *cut.given])
        inner = ends[len(theirs) :]
        outputs = _compare_outputs(theirs, ends[: len(theirs)]) + _compare_ends(graph, cut, inner)
        moved = tuple(_moved_codes(graph, reference, dict(zip(cut.names, inner, strict=True))))
    return Comparison(
        graph.engine,
        program.target.name,
        str(program.report["path"]),
        tuple(program.report["messages"]),
        compare_layers(captured, reference, inputs, target, kernels=kernels, place=place),
        outputs,
        deployed,
        moved,
    )


def _moved_codes(graph: Graph, reference: ReferenceRun, ours: Mapping[str, npt.NDArray[Any]]) -> Iterator[MovedCodes]:
    for node in graph.walk():
        source = node.args.get("self")
        if node.name != "aten::quantize_per_tensor" or not isinstance(source, Value) or source.name not in ours:
            continue
        theirs = reference.values[node.outputs[0].name]
        if isinstance(theirs, QuantizedTensor) and isinstance(theirs.qparams, PerTensor):
            codes = quantize_f32(ours[source.name], theirs.qparams).astype(np.int64)
            differences = np.abs(codes - theirs.codes)
            yield MovedCodes(source.name, codes.size, int((differences > 0).sum()), int(differences.max(initial=0)))


def compare_layers(
    captured: CapturedModel,
    reference: ReferenceRun,
    inputs: Sequence[npt.NDArray[Any]],
    target: Any = "host",
    *,
    kernels: bool = True,
    place: Place = here,
) -> tuple[LayerComparison, ...]:
    """Compares every layer, computed from PyTorch's floats by a program that returns them all."""
    cut = cut_every_float(captured.graph, reference)
    every_layer = import_graph(cut.graph, all_layers=True)
    program = place(compile_imported(every_layer, target, kernels=kernels))
    values = program.run_flat([*inputs, *cut.given])
    terms = {value.name: _terms(node) for node in captured.graph.walk() for value in node.outputs}
    return tuple(
        _compare(layer, reference.values[layer.name], ours, max(LAYER_STEPS, math.sqrt(terms[layer.name])))
        for layer, ours in zip(every_layer.layers, values, strict=True)
    )


def _terms(node: Node) -> int:
    """Returns how many products a layer with a weight [O, ...] adds up for each of its results; 1 for others."""
    weight = node.args.get("weight")
    if isinstance(weight, TensorConstant) and weight.array.ndim > 1:
        return int(np.prod(weight.array.shape[1:]))
    return 1


def _compare_outputs(theirs: Sequence[Any], ours: Sequence[npt.NDArray[Any]]) -> tuple[LayerComparison, ...]:
    return tuple(
        _compare(ImportedLayer(f"output{i}", i, "", "", "", None), expected, array)
        for i, (expected, array) in enumerate(zip(theirs, ours, strict=True))
    )


def _compare_ends(graph: Graph, cut: Cut, ours: Sequence[npt.NDArray[Any]]) -> tuple[LayerComparison, ...]:
    """Compares the floats that the cut took from PyTorch with what the parts before the cut make of them."""
    makers = {value.name: node for node in graph.walk() for value in node.outputs}
    rows = []
    for i, (name, expected, array) in enumerate(zip(cut.names, cut.given, ours, strict=True)):
        node = makers[name]
        rows.append(_compare(ImportedLayer(name, i, node.op, node.scope, node.source, None), expected, array))
    return tuple(rows)


def _compare(
    layer: ImportedLayer, expected: Any, ours: npt.NDArray[Any], limit_steps: float | None = None
) -> LayerComparison:
    """Compares one value; limit_steps: of a float; None = what PART_FRACTION is in steps."""
    kind, theirs = ("codes", expected.codes) if isinstance(expected, QuantizedTensor) else ("floats", expected)
    if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
        raise AssertionError(
            f"{layer.name}: PyTorch has {theirs.dtype}{theirs.shape}, ours is {ours.dtype}{ours.shape}"
        )
    unequal = theirs != ours
    is_float = kind == "floats" and theirs.dtype.kind == "f"
    if is_float:
        unequal &= ~(np.isnan(theirs) & np.isnan(ours))
    differences = np.abs(theirs[unequal].astype(np.float64) - ours[unequal].astype(np.float64))
    largest = float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))
    steps = limit = 0.0
    magnitude = float(np.abs(theirs[np.isfinite(theirs)].astype(np.float64)).max(initial=0.0))
    if is_float:
        step = float(np.spacing(np.asarray(magnitude, theirs.dtype)))
        steps = largest / step
        limit = PART_FRACTION * magnitude / step if limit_steps is None else limit_steps
    return LayerComparison(
        layer.name,
        layer.op,
        layer.scope,
        layer.source,
        kind,
        ours.shape,
        int(unequal.sum()),
        largest,
        steps,
        limit,
        magnitude,
    )
