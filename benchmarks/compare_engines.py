"""`make bench`: latency of compiled networks beside PyTorch, ONNX Runtime and OpenVINO, measured in one run.

The programs take turns, several calls each, so that what disturbs the machine disturbs all; medians are told. The
dot-product peak is measured between them, in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch.utils.flop_counter import FlopCounterMode

import qtorch_relay as qr
from accuracy_reports.zoo import IMAGE_SIZES, float_model, quantized_model, random_images
from benchmarks.kernels import peak_timer
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.peers import STARTS, PeerUnavailableError, export_onnx, interleave, onnx_programs
from qtorch_relay.peers.timing import TURNS
from qtorch_relay.target import host_cpu

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
OURS, PEAK = "qtorch_relay", "peak"
FLOAT = " float"


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds by program; missing says why a program is not among them.

    macs: multiply-accumulates of a call; peak_gmacs: those the dot-product instruction reaches in a second on all
    threads.
    """

    model: str
    batch: int
    num_threads: int
    latency_ms: dict[str, float]
    missing: dict[str, str]
    macs: int
    peak_gmacs: float

    @property
    def best_peer(self) -> str:
        """The fastest int8 program but ours."""
        peers = {name: ms for name, ms in self.latency_ms.items() if name != OURS and not name.endswith(FLOAT)}
        return min(peers, key=peers.__getitem__)

    @property
    def times_as_fast(self) -> float:
        """How many times as fast as the best peer ours is."""
        return self.latency_ms[self.best_peer] / self.latency_ms[OURS]

    @property
    def share_of_peak(self) -> float:
        """The share of the dot-product peak that ours reaches over the whole network."""
        return self.macs / self.latency_ms[OURS] / 1e6 / self.peak_gmacs


class Network:
    """A network in all the forms that are timed, for one batch size."""

    def __init__(self, model: str, batch: int, *, with_float: bool) -> None:
        self.model, self.batch = model, batch
        self.missing: dict[str, str] = {}
        self.calls: dict[str, Callable[[], Any]] = {}
        self.onnx: dict[str, bytes] = {}
        original = float_model(model, ENGINES[0]).module
        self.images = random_images(batch, IMAGE_SIZES[model], seed=1)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            original(self.images)
        self.macs = counter.get_total_flops() // 2
        for engine in ENGINES:
            network = quantized_model(model, engine)
            with quantized_engine(engine), torch.inference_mode():
                traced = torch.jit.freeze(torch.jit.trace(network.module, self.images).eval())
            self._add_torch(f"PyTorch {engine}", traced)
            if OURS not in self.calls:
                compiled = qr.compile(traced, [("x", tuple(self.images.shape))], engine=engine)
                array = self.images.numpy()
                self.calls[OURS] = lambda compiled=compiled, array=array: compiled(array)
                self._export("", network.module)
        if with_float:
            with torch.inference_mode():
                self._add_torch(f"PyTorch{FLOAT}", torch.jit.freeze(torch.jit.trace(original, self.images)))
            self._export(FLOAT, original)

    def _add_torch(self, name: str, module: Any) -> None:
        self.calls[name] = lambda: module(self.images)

    def _export(self, suffix: str, module: torch.nn.Module) -> None:
        try:
            self.onnx[suffix] = export_onnx(module, [self.images])
        except PeerUnavailableError as error:
            self.missing |= {f"{peer}{suffix}": str(error) for peer in STARTS}

    def measure(self, num_threads: int, rounds: int, each: Callable[[], None]) -> Row:
        """Returns the medians on a number of threads."""
        torch.set_num_threads(num_threads)
        qr.set_num_threads(num_threads)
        calls, missing = dict(self.calls), dict(self.missing)
        arrays = [self.images.numpy()]
        for suffix, model in self.onnx.items():
            found, refused = onnx_programs(model, arrays, num_threads)
            calls |= {f"{peer}{suffix}": call for peer, call in found.items()}
            missing |= {f"{peer}{suffix}": why for peer, why in refused.items()}
        peaks: list[float] = []
        peak = peak_timer()

        def after_turn() -> None:
            peaks.append(1e-9 / peak())
            each()

        with torch.inference_mode():
            samples = interleave(calls, rounds, after_turn)
        latency_ms = {name: median(values) for name, values in samples.items()}
        return Row(self.model, self.batch, num_threads, latency_ms, missing, self.macs, median(peaks) * num_threads)


def print_table(rows: Sequence[Row]) -> None:
    """Prints the rows in Markdown, with the geometric means."""
    names = list(dict.fromkeys(name for row in rows for name in (*row.latency_ms, *row.missing) if name != OURS))
    print(f"| model | batch | threads | {' | '.join(names)} | {OURS} | times the best | of the peak |")
    print("|---|---|---|" + "---|" * (len(names) + 3))
    for row in rows:
        cells = [f"{row.latency_ms[name]:.2f}" if name in row.latency_ms else "-" for name in (*names, OURS)]
        print(
            f"| {row.model} | {row.batch} | {row.num_threads} | {' | '.join(cells)} | {row.times_as_fast:.2f} "
            f"({row.best_peer}) | {row.share_of_peak:.0%} |"
        )
    print(f"\ngeometric mean: {geometric_mean([row.times_as_fast for row in rows]):.2f} times the best peer")
    for reason in dict.fromkeys(f"{row.model}, {name}: {why}" for row in rows for name, why in row.missing.items()):
        print(f"- {reason}")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Writes a picture: how many times as fast as the best peer ours is, by model."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(rows)), layout="constrained")
    labels = [f"{row.model}, batch {row.batch}, {row.num_threads} thr." for row in rows]
    bars = axes.barh(labels, [row.times_as_fast for row in rows], color="#2f6f9f")
    axes.bar_label(bars, [f"{row.times_as_fast:.2f} x {row.best_peer}" for row in rows], padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as the best peer")
    axes.invert_yaxis()
    axes.margins(x=0.25)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table in Markdown; writes JSON and a plot if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_engines", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(IMAGE_SIZES), default=tuple(IMAGE_SIZES))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batch", nargs="+", type=int, default=(1,))
    parser.add_argument("--rounds", type=int, default=30, help="calls of each program")
    parser.add_argument("--float", action="store_true", help="time the float networks too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture here (.png or .svg)")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    print(f"{host_cpu().model}, {platform.system()}, {date.today()}; milliseconds, median of {options.rounds}\n")
    rows: list[Row] = []
    with Progress(console=Console(stderr=True)) as bars:
        steps = len(options.models) * len(options.batch) * (1 + len(options.threads) * TURNS)
        task = bars.add_task("", total=steps)
        for model in options.models:
            for batch in options.batch:
                bars.update(task, description=f"{model}, batch {batch}")
                network = Network(model, batch, with_float=options.float)
                bars.advance(task)
                programs = len(network.calls) + len(network.onnx) * len(STARTS)
                for num_threads in options.threads:
                    rows.append(
                        network.measure(num_threads, options.rounds, lambda n=programs: bars.advance(task, 1 / n))
                    )
    print_table(rows)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.plot is not None:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
