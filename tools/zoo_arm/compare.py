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
from qtorch_relay.runtime.bundle import read_manifest, read_variants
from qtorch_relay.runtime.interface import PYTORCH, Golden
from qtorch_relay.runtime.remote_address import Address
from qtorch_relay.runtime.remote_model import place
from qtorch_relay.runtime.remote_session import connect
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
    layers_pixels: height of the image on which every layer was compared, 0 if that of the outputs.
    rpc_elements, rpc_differing: of the same, uploaded to a stock RPC server on the board and run from here.
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
    layers_pixels: int = 0
    rpc_elements: int = 0
    rpc_differing: int = 0

    @property
    def wrong(self) -> int:
        """Elements that differ, whichever way they were run."""
        return self.differing + self.floats_differing + self.rpc_differing


@dataclass(frozen=True)
class Trial:
    """A bundle, its inputs, and what PyTorch gives for each of its outputs."""

    bundle: Path
    inputs: Sequence[npt.NDArray[Any]]
    expected: Sequence[Any]


def compare(
    model: str,
    engine: str,
    cpus: Sequence[str],
    folder: Path,
    image_size: int | None = None,
    every_layer: bool = True,
    layers_size: int | None = None,
    through_rpc: bool = True,
) -> Iterator[Row]:
    """Yields a row for each CPU.

    every_layer: also run the program that returns every layer, so that no difference is hidden by what comes after it;
    layers_size: on an image of this size. through_rpc: also run all from here, on the board's RPC server.
    """
    captured, inputs = captured_network(model, engine, image_size)
    reference = run_reference(captured, inputs)
    targets = [CPUS[cpu] for cpu in cpus]
    golden = Golden(tuple(inputs), tuple(map(_array, reference.flat_outputs)), PYTORCH)
    deployed = _compile(import_graph(captured.graph), targets, folder / "deployed.qtr", golden)
    trials = [Trial(deployed, inputs, reference.flat_outputs)]
    layers = layers_pixels = 0
    if every_layer:
        trial, layers = _every_layer(model, engine, targets, folder / "layers.qtr", layers_size or image_size)
        trials.append(trial)
        height = trial.inputs[0].shape[2]
        layers_pixels = height if height != inputs[0].shape[2] else 0
    for cpu in cpus:
        board, counts = Board(cpu), Counts()
        memory_bytes = 0
        for trial in trials:
            told, found = _run(board, trial, folder)
            _check_target(cpu, told["target"])
            counts.add_all(trial.expected, found)
            memory_bytes = memory_bytes or told["memory_bytes"]
        rpc = _through_rpc(board, trials) if through_rpc else Counts()
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
            sum(_report(deployed, CPUS[cpu]).get("kernels", {}).values()),
            layers_pixels,
            rpc.codes + rpc.floats,
            rpc.differing + rpc.floats_differing,
        )


def _every_layer(
    model: str, engine: str, targets: Sequence[str], path: Path, image_size: int | None
) -> tuple[Trial, int]:
    """Returns the program that returns every layer, and their number."""
    captured, inputs = captured_network(model, engine, image_size)
    reference = run_reference(captured, inputs)
    imported = import_graph(captured.graph, all_layers=True)
    expected = [reference.values[layer.name] for layer in imported.layers]
    return Trial(_compile(imported, targets, path), inputs, expected), len(imported.layers)


def _through_rpc(board: Board, trials: Sequence[Trial]) -> Counts:
    """Runs bundles on a board's stock RPC server and returns what differs."""
    counts = Counts()
    with board.rpc_server() as server, connect(Address(server.host, server.port), timeout_s=_TIMEOUT_S) as session:
        for trial in trials:
            placed = place(session, read_variants(trial.bundle), trial.bundle.name)
            _check_target(board.cpu, placed.target.name)
            counts.add_all(trial.expected, placed.run_flat(list(trial.inputs)))
    return counts


def _check_target(cpu: str, target: str) -> None:
    if target != CPUS[cpu]:
        raise BoardError(f"on {cpu} the program for {target} was taken, not that for {CPUS[cpu]}")


class Counts:
    """Adds up elements and differing elements, of codes and of floats."""

    def __init__(self) -> None:
        self.codes = self.differing = self.floats = self.floats_differing = 0

    def add_all(self, theirs: Sequence[Any], ours: Sequence[npt.NDArray[Any]]) -> None:
        """Counts all tensors of a run."""
        for one, other in zip(theirs, ours, strict=True):
            self.add(one, other)

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


def _run(board: Board, trial: Trial, folder: Path) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """Runs a bundle on its inputs and returns what the board tells, and the outputs in order."""
    inputs, output = folder / "inputs.npz", folder / "outputs.npz"
    np.savez(inputs, *trial.inputs)
    done = board.run(["-m", "tools.zoo_arm.on_board", trial.bundle, inputs, output], timeout_s=_TIMEOUT_S)
    if done.returncode != 0:
        raise BoardError(f"{trial.bundle.name} failed on {board.cpu}: {done.stderr[-1000:]}")
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
