"""`make bench`: our programs beside PyTorch, ONNX Runtime and OpenVINO, and every bar, met or not.

Latencies: all programs of a network take turns in one process, several calls each, so that what disturbs the machine
disturbs all; medians are told. One of them is the peak: as many dot products as the network has, and nothing else.
Start and memory: a fresh process for each program, in turns. Layers: every call of each program against the peak.
Writes JSON, a picture, the layers, docs/speed.md and the README's section; what one run does not measure, --keep keeps
in the JSON.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from benchmarks import concurrency, layers, report, start_up
from benchmarks.network import MODELS, Network
from benchmarks.results import ENGINES, Results, read, write
from qtorch_relay.peers.timing import TURNS
from qtorch_relay.target import host_cpu, resolve

PARTS = ("latency", "start", "concurrency", "layers")
PACKAGES = ("torch", "onnxruntime", "openvino", "apache-tvm")
COST_MODEL = "resnet50"
CONCURRENT_MODELS = ("resnet18", "mobilenet_v2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes and prints."""
    options = _options(sys.argv[1:] if arguments is None else arguments)
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    json_path = options.output.with_suffix(".json")
    results = _nothing(options)
    if options.keep and json_path.exists():
        old = read(json_path)
        commands = dict.fromkeys([*old.command.split("; "), results.command])
        results = replace(old, date=results.date, command="; ".join(commands), versions=results.versions)
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        if "latency" in options.parts:
            results = _latencies(results, options, bars, json_path)
        if "start" in options.parts:
            task = bars.add_task(f"start of {COST_MODEL}", total=start_up.steps())
            compiled, starts = start_up.measure(COST_MODEL, lambda: bars.advance(task))
            results = replace(results, compile=compiled, starts=starts)
        if "concurrency" in options.parts:
            counts = tuple(range(1, (os.cpu_count() or 1) + 1))
            task = bars.add_task("Python threads", total=len(CONCURRENT_MODELS) * concurrency.TURNS * len(counts))
            found = [concurrency.measure(model, counts, lambda: bars.advance(task)) for model in CONCURRENT_MODELS]
            results = replace(results, concurrency=tuple(found))
        if "layers" in options.parts:
            task = bars.add_task("layers", total=len(options.models))
            found_layers = layers.measure(options.models, lambda: bars.advance(task))
            text = layers.markdown(results, found_layers)
            options.output.with_name(f"{options.output.name}-layers.md").write_text(text)
    write(results, json_path)
    report.plot(results, options.output.with_suffix(".svg"))
    print(report.page(results))
    if options.readme:
        report.publish(results)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batch", nargs="+", type=int, default=(1, 8))
    parser.add_argument("--rounds", type=int, default=30, help="calls of each program")
    parser.add_argument(
        "--float", action=argparse.BooleanOptionalAction, default=True, help="time the float networks too"
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=ENGINES,
        help="PyTorch's engines; ours takes the first, and qnnpack, never the fastest on x86, takes most of the time",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--keep", action="store_true", help="keep what the JSON has and this run does not measure")
    parser.add_argument(
        "--readme",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write docs/speed.md and the README's section",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        default=report.RESULTS / resolve("host").name,
        help="where to write, without suffix; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    options.command = " ".join(["python -m benchmarks", *arguments])
    return options


def _nothing(options: argparse.Namespace) -> Results:
    """Returns results of here and now in which nothing is measured."""
    return Results(
        cpu=host_cpu().model,
        cpus=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release().split('-')[0]}",
        target=resolve("host").name,
        date=str(date.today()),
        command=options.command,
        rounds=options.rounds,
        versions={name: version(name) for name in PACKAGES},
        cost_model=COST_MODEL,
    )


def _latencies(results: Results, options: argparse.Namespace, bars: Progress, path: Path) -> Results:
    """Returns the results with a row for each network, batch and number of threads; written as they come."""
    steps = len(options.models) * len(options.batch) * (1 + len(options.threads) * TURNS)
    task = bars.add_task("", total=steps)
    for batch in options.batch:
        for model in options.models:
            bars.update(task, description=f"{model}, batch {batch}")
            network = Network(model, batch, with_float=options.float, engines=options.engines)
            bars.advance(task)
            for num_threads in options.threads:
                part = 1 / network.programs
                row = network.measure(num_threads, options.rounds, lambda part=part: bars.advance(task, part))
                results = results.with_row(row)
                write(results, path)
    return results


if __name__ == "__main__":
    sys.exit(main())
