"""How long each call of a program takes: the compiled functions themselves, one after the other, on real data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from qtorch_relay.runtime import ffi

WARM_UP_RUNS = 3
_BUILTIN = "vm.builtin."


@dataclass(frozen=True)
class CallTime:
    """One call of a program: the function, the shapes of the tensors it takes and gives, and how long it takes."""

    function: str
    shapes: tuple[tuple[int, ...], ...]
    latency_us: float


class _Recorder:
    """Keeps when each call of a run begins and ends; the virtual machine calls it before and after."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[tuple[int, ...], ...]]] = []
        self.times_us: list[float] = []
        self._start = 0.0

    def __call__(self, _function: Any, name: str, before_run: bool, _result: Any, *arguments: Any) -> None:
        now = time.perf_counter()
        if str(name).startswith(_BUILTIN):
            return
        if before_run:
            shapes = tuple(tuple(map(int, value.shape)) for value in arguments if hasattr(value, "shape"))
            self.calls.append((str(name), shapes))
            self._start = time.perf_counter()
        else:
            self.times_us.append((now - self._start) * 1e6)


def call_times(module: Any, inputs: Sequence[Any], weights: Sequence[Any], runs: int) -> list[CallTime]:
    """Returns the calls of a program in order, without those of the virtual machine's own functions; medians over runs.

    Each is measured with a microsecond or two of the machine's and Python's own.
    """
    recorder = _Recorder()
    entry = ffi.make_entry(module, weights, recorder)
    samples: list[list[float]] = []
    for run in range(-WARM_UP_RUNS, runs):
        recorder.calls, recorder.times_us = [], []
        entry(*inputs)
        if run >= 0:
            samples.append(recorder.times_us)
    medians = map(median, zip(*samples, strict=True))
    return [CallTime(name, shapes, time_us) for (name, shapes), time_us in zip(recorder.calls, medians, strict=True)]
