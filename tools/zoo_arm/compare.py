"""One network on one engine: compiled for ARM targets into a bundle, run on emulated CPUs, held against PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.capture.graph import ConvParams, Graph, LinearParams
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.frontend.importer import import_graph
from qtorch_relay.pipeline import compile_imported
from qtorch_relay.qparams import QuantizedTensor
from qtorch_relay.runtime import CompiledModel
from qtorch_relay.runtime.bundle import read_manifest
from qtorch_relay.runtime.interface import PYTORCH, Golden
from qtorch_relay.target import resolve
from tools.emulated_board import Board, BoardError
from tools.zoo_arm.networks import captured_network

# qemu's CPU, and the target that a bundle with programs for all of them takes there.
CPUS = {"cortex-a53": "arm-neon", "cortex-a76": "arm-dotprod", "max": "arm-i8mm"}
_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Row:
    """A program on a CPU: how many codes of its outputs and of every layer were compared, and how many differ.

    floats_differing: of those outputs and layers that are floats.
    weight_bytes: of the model's int8 weights; bundle_bytes: of a bundle with the program for this target alone.
    memory_bytes: what the bundle takes once it ran, with numpy and TVM's runtime, beyond the interpreter alone.
    """

    model: str
    engine: str
    cpu: str
    target: str
    layers: int
    codes: int
    differing: int
    floats: int
    floats_differing: int
    weight_bytes: int
    bundle_bytes: int
    memory_bytes: int
    kernels: int


def compare(
    model: str, engine: str, cpus: Sequence[str], folder: Path, image_size: int | None = None, every_layer: bool = True
) -> Iterator[Row]:
    """Yields a row for each CPU.

    every_layer: also run the program that returns every layer, so that no difference is hidden by what comes after it.
    """
    captured, inputs = captured_network(model, engine, image_size)
    reference = run_reference(captured, inputs)
    targets = [CPUS[cpu] for cpu in cpus]
    golden = Golden(tuple(inputs), tuple(map(_array, reference.flat_outputs)), PYTORCH)
    deployed = _compile(import_graph(captured.graph), targets, folder / "deployed.qtr", golden)
    outputs = [(deployed, reference.flat_outputs)]
    layers = 0
    if every_layer:
        imported = import_graph(captured.graph, all_layers=True)
        layers = len(imported.layers)
        bundle = _compile(imported, targets, folder / "layers.qtr")
        outputs.append((bundle, [reference.values[layer.name] for layer in imported.layers]))
    np.savez(folder / "inputs.npz", *inputs)
    for cpu in cpus:
        board, counts = Board(cpu), Counts()
        memory_bytes, kernels = 0, 0
        for bundle, expected in outputs:
            told, found = _run(board, bundle, folder)
            if told["target"] != CPUS[cpu]:
                raise BoardError(f"on {cpu} the program for {told['target']} was taken, not that for {CPUS[cpu]}")
            for theirs, ours in zip(expected, found, strict=True):
                counts.add(theirs, ours)
            if bundle is deployed:
                memory_bytes = told["memory_bytes"]
                kernels = sum(_report(bundle, CPUS[cpu]).get("kernels", {}).values())
        yield Row(
            model,
            engine,
            cpu,
            CPUS[cpu],
            layers,
            counts.codes,
            counts.differing,
            counts.floats,
            counts.floats_differing,
            _weight_bytes(captured.graph),
            _bundle_bytes(deployed, CPUS[cpu]),
            memory_bytes,
            kernels,
        )


class Counts:
    """Adds up elements and differing elements, of codes and of floats."""

    def __init__(self) -> None:
        self.codes = self.differing = self.floats = self.floats_differing = 0

    def add(self, theirs: Any, ours: npt.NDArray[Any]) -> None:
        """Counts one tensor of PyTorch's and ours; NaN equals NaN."""
        expected = _array(theirs)
        if expected.shape != ours.shape or expected.dtype != ours.dtype:
            raise BoardError(f"PyTorch gives {expected.dtype} {expected.shape}, the board {ours.dtype} {ours.shape}")
        unequal = int(np.count_nonzero((expected != ours) & ~((expected != expected) & (ours != ours))))
        if isinstance(theirs, QuantizedTensor):
            self.codes += expected.size
            self.differing += unequal
        else:
            self.floats += expected.size
            self.floats_differing += unequal


def _compile(imported: Any, targets: Sequence[str], path: Path, golden: Golden | None = None) -> Path:
    compiled = CompiledModel.joined([compile_imported(imported, resolve(name)) for name in targets])
    compiled.golden = golden
    compiled.save(path)
    return path


def _array(value: Any) -> npt.NDArray[Any]:
    return value.codes if isinstance(value, QuantizedTensor) else value


def _run(board: Board, bundle: Path, folder: Path) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """Runs a bundle on the inputs and returns what the board tells, and the outputs in order."""
    output = folder / "outputs.npz"
    done = board.run(["-m", "tools.zoo_arm.on_board", bundle, folder / "inputs.npz", output], timeout_s=_TIMEOUT_S)
    if done.returncode != 0:
        raise BoardError(f"{bundle.name} failed on {board.cpu}: {done.stderr[-1000:]}")
    told = json.loads(done.stdout)
    with np.load(output, allow_pickle=False) as arrays:
        return told, [arrays[name] for name in told["outputs"]]


def _report(bundle: Path, target: str) -> dict[str, Any]:
    variants = [variant.interface for variant in read_manifest(bundle).variants]
    return next(interface.report for interface in variants if interface.target.name == target)


def _weight_bytes(graph: Graph) -> int:
    """Returns the size of the model's int8 weights."""
    packed = {id(arg): arg for node in graph.walk() for arg in node.args.values()}
    return sum(arg.weight.codes.size for arg in packed.values() if isinstance(arg, ConvParams | LinearParams))


def _bundle_bytes(bundle: Path, target: str) -> int:
    """Returns what the bundle would weigh with the program for one target alone: what load reads of it."""
    manifest = read_manifest(bundle)
    [entry] = [entry for entry in manifest.variants if entry.interface.target.name == target]
    names = {entry.library, *(weight.part for weight in entry.weights), "golden.bin"}
    return sum(manifest.parts[name].size_bytes for name in names)
