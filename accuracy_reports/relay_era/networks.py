"""Networks in a real TVM with Relay: as our Relay text, and as its own relay.frontend.from_pytorch imports them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from accuracy_reports.layers.cuts import cut_every_value
from accuracy_reports.relay_era.job import RelayEraError, run_text, run_torchscript
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import CapturedModel, capture_model
from qtorch_relay.frontend.context import identifier
from qtorch_relay.frontend.importer import import_graph
from qtorch_relay.lowering.rebuild import bindings_of, op_name
from qtorch_relay.qnn.op_def import Operands
from qtorch_relay.qparams import QuantizedTensor
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.text import imported_text

PEER = "relay.frontend.from_pytorch"
DEFAULT, EXACT = "qtorch_relay", "qtorch_relay --exact"
QNN, LAYERS = "qtorch_relay --requantize qnn", "qtorch_relay --requantize qnn, each layer alone"
PROGRAMS = (DEFAULT, EXACT, PEER, QNN, LAYERS)
OPTIONS = {DEFAULT: Options(), EXACT: Options(exact=True), QNN: Options(requantize="qnn")}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Run:
    """One program of one network in the Relay-era TVM.

    program: one of PROGRAMS. error: why it does not run, "" if it does; then the rest is empty.
    elements, differing: codes of the outputs (of every layer, for LAYERS) that are not PyTorch's; largest: in codes.
    top1: how many of the images get PyTorch's class. seconds: of "text" (ours: import of the model and text), "import"
    (parsing, or the peer's import), "build" and "run".
    same_as: the program whose text is the very same, so that it was run once for both.
    """

    network: str
    engine: str
    image_size: int
    program: str
    error: str = ""
    elements: int = 0
    differing: int = 0
    largest: int = 0
    same_top1: bool = False
    same_as: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the run as JSON data."""
        return asdict(self)


def run_network(
    network: str, module: torch.nn.Module, image: Array, engine: str, programs: Sequence[str] = PROGRAMS
) -> Iterator[Run]:
    """Yields how each program does on an image, which the network takes as its one input "x"."""
    start = time.perf_counter()
    captured = capture_model(module, [("x", image.shape)], engine)
    imported = import_graph(captured.graph)
    seconds = time.perf_counter() - start
    with quantized_engine(engine), torch.no_grad():
        expected = module(torch.from_numpy(image)).numpy()
    about = {"network": network, "engine": engine, "image_size": image.shape[-1]}
    texts: dict[tuple[str, bytes], Run] = {}
    for program in programs:
        try:
            if program == LAYERS:
                yield Run(**about, program=program, **_run_layers(captured, image))
                continue
            if program == PEER:
                ran = _run_peer(module, image, engine)
            else:
                text_start = time.perf_counter()
                text, params = imported_text(imported, OPTIONS[program])
                text_seconds = {"text": seconds + time.perf_counter() - text_start}
                if (text, params) in texts:
                    other = texts[text, params]
                    yield replace(other, program=program, same_as=other.program)
                    continue
                ran = run_text(text, params, {"x": image})
        except RelayEraError as error:
            yield Run(**about, program=program, error=str(error))
            continue
        times = dict(ran.seconds) if program == PEER else {**text_seconds, **ran.seconds}
        run = Run(**about, program=program, **_compared(ran.outputs[0], expected, _scale(imported.mod)), seconds=times)
        if program != PEER:
            texts[text, params] = run
        yield run


def _run_peer(module: torch.nn.Module, image: Array, engine: str) -> Any:
    with tempfile.TemporaryDirectory() as folder, quantized_engine(engine), torch.no_grad():
        path = Path(folder) / "model.pt"
        torch.jit.save(torch.jit.trace(module, torch.from_numpy(image)), path)
        return run_torchscript(path, {"x": image})


def _scale(mod: Any) -> float:
    """Returns the scale of the codes that the model's output is made of, 1 if it is none."""
    last = [binding.value for binding in bindings_of(mod["main"]) if op_name(binding.value) == "qnn.dequantize"]
    return float(Operands(last[-1]).scalar("input_scale")) if last else 1.0


def _compared(found: Array, expected: Array, scale: float) -> dict[str, Any]:
    """Returns the differences of outputs that are codes * scale."""
    gaps = np.abs(np.rint((found.astype(np.float64) - expected) / scale)).astype(np.int64)
    gaps = np.maximum(gaps, found != expected) if scale == 1.0 else gaps
    same = bool((found.reshape(len(found), -1).argmax(1) == expected.reshape(len(expected), -1).argmax(1)).all())
    return {"elements": gaps.size, "differing": int((gaps > 0).sum()), "largest": int(gaps.max()), "same_top1": same}


def _run_layers(captured: CapturedModel, image: Array) -> dict[str, Any]:
    """Returns the differences of all layers, each computed from PyTorch's own codes."""
    reference = run_reference(captured, [image])
    cut = cut_every_value(captured.graph, reference)
    every_layer = import_graph(cut.graph, all_layers=True)
    names = [identifier(item.value.name) for item in cut.graph.inputs]
    text, params = imported_text(every_layer, OPTIONS[QNN])
    ran = run_text(text, params, dict(zip(names, [image, *cut.given], strict=True)))
    elements = differing = largest = 0
    for layer in every_layer.layers:
        expected = reference.values[layer.name]
        if not isinstance(expected, QuantizedTensor):
            continue
        gaps = np.abs(ran.outputs[layer.index].astype(np.int64) - expected.codes)
        elements, differing = elements + gaps.size, differing + int((gaps > 0).sum())
        largest = max(largest, int(gaps.max(initial=0)))
    return {"elements": elements, "differing": differing, "largest": largest, "seconds": ran.seconds}
