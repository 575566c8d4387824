"""What each layer of a compiled model takes, beside the processor's peak."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy.typing as npt

from qtorch_relay.runtime.compiled_model import CompiledModel


@dataclass(frozen=True)
class LayerTime:
    """A call of one function. kernel: None is generic code; share_of_peak: None if it has no dot products, or no peak
    is known.
    """

    layer: str
    kernel: str | None
    latency_us: float
    macs: int
    share_of_peak: float | None


@dataclass(frozen=True)
class LayerTimes:
    """All calls in order, and what a call of the whole program takes.

    peak_gmacs: multiply-accumulates a second that the dot-product instruction reaches on these threads, None where the
    host has no AVX512-VNNI.
    """

    layers: tuple[LayerTime, ...]
    latency_us: float
    peak_gmacs: float | None

    @property
    def sum_us(self) -> float:
        """The sum of all calls, each with a microsecond or two of measuring."""
        return sum(layer.latency_us for layer in self.layers)

    @property
    def share_of_peak(self) -> float | None:
        """The share of the peak that the whole program reaches."""
        macs = sum(layer.macs for layer in self.layers)
        return None if self.peak_gmacs is None else macs / self.latency_us / 1e3 / self.peak_gmacs


def layer_times(
    compiled: CompiledModel, arrays: Sequence[npt.NDArray[Any]], runs: int, peak_gmacs: float | None = None
) -> LayerTimes:
    """Returns medians over runs, beside a peak if one is given."""
    functions = compiled.report.get("functions", {})
    calls = compiled.call_times(arrays, runs)
    latencies_us = []
    for _ in range(runs):
        start = time.perf_counter()
        compiled.run_flat(arrays)
        latencies_us.append((time.perf_counter() - start) * 1e6)
    layers = []
    for call in calls:
        told = functions.get(call.function)
        macs = 0 if told is None else told["macs"]
        share = macs / call.latency_us / 1e3 / peak_gmacs if macs and peak_gmacs is not None else None
        shapes = " ".join("x".join(map(str, shape)) or "1" for shape in call.shapes)
        name = f"{call.function}: {shapes}" if told is None else told["layer"]
        layers.append(LayerTime(name, None if told is None else told["kernel"], call.latency_us, macs, share))
    return LayerTimes(tuple(layers), median(latencies_us), peak_gmacs)
