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
from qtorch_relay._tvm import T, tvm
from qtorch_relay.kernels import KERNELS, Kernel
from qtorch_relay.kernels.spec import outputs_of
from qtorch_relay.kernels.tir import get, load, prim_func, put, registers, splat, store
from qtorch_relay.kernels.x86.isas import AVX512VNNI
from qtorch_relay.runtime import set_num_threads
from qtorch_relay.runtime.threads import prepare_thread

ISA = AVX512VNNI.NAME
PEAK_STEPS, PEAK_REGISTERS = 10_000, 16
CALLS = 3  # per round; the evaluator loops in C++


def timer(function: Any, arguments: list[np.ndarray]) -> Callable[[], float]:
    """Returns a function that runs a PrimFunc and returns its latency in seconds."""
    module = tvm.compile(
        tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")}), target=target.resolve(ISA).to_tvm()
    )
    tensors = [tvm.runtime.tensor(array) for array in arguments]
    evaluator = module.mod.time_evaluator("kernel", tvm.cpu(), number=CALLS, repeat=1)
    return lambda: evaluator(*tensors).results[0]


def peak_timer() -> Callable[[], float]:
    """Returns a timer of independent dot products between registers, in seconds per multiply-accumulate."""

    def body(a: Any, b: Any, out: Any) -> None:
        dot = AVX512VNNI.dot_for("s32")
        accumulators = registers(PEAK_REGISTERS, "int32x16")
        for accumulator in accumulators:
            put(accumulator, splat(T.int32(0), 16))
        u8, s8 = T.bind(load(a, 0, 64)), T.bind(load(b, 0, 64))
        with T.serial(0, PEAK_STEPS):
            for accumulator in accumulators:
                put(accumulator, dot.add(get(accumulator), u8, s8))
        for i, accumulator in enumerate(accumulators):
            store(out, get(accumulator), i * 16, 16)

    out = np.zeros(PEAK_REGISTERS * 16, np.int32)
    function = prim_func("peak", [("a", (64,), "uint8"), ("b", (64,), "int8"), ("out", out.shape, "int32")], body)
    run = timer(function, [np.ones(64, np.uint8), np.ones(64, np.int8), out])
    return lambda: run() / (PEAK_STEPS * PEAK_REGISTERS * 64)


def kernel_timer(kernel: Kernel, spec: Any) -> Callable[[], float]:
    inputs, constants = kernel.arguments(spec, 0, False)
    outs = [np.zeros(shape, dtype) for shape, dtype in outputs_of(spec)]
    return timer(kernel.build(spec), [*inputs, *kernel.pack(spec, *constants), *outs])


def describe(spec: Any) -> str:
    """Returns a spec in one short line."""
    if hasattr(spec, "kernel_h"):
        groups = f" groups {spec.groups}" if spec.groups > 1 else ""
        size = f"{spec.in_h}x{spec.in_w}x{spec.in_channels} -> {spec.out_channels}"
        return f"{size}, {spec.kernel_h}x{spec.kernel_w} / {spec.stride[0]}{groups}, {spec.requantize}"
    shape = getattr(spec, "in_shape", None) or spec.shape
    outputs = " and ".join("x".join(map(str, shape)) or "1" for shape, _ in outputs_of(spec))
    return f"{'x'.join(map(str, shape))} -> {outputs}"


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
