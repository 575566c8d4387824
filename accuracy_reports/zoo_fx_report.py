"""`make zoo-fx`: more of torchvision's classifiers, quantized by FX with default settings, against PyTorch.

Each is quantized (prepare_fx, seeded calibration, convert_fx), traced, saved, loaded from the file and compiled. Every
layer is computed from PyTorch's own floats (accuracy_reports.layers.compare): a code must never differ, a float by
rounding alone. Prints, in Markdown, a row per network and engine:

- codes: how many codes there are in all layers, and how many differ.
- floats: how many floats there are, how many differ, and by how many float32 steps at the tensor's largest value (ulp).
- at ties: how many codes move because the float that is quantized differs by its rounding, when each float part of the
  program is run from PyTorch's codes. Each lies at a rounding tie: it moves by one step, and back if the float does.
- output: by how much of their range the outputs of the whole program differ in the end.

Exit status 1 if a code differs, or a float by more than rounding. --float (`make zoo-float`) compares FLOAT_NETWORKS as
they are: each layer by itself, and the outputs of the whole program, which may differ by 1e-4 of their range.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from accuracy_reports.layers.compare import Comparison, LayerComparison, compare_captured
from accuracy_reports.zoo import (
    FLOAT_NETWORKS,
    FX_IMAGE_SIZES,
    IMAGE_SIZES,
    ZooModel,
    float_model,
    quantized_model,
    random_images,
)
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model

ENGINES = ("fbgemm", "onednn", "qnnpack")
PATHS = ("kernels", "portable")


@dataclass(frozen=True)
class FxRow:
    """One network on one engine and path.

    largest_ulp: of all float layers; wrong: layers that differ by more than rounding, empty if all is well.
    output_differing and output_fraction: of the outputs of the whole program, from its input alone; the largest
    difference as a fraction of the largest output.
    """

    model: str
    size: int
    engine: str
    path: str
    layers: int
    codes: int
    differing_codes: int
    floats: int
    differing_floats: int
    largest_ulp: float
    float_ops: tuple[str, ...]
    parts: int
    moved_codes: int
    output_differing: int
    output_fraction: float
    wrong: tuple[str, ...]


def compare_fx_model(model: str, engine: str, path: str = PATHS[0], size: int | None = None) -> FxRow:
    """Quantizes one of FX_IMAGE_SIZES and compares it; size: of its images, None = its own."""
    return compare_network(model, quantized_model(model, engine, flow="fx", image_size=size), engine, path)


def compare_float_model(model: str, engine: str, path: str = PATHS[0], size: int | None = None) -> FxRow:
    """Compares a network as it is, in float; size: of its images, None = its own."""
    return compare_network(model, float_model(model, engine, image_size=size), engine, path)


def compare_network(name: str, network: ZooModel, engine: str, path: str = PATHS[0], target: Any = "host") -> FxRow:
    """Saves, loads, compiles and compares a network."""
    size = network.input_shape[-1]
    images = random_images(1, size, seed=1)  # not those it was calibrated with
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # sizes are numbers of the trace
        file = Path(folder) / f"{name}.pt"
        with quantized_engine(engine):
            torch.jit.save(torch.jit.trace(network.module, images, check_trace=False), file)
        captured = capture_model(file, [("x", network.input_shape)], engine)
    inputs = [images.numpy()]
    result = compare_captured(captured, run_reference(captured, inputs), inputs, target, kernels=path == "kernels")
    return to_row(name, size, result)


def to_row(model: str, size: int, result: Comparison) -> FxRow:
    """Returns the row of a comparison."""
    codes = [layer for layer in result.layers if layer.kind == "codes"]
    floats = [layer for layer in result.layers if layer.kind == "floats"]
    differing = [layer for layer in floats if layer.differing]
    return FxRow(
        model,
        size,
        result.engine,
        result.path,
        len(result.layers),
        sum(layer.elements for layer in codes),
        sum(layer.differing for layer in codes),
        sum(layer.elements for layer in floats),
        sum(layer.differing for layer in floats),
        result.largest_steps,
        tuple(sorted({layer.op.partition(".")[0] for layer in differing})),
        len(result.moved),
        sum(moved.differing for moved in result.moved),
        sum(output.differing for output in result.deployed),
        max(output.largest_fraction for output in result.deployed),
        tuple(_name(layer) for layer in result.wrong),
    )


def _name(layer: LayerComparison) -> str:
    return f"{layer.scope or layer.name} ({layer.op})"


def to_markdown(rows: Sequence[FxRow]) -> str:
    """Returns a line per row, and below what is wrong, if anything is."""
    lines = [
        "| model | image | engine | layers | codes: differ | floats: differ | largest ulp, in | at ties | output |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        where = f"{row.largest_ulp:.2g}, {', '.join(row.float_ops)}" if row.differing_floats else "0"
        output = "equal" if not row.output_differing else f"{row.output_fraction:.1e} of the range"
        lines.append(
            f"| {row.model} | {row.size} | {row.engine}, {row.path} | {row.layers} | {row.codes}: "
            f"{row.differing_codes} | {row.floats}: {row.differing_floats} | {where} | {row.moved_codes} | {output} |"
        )
    lines += [f"- {row.model}, {row.engine}, {row.path}: wrong: {', '.join(row.wrong)}" for row in rows if row.wrong]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparisons that the arguments select; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m accuracy_reports.zoo_fx_report", description=__doc__)
    known = (*FX_IMAGE_SIZES, *IMAGE_SIZES)
    parser.add_argument("--models", nargs="+", choices=known, help="default: FX_IMAGE_SIZES, or FLOAT_NETWORKS")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES[:1])
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=PATHS[:1])
    parser.add_argument("--size", type=int, help="height and width of the images; default: the network's own")
    parser.add_argument("--float", action="store_true", help="compare the networks as they are, not quantized")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    torch.set_num_threads(1)  # PyTorch's vector tails depend on the number of threads
    models = options.models or (FLOAT_NETWORKS if options.float else tuple(FX_IMAGE_SIZES))
    cases = [(model, engine, path) for model in models for engine in options.engines for path in options.paths]
    rows: list[FxRow] = []
    with Progress(console=Console(stderr=True)) as bars:
        for model, engine, path in bars.track(cases, description="comparing"):
            compare = compare_float_model if options.float else compare_fx_model
            rows.append(compare(model, engine, path, options.size))
            bars.console.print(to_markdown(rows[-1:]).splitlines()[2], markup=False, soft_wrap=True)
    print(json.dumps([asdict(row) for row in rows], indent=1) if options.json else to_markdown(rows))
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
