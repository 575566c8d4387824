"""Layer by layer, three ways: float, PyTorch int8, compiled int8; summed up over images, in memory that stays flat.

A loss is told twice. Inherited: float to PyTorch int8 to ours, each program run from the model's inputs. And alone:
what a layer does itself. For quantization that is the float layer run on PyTorch int8's inputs against PyTorch int8's
output; for the compiler, elements that differ where no input of the layer does. So a fault is found in the layer that
has it, not in the hundred that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accuracy_reports.layers.alone import FloatOps
from accuracy_reports.layers.compare import Place, here
from accuracy_reports.layers.counterparts import Counterpart, Reads, find_counterparts, module_name, why_missing
from accuracy_reports.layers.cuts import Cut, cut_every_float
from accuracy_reports.layers.gaps import CodeSums, GapSums, View, has_histogram, real_of, view_floats
from accuracy_reports.record import Layer, Layers
from qtorch_relay.capture.graph import Graph, Node
from qtorch_relay.capture.reference import ReferenceRun, run_reference
from qtorch_relay.capture.torchscript import CapturedModel, capture_model
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.frontend.importer import ImportedLayer, import_graph
from qtorch_relay.pipeline import compile_imported
from qtorch_relay.qparams import PerTensor, QuantizedTensor
from qtorch_relay.runtime.model import Model

Arrays = Sequence[npt.NDArray[Any]]


def compare_three_ways(
    model: Any,
    float_model: Any | None,
    input_infos: Any,
    batches: Iterable[Arrays],
    engine: str | None = None,
    target: Any = "host",
    *,
    kernels: bool = True,
    float_name: str = "float",
    place: Place = here,
    progress: Callable[[int], None] = lambda _: None,
) -> Layers:
    """Compares every layer of a compiled model with PyTorch int8 and with the float model that it was made from.

    model, input_infos, engine, target, kernels: as in qtorch_relay.compile; the target must run on this host.
    float_model: as model; None leaves the float columns out. float_name: what to call it.
    batches: the model's inputs, one array each, of the sizes in input_infos; as many as wanted.
    place: takes the compiled program to where it runs. progress: told the number of images that are done.

    Raises:
        InvalidInputError: there is no batch, or the float model is quantized.
        QTorchRelayError: what compiling and run_reference raise.
    """
    captured = capture_model(model, input_infos, engine)
    floats = None if float_model is None else _capture_float(float_model, input_infos, engine, float_name)
    run = ThreeWays(captured, floats, target, kernels=kernels, place=place)
    for batch in batches:
        run.add(list(batch))
        progress(run.images)
    return run.layers(None if floats is None else float_name)


def _capture_float(model: Any, input_infos: Any, engine: str | None, name: str) -> CapturedModel:
    captured = capture_model(model, input_infos, engine)
    quantized = next((node for node in captured.graph.walk() if node.name.startswith("quantized::")), None)
    if quantized is not None:
        raise InvalidInputError(
            f"{name} is quantized: it has {quantized.name}; give the float model that the int8 one was made from"
        )
    return captured


@dataclass
class _Sums:
    """What is summed up for one layer. total, quantization, own_quantization: None without a counterpart."""

    node: Node
    layer: ImportedLayer
    shape: tuple[int, ...]
    dtype: str
    qparams: PerTensor | None
    counterpart: Counterpart | None
    missing: str | None
    compiler: GapSums
    total: GapSums | None = None
    quantization: GapSums | None = None
    own_quantization: GapSums | None = None
    own_compiler: int = 0
    theirs: CodeSums | None = None
    ours: CodeSums | None = None

    def result(self) -> Layer:
        theirs = None if self.theirs is None else self.theirs.code_counts()
        ours = None if self.ours is None else self.ours.code_counts()
        return Layer(
            name=self.layer.name,
            op=self.layer.op,
            scope=module_name(self.node),
            source=self.layer.source,
            dtype=self.dtype,
            shape=self.shape,
            scale=None if self.qparams is None else float(self.qparams.scale),
            zero_point=None if self.qparams is None else int(self.qparams.zero_point),
            counterpart=None if self.counterpart is None else self.counterpart.label,
            missing=self.missing,
            total=None if self.total is None else self.total.gap(),
            quantization=None if self.quantization is None else self.quantization.gap(),
            own_quantization=None if self.own_quantization is None else self.own_quantization.gap(),
            compiler=self.compiler.gap(),
            own_compiler=self.own_compiler,
            theirs=theirs,
            ours=None if ours == theirs else ours,
        )


class ThreeWays:
    """A comparison that images are added to.

    images: how many were added, a batch counting as its first dimension.
    """

    def __init__(
        self,
        captured: CapturedModel,
        floats: CapturedModel | None,
        target: Any = "host",
        *,
        kernels: bool = True,
        program: Graph | None = None,
        place: Place = here,
    ) -> None:
        """program: the graph that is compiled; None = the captured one. Its values are named alike."""
        self.images = 0
        self._captured, self._floats = captured, floats
        self._target, self._kernels, self._place = target, kernels, place
        self._program_graph = captured.graph if program is None else program
        self._reads = Reads(captured.graph)
        self._float_ops = None if floats is None else FloatOps(floats)
        self._counterparts = {} if floats is None else find_counterparts(captured.graph, floats.graph)
        # Of the float model only what is compared is kept: a third of its values, and they have four bytes each.
        self._wanted: set[str] = set()
        for counterpart in self._counterparts.values():
            self._wanted.add(counterpart.value)
            if self._float_ops is not None:
                self._wanted |= self._float_ops.reads(counterpart)
        self._compiled: tuple[Cut, Model] | None = None
        self._sums: list[_Sums] = []

    def add(self, inputs: Arrays) -> None:
        """Runs the three programs on a batch and adds what they give."""
        reference = run_reference(self._captured, list(inputs))
        floats = None if self._floats is None else run_reference(self._floats, list(inputs), keep=self._wanted)
        if self._compiled is None:
            self._compiled = self._compile(reference, floats)
        cut, program = self._compiled
        given = [reference.values[name] for name in cut.names]
        ours = program.run_flat([*inputs, *given])
        equal = dict.fromkeys((item.value.name for item in self._captured.graph.inputs), True)
        equal.update(dict.fromkeys(cut.names, True))  # whatever reads these reads PyTorch's
        for sums, array in zip(self._sums, ours, strict=True):
            self._add_layer(sums, array, reference, floats, equal, frozenset(cut.names))
        self.images += int(inputs[0].shape[0]) if inputs and inputs[0].ndim else 1

    def layers(self, float_name: str | None) -> Layers:
        """Returns what was summed up. Raises: InvalidInputError if nothing was."""
        if not self._sums:
            raise InvalidInputError("there are no images to compare the layers on; give at least one")
        return Layers(self.images, float_name, tuple(sums.result() for sums in self._sums))

    def _compile(self, reference: ReferenceRun, floats: ReferenceRun | None) -> tuple[Cut, Model]:
        """Compiles a program that returns every layer, each op reading PyTorch's floats (see cuts)."""
        cut = cut_every_float(self._program_graph, reference)
        imported = import_graph(cut.graph, all_layers=True)
        program = self._place(compile_imported(imported, self._target, kernels=self._kernels))
        self._sums = [self._start(layer, reference, floats) for layer in imported.layers]
        return cut, program

    def _start(self, layer: ImportedLayer, reference: ReferenceRun, floats: ReferenceRun | None) -> _Sums:
        node, value = self._reads.makers[layer.name], reference.values[layer.name]
        array, qparams = (value.codes, value.qparams) if isinstance(value, QuantizedTensor) else (value, None)
        qparams = qparams if isinstance(qparams, PerTensor) else None
        scale = None if qparams is None else float(qparams.scale)
        counterpart, missing = self._counterparts.get(layer.name), None
        if floats is None:
            counterpart, missing = None, "there is no float model"
        elif counterpart is None:
            missing = why_missing(node, self._reads, self._counterparts)
        else:
            found = np.shape(floats.values[counterpart.value])
            if found != array.shape:
                missing = f"{counterpart.label} of the float model has the shape {list(found)}"
                counterpart = None
        sums = _Sums(node, layer, array.shape, str(array.dtype), qparams, counterpart, missing, GapSums(scale))
        if counterpart is not None:
            sums.total, sums.quantization = GapSums(scale), GapSums(scale)
            if counterpart.inputs:
                sums.own_quantization = GapSums(scale)
        if qparams is not None and has_histogram(qparams):
            sums.theirs, sums.ours = CodeSums(qparams), CodeSums(qparams)
        return sums

    def _add_layer(
        self,
        sums: _Sums,
        array: npt.NDArray[Any],
        reference: ReferenceRun,
        floats: ReferenceRun | None,
        equal: dict[str, bool],
        given: frozenset[str],
    ) -> None:
        value = reference.values[sums.layer.name]
        theirs = _view(value)
        differing = _count_differing(value, array)
        if differing == 0:
            ours = theirs
            sums.compiler.add_equal(theirs)
        else:
            found = QuantizedTensor(array, value.qparams) if isinstance(value, QuantizedTensor) else array
            ours = _view(found)
            sums.compiler.add(theirs, ours)
            if all(equal.get(name, True) for name in self._reads.inputs(sums.node)):
                sums.own_compiler += differing
        if sums.layer.name not in given:
            equal[sums.layer.name] = differing == 0
        for counts, view in ((sums.theirs, theirs), (sums.ours, ours)):
            if counts is not None and view.codes is not None:
                counts.add(view.codes)
        if floats is not None and sums.counterpart is not None:
            self._add_float(sums, sums.counterpart, theirs, ours, reference, floats)

    def _add_float(
        self,
        sums: _Sums,
        counterpart: Counterpart,
        theirs: View,
        ours: View,
        reference: ReferenceRun,
        floats: ReferenceRun,
    ) -> None:
        real = view_floats(floats.values[counterpart.value], sums.qparams)
        assert sums.quantization is not None
        assert sums.total is not None
        sums.quantization.add(real, theirs)
        sums.total.add(real, ours)
        if sums.own_quantization is None:
            return
        inputs = {name: real_of(reference.values[name]) for name in counterpart.inputs}
        if not counterpart.chain:
            (alone,) = inputs.values()
        else:
            assert self._float_ops is not None
            by_float = {self._counterparts[name].value: value for name, value in inputs.items()}
            alone = self._float_ops.run(counterpart, by_float, floats.values)
        sums.own_quantization.add(view_floats(alone, sums.qparams), theirs)


def _view(value: Any) -> View:
    if isinstance(value, QuantizedTensor):
        return View(real_of(value).astype(np.float64), value.codes)
    return view_floats(value, None)


def _count_differing(value: Any, ours: npt.NDArray[Any]) -> int:
    """Returns how many elements differ from PyTorch's; NaN equals NaN."""
    theirs = value.codes if isinstance(value, QuantizedTensor) else value
    unequal = theirs != ours
    if theirs.dtype.kind == "f":
        unequal &= ~(np.isnan(theirs) & np.isnan(ours))
    return int(np.count_nonzero(unequal))
