"""`make zoo-arm`: torchvision's eight networks and the demo's CNN on emulated ARM boards, against PyTorch.

Each is compiled on this machine for NEON, dotprod and i8mm into one bundle. On a Cortex-A53, a Cortex-A76 and a CPU
with everything the runtime takes its program from it. Writes docs/zoo_arm.json and zoo_arm.md.
Exit status 1 if an element differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qtorch_relay.errors import PortablePathWarning, told_and_exited
from qtorch_relay.output_files import atomic_write
from tools.zoo_arm.compare import CPUS, Row, compare
from tools.zoo_arm.networks import NETWORKS

ENGINES = ("fbgemm", "qnnpack")
_DOCS = Path(__file__).parents[2] / "docs"
_MB = 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparisons that the arguments select; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.zoo_arm", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="MODEL")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--cpus", nargs="+", choices=tuple(CPUS), default=tuple(CPUS))
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="default: each network's own")
    parser.add_argument("--outputs-only", action="store_true", help="do not run the program that returns every layer")
    parser.add_argument("--layers-size", type=int, metavar="PIXELS", help="image size for every layer, if another")
    parser.add_argument("--no-rpc", action="store_true", help="run on the board only, not from here through RPC")
    parser.add_argument("--output", type=Path, default=_DOCS / "zoo_arm.json", metavar="FILE.json")
    parser.add_argument("--keep", action="store_true", help="keep the rows in FILE.json that this run does not make")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=PortablePathWarning)
    rows = _read(options.output) if options.keep else {}
    jobs = [(model, engine) for model in options.models for engine in options.engines]
    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("on the boards", total=len(jobs) * len(options.cpus))
        for model, engine in jobs:
            bars.update(task, description=f"{model}, {engine}")
            with tempfile.TemporaryDirectory(prefix="qtorch_relay_zoo_") as folder:
                sizes = options.image_size, not options.outputs_only, options.layers_size
                for row in compare(model, engine, options.cpus, Path(folder), *sizes, through_rpc=not options.no_rpc):
                    rows[row.model, row.engine, row.cpu] = row
                    _write(options.output, list(rows.values()))
                    bars.advance(task)
    print(to_markdown(list(rows.values())))
    return 1 if any(row.wrong for row in rows.values()) else 0


def to_markdown(rows: Sequence[Row]) -> str:
    """Returns a table with a line for each network and engine, and one with sizes for each network and target."""
    found = {(row.model, row.engine, row.cpu): row for row in rows}
    cpus = [cpu for cpu in CPUS if any(row.cpu == cpu for row in rows)]
    lines = [
        f"| model | engine | layers | elements | {' | '.join(f'{cpu} ({CPUS[cpu]})' for cpu in cpus)} | through RPC |",
        "|---|---|---|---|" + "---|" * (len(cpus) + 1),
    ]
    for model, engine in dict.fromkeys((row.model, row.engine) for row in rows):
        mine = [found.get((model, engine, cpu)) for cpu in cpus]
        first = next(row for row in mine if row is not None)
        cells = ["" if row is None else str(row.differing + row.floats_differing) for row in mine]
        cells.append(", ".join(str(row.rpc_differing) for row in mine if row is not None and row.rpc_elements))
        cells = [_layers(first), str(first.codes + first.floats), *cells]
        lines.append(f"| {model} | {engine} | {' | '.join(cells)} |")
    lines += ["", "| model | target | kernels | int8 weights MB | bundle MB | more than weights MB | memory MB |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        if row.engine != rows[0].engine:
            continue
        figures = (row.weight_bytes, row.bundle_bytes, row.bundle_bytes - row.weight_bytes, row.memory_bytes)
        cells = [f"{size / _MB:.2f}" for size in figures]
        lines.append(f"| {row.model} | {row.target} | {row.kernels} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _layers(row: Row) -> str:
    """Returns of which layers elements were compared, in words."""
    if not row.layers:
        return "outputs"
    return f"{row.layers} at {row.layers_pixels} pixels" if row.layers_pixels else str(row.layers)


def _read(path: Path) -> dict[tuple[str, str, str], Row]:
    rows = [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []
    return {(row.model, row.engine, row.cpu): row for row in rows}


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows as JSON, and as Markdown beside it."""
    with atomic_write(path) as file:
        file.write(json.dumps([asdict(row) for row in rows], indent=1).encode())
    about = (
        "# Networks on emulated ARM boards\n\n"
        "`make zoo-arm`: elements of outputs, and of all layers where their number is told, that differ from "
        "PyTorch's; run under qemu from one bundle with a program for each target: by the board's own runtime, and, "
        "where it is told for each of the CPUs, uploaded to a stock RPC server there and run from the desk. Outputs "
        "are those of a whole image, layers too unless their pixels are told. Floats are dequantized codes, and equal "
        "to the bit.\nThe bundle's size is that with one program; memory is what the process takes after a run "
        "beyond the interpreter: numpy, TVM's runtime, code, weights and activations.\n\n"
    )
    with atomic_write(path.with_suffix(".md")) as file:
        file.write(f"{about}{to_markdown(rows)}\n".encode())


if __name__ == "__main__":
    with told_and_exited():
        sys.exit(main())
