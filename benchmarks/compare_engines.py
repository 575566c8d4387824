"""`make bench`: latency, batch 1, of compiled networks beside PyTorch's engines, measured in one run.

The programs take turns, a block of calls each, so that what disturbs the machine disturbs all. Medians are told.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

import qtorch_relay as qr
from accuracy_reports.zoo import IMAGE_SIZES, quantized_model, random_images
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.target import host_cpu

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
OURS = "qtorch_relay"
TURNS = 5
WARM_UP_CALLS = 3
# Worker threads spin for a tenth of a second after their work is done; they must not spin into the next one's block.
REST_S = 0.3


def programs(model: str) -> dict[str, Callable[[], Any]]:
    """Returns a call for each PyTorch engine, and one for ours with the first engine's codes."""
    calls: dict[str, Callable[[], Any]] = {}
    for engine in ENGINES:
        network = quantized_model(model, engine)
        image = random_images(1, network.input_shape[-1], seed=1)
        with quantized_engine(engine), torch.inference_mode():
            traced = torch.jit.freeze(torch.jit.trace(network.module, image).eval())
        calls[engine] = lambda traced=traced, image=image: traced(image)
        if OURS not in calls:
            compiled = qr.compile(traced, [("x", network.input_shape)], engine=engine)
            array = image.numpy()
            calls[OURS] = lambda compiled=compiled, array=array: compiled(array)
    return calls


def measure(calls: dict[str, Callable[[], Any]], num_threads: int, rounds: int) -> dict[str, float]:
    """Returns the median latency of each call in milliseconds."""
    torch.set_num_threads(num_threads)
    qr.set_num_threads(num_threads)
    latencies_ms: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for name, call in [*calls.items()] * TURNS:
            time.sleep(REST_S)
            for i in range(-WARM_UP_CALLS, -(-rounds // TURNS)):
                start = time.perf_counter()
                call()
                if i >= 0:
                    latencies_ms[name].append((time.perf_counter() - start) * 1e3)
    return {name: median(values) for name, values in latencies_ms.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_engines", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(IMAGE_SIZES), default=("resnet18", "resnet50"))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    print(f"{host_cpu().model}, {platform.system()}, {date.today()}; milliseconds, median of {options.rounds}\n")
    print(
        f"| model | threads | {' | '.join(f'PyTorch {engine}' for engine in ENGINES)} | {OURS} | to the best PyTorch |"
    )
    print("|---|---|" + "---|" * (len(ENGINES) + 2))
    with Progress(console=Console(stderr=True)) as bars:
        for model in bars.track(options.models, description="measuring"):
            calls = programs(model)
            for num_threads in options.threads:
                found = measure(calls, num_threads, options.rounds)
                best = min(found[engine] for engine in ENGINES)
                cells = [f"{found[name]:.2f}" for name in (*ENGINES, OURS)]
                print(f"| {model} | {num_threads} | {' | '.join(cells)} | {found[OURS] / best:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
