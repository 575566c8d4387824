"""`make zoo`: every layer of torchvision's quantizable networks against PyTorch, for every engine and both paths.

Prints, in Markdown, the table of the README. Exit status 1 if a code differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import Progress

from accuracy_reports.layers.compare import compare_captured
from accuracy_reports.zoo import IMAGE_SIZES, quantized_model, random_images
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model

ENGINES = ("fbgemm", "onednn", "qnnpack")
PATHS = ("kernels", "portable")


@dataclass(frozen=True)
class ZooRow:
    """One comparison: how many layers and elements were compared, and how many elements differ."""

    model: str
    engine: str
    path: str
    layers: int
    elements: int
    differing: int
    first_differing: str


def compare_zoo_model(model: str, engine: str, paths: Sequence[str]) -> Iterator[ZooRow]:
    """Yields a row for each path; PyTorch's reference is run once for all of them."""
    network = quantized_model(model, engine)
    captured = capture_model(network.module, [("x", network.input_shape)], engine)
    # Not the images it was calibrated with.
    inputs = [random_images(1, network.input_shape[-1], seed=1).numpy()]
    reference = run_reference(captured, inputs)
    for path in paths:
        result = compare_captured(captured, reference, inputs, kernels=path == "kernels")
        first = result.first_differing
        compared = (*result.layers, *result.outputs)
        yield ZooRow(
            model,
            engine,
            result.path,
            len(result.layers),
            sum(layer.elements for layer in compared),
            result.differing,
            "" if first is None else f"{first.scope} ({first.op})",
        )


def to_markdown(rows: Sequence[ZooRow], engines: Sequence[str], paths: Sequence[str]) -> str:
    """Returns a row per network with the differing elements of each engine and path, then every first difference."""
    found = {(row.model, row.engine, row.path): row for row in rows}
    columns = [f"{engine}: {' / '.join(paths)}" for engine in engines]
    lines = [f"| model | layers | elements | {' | '.join(columns)} |"]
    lines.append("|---|---|---|" + "---|" * len(engines))
    for model in dict.fromkeys(row.model for row in rows):
        first = found[model, engines[0], paths[0]]
        cells = [" / ".join(str(found[model, engine, path].differing) for path in paths) for engine in engines]
        lines.append(f"| {model} | {first.layers} | {first.elements} | {' | '.join(cells)} |")
    lines += [
        f"- {row.model}, {row.engine}, {row.path}: first in {row.first_differing}" for row in rows if row.differing
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparisons that the arguments select; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m accuracy_reports.zoo_report", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(IMAGE_SIZES), default=tuple(IMAGE_SIZES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=PATHS)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    cases = [(model, engine) for model in options.models for engine in options.engines]
    rows: list[ZooRow] = []
    with Progress(console=Console(stderr=True)) as bars:
        for model, engine in bars.track(cases, description="comparing"):
            rows += compare_zoo_model(model, engine, options.paths)
            bars.console.print(f"{model}, {engine}: {sum(row.differing for row in rows[-len(options.paths) :])} differ")
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print(to_markdown(rows, options.engines, options.paths))
    return 1 if any(row.differing for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
