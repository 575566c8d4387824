"""`qtorch-relay run`: a model on arrays from a file."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy.typing as npt
import typer

from qtorch_relay.cli.board_options import Key, Rpc, Timeout, Tracker
from qtorch_relay.cli.console import print_json, print_table, working
from qtorch_relay.cli.open_model import HOST, open_model, open_on_board, set_board_threads
from qtorch_relay.cli.options import (
    Engine,
    Inputs,
    Json,
    TargetName,
    Threads,
    parse_inputs,
    set_threads,
)
from qtorch_relay.runtime import CompiledModel, TensorSpec
from qtorch_relay.runtime.arrays import are_unnamed, check_array_path, input_infos_of, read_arrays, write_arrays
from qtorch_relay.runtime.remote import choose_boards
from qtorch_relay.runtime.remote_model import RemoteModel
from qtorch_relay.runtime.remote_session import DEFAULT_TIMEOUT_S


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
    rpc: Rpc = None,
    tracker: Tracker = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Run a model on arrays from a .npy or .npz file, here or on a board over the network.

    Quantized outputs are written as codes. On a board two latencies are told: the board's own, and with the network.
    Example: qtorch-relay run resnet18.qtr --data images.npy -o logits.npy
    Example: qtorch-relay run resnet18.qtr --data images.npy --rpc 192.168.1.20:9090
    """
    boards = choose_boards(rpc, tracker, key, timeout)
    if boards is None:
        set_threads(threads)
    arrays = read_arrays(data)
    if output is not None:
        check_array_path(output)
    described = None if model.suffix == ".qtr" else input_infos_of(arrays)
    infos = parse_inputs(model, inputs) if inputs else described
    compiled: CompiledModel | RemoteModel
    if boards is None:
        compiled = open_model(model, infos, engine, target)
    else:
        compiled = open_on_board(model, infos, engine, target, boards)
        set_board_threads(compiled.session, threads)
    if output is not None:
        check_array_path(output, len(compiled.outputs))
    values = list(arrays.values()) if are_unnamed(arrays) else arrays
    latencies_ms = []
    with working("running"):
        for _ in range(repeat):
            start = time.perf_counter()
            outputs = compiled.run_flat(values)
            latencies_ms.append((time.perf_counter() - start) * 1e3)
    round_trip_ms = median(latencies_ms)
    on_board: dict[str, Any] = {}
    if isinstance(compiled, RemoteModel):
        with working("measuring on the board"):
            latencies_ms = compiled.time_calls(values, repeat)
        on_board = {"board": compiled.session.name, "round_trip_ms": round_trip_ms}
    if output is not None:
        write_arrays(output, [(spec.name, array) for spec, array in zip(compiled.outputs, outputs, strict=True)])
    rows = [_summary(spec, array) for spec, array in zip(compiled.outputs, outputs, strict=True)]
    if as_json:
        print_json({"latency_ms": median(latencies_ms), **on_board, "outputs": rows})
        return
    network = f" on {on_board['board']}, {round_trip_ms:.3f} ms with the network" if on_board else ""
    print_table(
        f"{model.name}: median of {repeat} runs {median(latencies_ms):.3f} ms{network}",
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
