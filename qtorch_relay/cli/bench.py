"""`qtorch-relay bench`: a model's latency, beside the programs a user would run instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy.typing as npt
import typer

from qtorch_relay.cli.board_options import Key, Rpc, Timeout, Tracker
from qtorch_relay.cli.console import note, print_json, print_table, progress, working
from qtorch_relay.cli.open_model import HOST, open_model, open_on_board, set_board_threads
from qtorch_relay.cli.options import Engine, Inputs, Json, TargetName, parse_inputs, set_threads
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.runtime.layer_times import LayerTimes, layer_times
from qtorch_relay.runtime.model import Model
from qtorch_relay.runtime.random_inputs import random_inputs
from qtorch_relay.runtime.remote import choose_boards
from qtorch_relay.runtime.remote_model import RemoteModel
from qtorch_relay.runtime.remote_session import DEFAULT_TIMEOUT_S

OURS = "qtorch_relay"
_ROUND_TRIPS = 20
Calls = dict[str, Callable[[], Any]]


def bench(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A TorchScript file (.pt), or a bundle (.qtr), which has no peers."),
    ],
    inputs: Inputs = None,
    engine: Engine = None,
    target: TargetName = HOST,
    threads: Annotated[int, typer.Option(metavar="N", help="Threads for every program.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Calls of each program.")] = 50,
    peers: Annotated[
        bool, typer.Option(help="Time PyTorch, ONNX Runtime and OpenVINO beside it; those that take the model.")
    ] = True,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time each layer of the program instead, and no peers.")
    ] = False,
    rpc: Rpc = None,
    tracker: Tracker = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Time a model beside PyTorch, ONNX Runtime and OpenVINO in one run, on seeded random inputs.

    The programs take turns of several calls each; medians are told. --layers tells each layer's kernel, time,
    multiply-accumulates and share of what the processor's dot products reach, in the order in which they run.
    On a board the model is timed alone, by the board's own clock, and once more with the network.

    Example: qtorch-relay bench resnet18.pt --input x:1,3,224,224 --threads 2
    Example: qtorch-relay bench resnet18.qtr --rpc 192.168.1.20:9090
    """
    from qtorch_relay.peers.timing import TURNS, interleave

    boards = choose_boards(rpc, tracker, key, timeout)
    infos = parse_inputs(model, inputs) if inputs else None
    if boards is not None:
        if layers:
            raise InvalidInputError("--layers measures on this machine only; run it on the board itself")
        remote = open_on_board(model, infos, engine, target, boards)
        _bench_on_board(model, remote, set_board_threads(remote.session, threads), rounds, as_json)
        return
    set_threads(threads)
    compiled = open_model(model, infos, engine, target)
    arrays = _inputs_for(compiled)
    if layers:
        from qtorch_relay.kernels.measure import host_peak_gmacs

        _print_layers(model, layer_times(compiled, arrays, rounds, host_peak_gmacs(threads)), threads, as_json)
        return
    calls: Calls = {OURS: lambda: compiled.run_flat(arrays)}
    missing: dict[str, str] = {}
    if peers and model.suffix != ".qtr":
        _add_peers(model, str(compiled.engine), arrays, threads, calls, missing)
    with progress() as bars:
        task = bars.add_task("measuring", total=len(calls) * TURNS, detail="")
        latencies_ms = interleave(calls, rounds, lambda: bars.advance(task))
    medians = {name: median(values) for name, values in latencies_ms.items()}
    if as_json:
        told = {"target": compiled.target.name, "threads": threads, "rounds": rounds}
        print_json({**told, "latency_ms": medians, "missing": missing})
        return
    rows = [(name, f"{ms:.3f}", f"{ms / medians[OURS]:.2f}") for name, ms in medians.items()]
    title = f"{model.name} for {compiled.target.name}, {threads} thread(s), median of {rounds} calls"
    print_table(title, ("program", "ms>", "times ours>"), rows)
    for name, reason in missing.items():
        note(f"{name}: {reason}")


def _inputs_for(model: Model) -> list[npt.NDArray[Any]]:
    specs = model.interface.tensors_at(1)[: len(model.inputs)]
    return random_inputs((spec.fixed_shape, spec.dtype) for spec in specs)


def _bench_on_board(model: Path, remote: RemoteModel, threads: int, rounds: int, as_json: bool) -> None:
    """Prints what a call takes on the board alone, and with its inputs and outputs on the network."""
    arrays = _inputs_for(remote)
    round_trips_ms = []
    with working("measuring", "on the board") as tell:
        latencies_ms = remote.time_calls(arrays, rounds, tell)
        for _ in range(min(rounds, _ROUND_TRIPS)):
            start = time.perf_counter()
            remote.run_flat(arrays)
            round_trips_ms.append((time.perf_counter() - start) * 1e3)
    board, latency_ms, round_trip_ms = remote.session.name, median(latencies_ms), median(round_trips_ms)
    if as_json:
        told = {"board": board, "cpu": remote.cpu.model, "target": remote.target.name, "threads": threads}
        print_json({**told, "rounds": rounds, "latency_ms": {OURS: latency_ms}, "round_trip_ms": round_trip_ms})
        return
    print_table(
        f"{model.name} for {remote.target.name} on {board} ({remote.cpu.model}), {threads} thread(s)",
        ("measured", "median ms>", "least ms>", "calls>"),
        [
            ("on the board, by its clock", f"{latency_ms:.3f}", f"{min(latencies_ms):.3f}", rounds),
            ("with the network", f"{round_trip_ms:.3f}", f"{min(round_trips_ms):.3f}", len(round_trips_ms)),
        ],
    )


def _print_layers(model: Path, times: LayerTimes, threads: int, as_json: bool) -> None:
    """Prints what each layer takes, and all of them."""
    if as_json:
        print_json({"threads": threads, **asdict(times)})
        return
    columns = ("layer", "kernel", "us>", "of the time>", "M MACs>", "of the peak>")
    rows = [
        (
            layer.layer,
            layer.kernel or "generic code",
            f"{layer.latency_us:.1f}",
            f"{layer.latency_us / times.latency_us:.1%}",
            f"{layer.macs / 1e6:.2f}" if layer.macs else "",
            "" if layer.share_of_peak is None else f"{layer.share_of_peak:.0%}",
        )
        for layer in times.layers
    ]
    print_table(f"{model.name}, {threads} thread(s)", columns, rows)
    peak = (
        "" if times.peak_gmacs is None else f", {times.share_of_peak:.0%} of the peak of {times.peak_gmacs:.0f} GMAC/s"
    )
    print(f"a call: {times.latency_us / 1e3:.3f} ms{peak}; its layers, one by one: {times.sum_us / 1e3:.3f} ms")


def _add_peers(
    model: Path,
    engine: str,
    arrays: Sequence[npt.NDArray[Any]],
    num_threads: int,
    calls: Calls,
    missing: dict[str, str],
) -> None:
    """Adds PyTorch with the model's engine, and ONNX Runtime and OpenVINO where they take the model."""
    from qtorch_relay.peers import STARTS, PeerUnavailableError, export_for_peers, onnx_programs, torch_program

    module, tensors, run = torch_program(model, engine, arrays, num_threads)
    calls[f"PyTorch {engine}"] = run
    try:
        exported = export_for_peers(module, tensors)
    except PeerUnavailableError as error:
        missing.update({name: str(error) for name in STARTS})
        return
    found, refused = onnx_programs(exported, arrays, num_threads)
    calls.update(found)
    missing.update(refused)
