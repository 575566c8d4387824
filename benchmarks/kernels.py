"""Speed of every kernel on its benchmark specs, beside the dot-product peak measured in the same run.

python benchmarks/kernels.py [--kernel NAME] [--threads N] [--rounds N]

Each round measures the peak, then every kernel; medians over the rounds. Inputs and weights are warm in the caches.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay import target
from qtorch_relay.kernels import KERNELS, Kernel
from qtorch_relay.kernels.measure import describe, peak_timer, timer
from qtorch_relay.kernels.spec import outputs_of
from qtorch_relay.kernels.x86.isas import AVX512VNNI
from qtorch_relay.runtime import set_num_threads
from qtorch_relay.runtime.threads import prepare_thread

ISA = AVX512VNNI.NAME


def kernel_timer(kernel: Kernel, spec: Any) -> Callable[[], float]:
    inputs, constants = kernel.arguments(spec, 0, False)
    outs = [np.zeros(shape, dtype) for shape, dtype in outputs_of(spec)]
    return timer(kernel.build(spec), [*inputs, *kernel.pack(spec, *constants), *outs], ISA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="", help="only kernels whose name contains this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    set_num_threads(options.threads)
    prepare_thread()
    rows = [
        (kernel, spec)
        for kernel in KERNELS
        if kernel.isa == ISA and options.kernel in kernel.name
        for spec in kernel.benchmarks
    ]
    timers = [kernel_timer(kernel, spec) for kernel, spec in rows]
    peak = peak_timer()
    samples: list[list[float]] = [[] for _ in rows]
    peaks = []
    for _ in range(options.rounds):
        peaks.append(peak())
        for sample, measure in zip(samples, timers, strict=True):
            sample.append(measure())
    peak_rate = options.threads / statistics.median(peaks)
    print(f"{target.host_cpu().model}, {options.threads} thread(s), dot-product peak {peak_rate / 1e9:.0f} GMAC/s")
    for (kernel, spec), sample in zip(rows, samples, strict=True):
        latency = statistics.median(sample)
        macs = getattr(spec, "macs", None)
        share = "" if macs is None else f"{macs / latency / 1e9:5.0f} GMAC/s  {macs / latency / peak_rate:4.0%} of peak"
        name = kernel.name.split("__")[0]
        print(f"{name:28} {describe(spec):48} {latency * 1e6:8.1f} us  {share}")


if __name__ == "__main__":
    main()
