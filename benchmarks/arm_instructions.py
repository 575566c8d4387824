"""Instructions of an inference on ARM, ours beside PyTorch's QNNPACK and ONNX Runtime, counted by qemu-aarch64.

python -m benchmarks.arm_instructions [--models resnet18 mobilenet_v2] [--cpus cortex-a53 cortex-a76 max]

One thread, batch 1, the same network, weights and scales. Writes arm_instructions.json and arm_instructions.md. Needs
qemu-user, gcc and aarch64-linux-gnu-g++; the board of tools/emulated_board with its extras torch and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qtorch_relay as qr
from accuracy_reports.zoo import IMAGE_SIZES, float_model, quantized_model, random_images
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.peers import export_for_peers
from tools.emulated_board import Board

RESULTS = Path(__file__).with_name("results")
HERE = Path(__file__).parent
RUNS = 1

TARGETS = {"cortex-a53": "arm-neon", "cortex-a76": "arm-dotprod", "max": "arm-i8mm"}
"""The CPUs that qemu emulates, and our program for each."""

PROGRAMS = {"ours": "ours", "pytorch": "PyTorch, QNNPACK", "onnxruntime": "ONNX Runtime"}


@dataclass(frozen=True)
class Row:
    """Instructions of one inference of a network by a program on a CPU; macs of the network."""

    model: str
    cpu: str
    program: str
    instructions: int
    macs: int

    @property
    def macs_per_instruction(self) -> float:
        """Multiply-accumulates for each instruction of the whole network."""
        return self.macs / self.instructions


def macs_of(module: torch.nn.Module, image: torch.Tensor) -> int:
    """Returns the multiply-accumulates of a network's convolutions and linear layers."""
    found = []

    def add(layer: Any, _: Any, out: torch.Tensor) -> None:
        # each output takes as many products as it has weights; those of a linear layer are [features, inputs]
        found.append(out.numel() * layer.weight[0].numel())

    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.inference_mode():
        module(image)
    for hook in hooks:
        hook.remove()
    return sum(found)


class Network:
    """A network's files for all programs, in a folder."""

    def __init__(self, name: str, folder: Path, size: int | None) -> None:
        self.name, self.folder = name, folder
        module = quantized_model(name, "qnnpack").module
        image = random_images(1, size or IMAGE_SIZES[name], seed=1)
        self.macs = macs_of(float_model(name, "qnnpack").module, image)
        np.save(folder / "input.npy", image.numpy())
        with quantized_engine("qnnpack"), torch.inference_mode():
            self.traced: Any = torch.jit.freeze(torch.jit.trace(module, image).eval())
            torch.jit.save(self.traced, str(folder / "model.pt"))
        self.shape = tuple(image.shape)
        (folder / "model.onnx").write_bytes(export_for_peers(module, [image])["ONNX Runtime"])

    def file(self, program: str, cpu: str) -> Path:
        """Returns the file that a program runs."""
        if program != "ours":
            return self.folder / {"pytorch": "model.pt", "onnxruntime": "model.onnx"}[program]
        path = self.folder / f"{TARGETS[cpu]}.qtr"
        if not path.exists():
            qr.compile(self.traced, [("x", self.shape)], engine="qnnpack", target=TARGETS[cpu]).save(path)
        return path


def build_plugin(folder: Path) -> Path:
    """Returns the path of the plugin that counts."""
    path = folder / "count_instructions.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", path, HERE / "count_instructions.c"]
    subprocess.run([str(part) for part in command], check=True, timeout=60)
    return path


def count(plugin: Path, network: Network, program: str, cpu: str) -> Row:
    """Returns the instructions of an inference, the median of a few."""
    extras = () if program == "ours" else ("torch" if program == "pytorch" else "onnxruntime",)
    counts = network.folder / "counts"
    arguments: Sequence[str | Path] = [HERE / "arm_guest.py", program, network.file(program, cpu)]
    done = Board(cpu, extras).run(
        [*arguments, network.folder / "input.npy", str(RUNS)],
        environment={"QEMU_PLUGIN": f"{plugin},out={counts}", "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"},
        timeout_s=3000,
    )
    if done.returncode:
        raise RuntimeError(f"{program} on {cpu} failed: {done.stderr[-2000:]}")
    marks = [int(line) for line in counts.read_text().split()]
    instructions = [end - start for start, end in zip(marks[-RUNS - 1 :], marks[-RUNS:], strict=False)]
    return Row(network.name, cpu, PROGRAMS[program], int(statistics.median(instructions)), network.macs)


def to_markdown(rows: Sequence[Row]) -> str:
    """Returns a table."""
    lines = [
        "Made by `python -m benchmarks.arm_instructions`: instructions of one inference in qemu-aarch64, one thread,",
        "batch 1, networks quantized for QNNPACK.",
        "",
        "| network | CPU | program | million instructions | MACs / instruction |",
        "|---|---|---|---:|---:|",
    ]
    lines += [
        f"| {row.model} | {row.cpu} | {row.program} | {row.instructions / 1e6:.1f} | {row.macs_per_instruction:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--cpus", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--size", type=int, help="height and width of the image, if not the network's own")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--keep", action="store_true", help="keep the rows of the output that this run does not make")
    options = parser.parse_args()
    path = options.output / "arm_instructions.json"
    rows = _read(path) if options.keep else {}
    with tempfile.TemporaryDirectory() as name:
        plugin = build_plugin(Path(name))
        for model in options.models:
            folder = Path(name) / model
            folder.mkdir()
            network = Network(model, folder, options.size)
            for cpu in options.cpus:
                for program in options.programs:
                    row = count(plugin, network, program, cpu)
                    rows[row.model, row.cpu, row.program] = row
                    print(to_markdown([row]).splitlines()[-1], flush=True)
                    _write(path, list(rows.values()))


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows as JSON, and as Markdown beside it."""
    data = [{**asdict(row), "macs_per_instruction": row.macs_per_instruction} for row in rows]
    path.write_text(json.dumps(data, indent=1) + "\n")
    path.with_suffix(".md").write_text(to_markdown(rows))


def _read(path: Path) -> dict[tuple[str, str, str], Row]:
    """Returns the rows of a file by network, CPU and program."""
    names = {field.name for field in fields(Row)}
    rows = [
        Row(**{name: value for name, value in row.items() if name in names}) for row in json.loads(path.read_text())
    ]
    return {(row.model, row.cpu, row.program): row for row in rows}


if __name__ == "__main__":
    main()
