"""`qtorch-relay bench`: a model's latency, beside the programs a user would run instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy.typing as npt
import typer

from qtorch_relay.cli.console import note, print_json, print_table, progress
from qtorch_relay.cli.layer_times import LayerTimes, layer_times
from qtorch_relay.cli.open_model import HOST, open_model
from qtorch_relay.cli.options import Engine, Inputs, Json, TargetName, parse_inputs, set_threads
from qtorch_relay.runtime.random_inputs import random_inputs

OURS = "qtorch_relay"
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
    as_json: Json = False,
) -> None:
    """Time a model beside PyTorch, ONNX Runtime and OpenVINO in one run, on seeded random inputs.

    The programs take turns of several calls each; medians are told. --layers tells each layer's kernel, time,
    multiply-accumulates and share of what the processor's dot products reach, in the order in which they run.

    Example: qtorch-relay bench resnet18.pt --input x:1,3,224,224 --threads 2
    """
    from qtorch_relay.peers.timing import TURNS, interleave

    set_threads(threads)
    infos = parse_inputs(model, inputs) if inputs else None
    compiled = open_model(model, infos, engine, target)
    specs = compiled.interface.tensors_at(1)[: len(compiled.inputs)]
    arrays = random_inputs((spec.fixed_shape, spec.dtype) for spec in specs)
    if layers:
        _print_layers(model, layer_times(compiled, arrays, rounds), threads, as_json)
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
        print_json({"threads": threads, "rounds": rounds, "latency_ms": medians, "missing": missing})
        return
    rows = [(name, f"{ms:.3f}", f"{ms / medians[OURS]:.2f}") for name, ms in medians.items()]
    print_table(f"{model.name}, {threads} thread(s), median of {rounds} calls", ("program", "ms>", "times ours>"), rows)
    for name, reason in missing.items():
        note(f"{name}: {reason}")


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
