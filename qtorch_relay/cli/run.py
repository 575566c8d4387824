"""`qtorch-relay run`: a model on arrays from a file."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy.typing as npt
import typer

from qtorch_relay.cli.arrays import are_unnamed, check_array_path, input_infos_of, read_arrays, write_arrays
from qtorch_relay.cli.console import print_json, print_table, working
from qtorch_relay.cli.open_model import HOST, open_model
from qtorch_relay.cli.options import (
    Engine,
    Inputs,
    Json,
    TargetName,
    Threads,
    parse_inputs,
    set_threads,
)
from qtorch_relay.runtime import TensorSpec


def run(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A bundle (.qtr), or a TorchScript file (.pt) to compile first."),
    ],
    data: Annotated[Path, typer.Option(metavar="FILE", help="The inputs: .npy for one, .npz for several by name.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the outputs here (.npy or .npz).")
    ] = None,
    inputs: Inputs = None,
    engine: Engine = None,
    target: TargetName = HOST,
    threads: Threads = None,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Run N times and tell the median latency.")] = 1,
    as_json: Json = False,
) -> None:
    """Run a model on arrays from a .npy or .npz file.

    Quantized outputs are written as codes.
    Example: qtorch-relay run resnet18.qtr --data images.npy -o logits.npy
    """
    set_threads(threads)
    arrays = read_arrays(data)
    if output is not None:
        check_array_path(output)
    described = None if model.suffix == ".qtr" else input_infos_of(arrays)
    compiled = open_model(model, parse_inputs(model, inputs) if inputs else described, engine, target)
    if output is not None:
        check_array_path(output, len(compiled.outputs))
    values = list(arrays.values()) if are_unnamed(arrays) else arrays
    latencies_ms = []
    with working("running"):
        for _ in range(repeat):
            start = time.perf_counter()
            outputs = compiled.run_flat(values)
            latencies_ms.append((time.perf_counter() - start) * 1e3)
    if output is not None:
        write_arrays(output, [(spec.name, array) for spec, array in zip(compiled.outputs, outputs, strict=True)])
    rows = [_summary(spec, array) for spec, array in zip(compiled.outputs, outputs, strict=True)]
    if as_json:
        print_json({"latency_ms": median(latencies_ms), "outputs": rows})
        return
    print_table(
        f"{model.name}: median of {repeat} runs {median(latencies_ms):.3f} ms",
        ("output", "dtype", "shape", "least>", "greatest>"),
        [tuple(row.values()) for row in rows],
    )


def _summary(spec: TensorSpec, array: npt.NDArray[Any]) -> dict[str, Any]:
    limits = (array.min().item(), array.max().item()) if array.size else (None, None)
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "least": limits[0],
        "greatest": limits[1],
    }
