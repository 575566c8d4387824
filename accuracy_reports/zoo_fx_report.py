"""`make zoo-fx`: more of torchvision's classifiers, quantized by FX with default settings, against PyTorch.

Each is quantized (prepare_fx, seeded calibration, convert_fx), traced, saved, loaded from the file and compiled. Every
layer is computed from PyTorch's own floats (accuracy_reports.layers.compare): a code must never differ, a float by
rounding alone. --float (`make zoo-float`) compares FLOAT_NETWORKS as they are: each layer by itself, and the outputs of
the whole program, which may differ by 1e-4 of their range.

Writes docs/zoo_fx.json, and docs/zoo_fx.md from it (accuracy_reports.zoo_fx_page), after each network; rows of other
networks and engines stay. --keep runs only what has no row yet.
Exit status 1 if a code differs, or a float by more than rounding.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
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
from accuracy_reports.zoo_fx_page import FxRow, line_of, read_rows, write_page
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import told_and_exited

ENGINES = ("fbgemm", "onednn", "qnnpack")
PATHS = ("kernels", "portable")
OUTPUT = Path(__file__).parents[1] / "docs" / "zoo_fx.json"


def compare_fx_model(model: str, engine: str, path: str = PATHS[0], size: int | None = None) -> FxRow:
    """Quantizes one of FX_IMAGE_SIZES and compares it; size: of its images, None = its own."""
    return compare_network(model, quantized_model(model, engine, flow="fx", image_size=size), engine, path)


def compare_float_model(model: str, engine: str, path: str = PATHS[0], size: int | None = None) -> FxRow:
    """Compares a network as it is, in float; size: of its images, None = its own."""
    return replace(compare_network(model, float_model(model, engine, image_size=size), engine, path), is_float=True)


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
        False,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparisons that the arguments select; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m accuracy_reports.zoo_fx_report", description=__doc__)
    known = (*FX_IMAGE_SIZES, *IMAGE_SIZES)
    parser.add_argument("--models", nargs="+", choices=known, help="default: FX_IMAGE_SIZES, or FLOAT_NETWORKS")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="default: all; one of them for --float")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=PATHS[:1])
    parser.add_argument("--size", type=int, help="height and width of the images; default: the network's own")
    parser.add_argument("--float", action="store_true", help="compare the networks as they are, not quantized")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE.json")
    parser.add_argument("--keep", action="store_true", help="do not run again what has a row in FILE.json")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    torch.set_num_threads(1)  # PyTorch's vector tails depend on the number of threads
    models = options.models or (FLOAT_NETWORKS if options.float else tuple(FX_IMAGE_SIZES))
    engines = options.engines or (ENGINES[:1] if options.float else ENGINES)
    compare = compare_float_model if options.float else compare_fx_model
    rows = read_rows(options.output)
    cases = [(model, engine, path) for model in models for engine in engines for path in options.paths]
    made = []
    with Progress(console=Console(stderr=True)) as bars:
        for model, engine, path in bars.track(cases, description="comparing"):
            size = options.size or {**IMAGE_SIZES, **FX_IMAGE_SIZES}[model]
            key = (options.float, model, engine, path, size)
            if not (options.keep and key in rows):
                rows[key] = compare(model, engine, path, size)
                write_page(options.output, list(rows.values()))
            made.append(rows[key])
            bars.console.print(line_of(rows[key]), markup=False, soft_wrap=True)
    return 1 if any(row.wrong for row in made) else 0


if __name__ == "__main__":
    with told_and_exited():
        sys.exit(main())
