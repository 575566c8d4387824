"""Several Python threads that call one CompiledModel at once, each on one thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import qtorch_relay as qr
from benchmarks.network import quantized_network, random_input
from benchmarks.results import ENGINES, Concurrency

TURN_S = 1.0
TURNS = 5


def calls_per_s(call: Callable[[], Any], count: int) -> float:
    """Returns how many calls `count` threads make in a second, together."""
    done = [0] * count
    begin = threading.Barrier(count + 1)

    def work(index: int) -> None:
        call()
        begin.wait()
        end = time.perf_counter() + TURN_S
        while time.perf_counter() < end:
            call()
            done[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def measure(model: str, counts: Sequence[int], each: Callable[[], None]) -> Concurrency:
    """Returns the calls per second by the number of threads, medians over turns; calls each after every turn."""
    qr.set_num_threads(1)
    example = random_input(model, 1)
    network = quantized_network(model, ENGINES[0])
    compiled = qr.compile(network, [("x", tuple(example.shape))], engine=ENGINES[0])
    array = example.numpy()
    samples: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(TURNS):
        for count in counts:
            samples[count].append(calls_per_s(lambda: compiled(array), count))
            each()
    return Concurrency(model, {count: round(median(rates), 2) for count, rates in samples.items()})
