"""The commands of a board. They need what a bundle needs: argparse and plain text instead of typer and rich."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._version import __version__
from qtorch_relay.errors import USER_ERROR_STATUS, BundleError, QTorchRelayError
from qtorch_relay.runtime.arrays import are_unnamed, check_array_path, read_arrays, write_arrays
from qtorch_relay.runtime.bundle import load, read_manifest
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.golden import golden_inputs
from qtorch_relay.runtime.layer_times import layer_times
from qtorch_relay.runtime.threads import get_num_threads, set_num_threads
from qtorch_relay.target import host_cpu, why_not_runnable

DIFFERS_STATUS = 1
_WARM_UP_CALLS, _WARM_UP_S = 3, 0.5  # slow programs have fewer, at least one
_COMMANDS = ("test", "run", "bench")
_PROGRAM = "python -m qtorch_relay.runtime"


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns the exit status: 1 if the self-test fails, 2 for an error the user can cause, or 0."""
    words = list(arguments)
    if words and words[0] not in (*_COMMANDS, "-h", "--help", "--version"):
        words.insert(0, "test")
    options = _parser().parse_args(words or ["--help"])
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except QTorchRelayError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_STATUS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        _PROGRAM,
        description="Test, run and time a bundle (.qtr). Needs numpy and TVM's runtime, no torch, no compiler.",
        epilog=f"Without a command: test. Start with: {_PROGRAM} model.qtr",
    )
    parser.add_argument("--version", action="version", version=f"qtorch_relay {__version__}")
    commands = parser.add_subparsers(metavar="{test,run,bench}", required=True)
    test = _command(commands, "test", _test, "compare the golden input's output with the golden one, tell what runs")
    run = _command(commands, "run", _run, "run arrays from a .npy or .npz file")
    run.add_argument("--data", type=Path, metavar="FILE", required=True, help="the inputs: .npy for one, .npz by name")
    run.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the outputs here (.npy or .npz)")
    bench = _command(commands, "bench", _bench, "time the program on its golden input")
    bench.add_argument("--rounds", type=_count, default=50, metavar="N", help="calls that are measured (default: 50)")
    bench.add_argument("--layers", action="store_true", help="time each layer, in the order in which they run")
    for command in (test, run, bench):
        command.add_argument("bundle", type=Path, metavar="MODEL.qtr")
        command.add_argument("--target", metavar="NAME", help="take this of the bundle's programs, not the most able")
        command.add_argument(
            "--threads", type=int, metavar="N", help="threads to run on (default: one for each physical core)"
        )
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int], help_text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
    )
    parser.set_defaults(command=function)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer above 0")
    return int(text)


def _load(options: argparse.Namespace) -> CompiledModel:
    if options.threads is not None:
        set_num_threads(options.threads)
    return load(options.bundle, options.target)


def _test(options: argparse.Namespace) -> int:
    cpu = host_cpu()
    about: dict[str, Any] = {"bundle": str(options.bundle), "cpu": cpu.model, "cpu_flags": sorted(cpu.flags)}
    targets = [variant.interface.target for variant in read_manifest(options.bundle).variants]
    about["programs"] = {target.name: why_not_runnable(target) for target in targets}
    model = _load(options)
    about |= {"target": model.target.name, "engine": model.engine, "threads": get_num_threads(), "report": model.report}
    about |= {"inputs": list(map(str, model.inputs)), "outputs": list(map(str, model.outputs))}
    try:
        start = time.perf_counter()
        passed = model.self_test()
        about |= {"passed": True, "self_test": str(passed), "seconds": time.perf_counter() - start}
        about["peak_memory_bytes"] = peak_memory_bytes()
    except BundleError as error:
        about |= {"passed": False, "self_test": str(error)}
    print(json.dumps(about, indent=1) if options.json else _told(about, model))
    return 0 if about["passed"] else DIFFERS_STATUS


def _told(about: dict[str, Any], model: CompiledModel) -> str:
    taken = [name if lacks is None else f"{name} (needs {lacks})" for name, lacks in about["programs"].items()]
    kernels = ", ".join(f"{count} x {name}" for name, count in model.report.get("kernels", {}).items())
    messages = model.report.get("messages", ())
    lines = [
        ("bundle", about["bundle"]),
        ("CPU", f"{about['cpu']}, {about['threads']} thread(s)"),
        ("programs", ", ".join(taken)),
        ("runs", f"{model.target.name} ({model.target.isa}), engine {model.engine}"),
        ("inputs", "; ".join(about["inputs"])),
        ("outputs", "; ".join(about["outputs"])),
        ("kernels", kernels or "none, generic code"),
        *(("", str(message)) for message in messages),
        ("self-test", f"{'passed' if about['passed'] else 'FAILED'}: {about['self_test']}"),
    ]
    return "\n".join(f"{name:10} {text}" for name, text in lines)


def _run(options: argparse.Namespace) -> int:
    arrays = read_arrays(options.data)
    if options.output is not None:
        check_array_path(options.output)
    model = _load(options)
    if options.output is not None:
        check_array_path(options.output, len(model.outputs))
    start = time.perf_counter()
    outputs = model.run_flat(list(arrays.values()) if are_unnamed(arrays) else arrays)
    latency_ms = (time.perf_counter() - start) * 1e3
    if options.output is not None:
        write_arrays(options.output, [(spec.name, array) for spec, array in zip(model.outputs, outputs, strict=True)])
    rows = [_summary(spec.name, array) for spec, array in zip(model.outputs, outputs, strict=True)]
    if options.json:
        told = {"latency_ms": latency_ms, "target": model.target.name, "outputs": rows}
        print(json.dumps(told | {"peak_memory_bytes": peak_memory_bytes()}, indent=1))
        return 0
    for row in rows:
        print("{name}: {dtype} {shape}, {least} to {greatest}".format(**row))
    print(f"{latency_ms:.3f} ms, the first call, on {model.target.name}")
    return 0


def _summary(name: str, array: npt.NDArray[Any]) -> dict[str, Any]:
    limits = (array.min().item(), array.max().item()) if array.size else (None, None)
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "least": limits[0],
        "greatest": limits[1],
    }


def _bench(options: argparse.Namespace) -> int:
    model = _load(options)
    inputs = golden_inputs(model.interface)
    about: dict[str, Any] = {"bundle": str(options.bundle), "target": model.target.name, "threads": get_num_threads()}
    about["rounds"] = options.rounds
    if options.layers:
        times = layer_times(model, inputs, options.rounds)
        about |= {"latency_us": times.latency_us, "layers": [vars(layer) for layer in times.layers]}
        lines = [f"{row.latency_us:12.1f} us  {row.kernel or 'generic code'}  {row.layer}" for row in times.layers]
        lines.append(f"{times.sum_us:12.1f} us  all layers, one by one; a call: {times.latency_us:.1f} us")
    else:
        found = np.percentile(_latencies_ms(model, inputs, options.rounds), [50, 0, 90])
        about |= dict(zip(("latency_ms", "least_ms", "p90_ms"), found.tolist(), strict=True))
        told = "median {latency_ms:.3f} ms, least {least_ms:.3f} ms, nine of ten within {p90_ms:.3f} ms"
        lines = [told.format(**about)]
        lines.append("{rounds} calls on {threads} thread(s), {target}".format(**about))
    print(json.dumps(about, indent=1) if options.json else "\n".join(lines))
    return 0


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process had so far; None where there is no Linux to tell.

    Not by getrusage: a process begins with the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return None if found is None else int(found[1]) * 1024


def _latencies_ms(model: CompiledModel, inputs: Sequence[npt.NDArray[Any]], rounds: int) -> list[float]:
    begin = time.perf_counter()
    for _ in range(_WARM_UP_CALLS):
        model.run_flat(inputs)
        if time.perf_counter() - begin > _WARM_UP_S:
            break
    latencies_ms = []
    for _ in range(rounds):
        start = time.perf_counter()
        model.run_flat(inputs)
        latencies_ms.append((time.perf_counter() - start) * 1e3)
    return latencies_ms
