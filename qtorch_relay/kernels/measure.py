"""Latencies of kernels on this machine, and the peak of its dot products to hold them against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay import target
from qtorch_relay._tvm import PrimFunc, T, tvm
from qtorch_relay.kernels.spec import Conv2dAddSpec, outputs_of
from qtorch_relay.kernels.tir import get, load, prim_func, put, registers, splat, store
from qtorch_relay.kernels.x86.isas import AVX512VNNI

PEAK_STEPS, PEAK_REGISTERS, DOT_MACS = 10_000, 16, 64
PEAK_ISA, PEAK_SAMPLES = "x86-avx512vnni", 9
CALLS = 3  # of one measurement; the evaluator loops in C++

FAR_BYTES = 8 << 20
"""More than second-level caches hold, less than most third-level ones."""

MAX_COPIES = 32


def timer(function: PrimFunc, arguments: Sequence[npt.NDArray[Any]], isa: str) -> Callable[[], float]:
    """Returns a function that runs a PrimFunc, compiled for an ISA of this host, and returns its latency in seconds."""
    evaluator = _evaluator(function, isa, CALLS)
    tensors = [tvm.runtime.tensor(array) for array in arguments]
    return lambda: evaluator(*tensors).results[0]


def timer_in_network(
    function: PrimFunc,
    inputs: Sequence[npt.NDArray[Any]],
    constants: Sequence[npt.NDArray[Any]],
    outs: Sequence[npt.NDArray[Any]],
    isa: str,
) -> Callable[[], float]:
    """Returns a timer as above, in which constants arrive from as far as in a network: other layers ran since.

    Each call takes the next of several copies of the constants; all of them together do not fit the second-level cache.
    """
    evaluator = _evaluator(function, isa, 1)
    copies = -(-FAR_BYTES // max(sum(array.nbytes for array in constants), FAR_BYTES // MAX_COPIES))
    given, results = ([tvm.runtime.tensor(array) for array in arrays] for arrays in (inputs, outs))
    sets = [[tvm.runtime.tensor(array) for array in constants] for _ in range(copies)]
    return lambda: sum(evaluator(*given, *copy, *results).results[0] for copy in sets) / copies


def _evaluator(function: PrimFunc, isa: str, calls: int) -> Callable[..., Any]:
    return _compiled(function, isa).time_evaluator("kernel", tvm.cpu(), number=calls, repeat=1)


def _compiled(function: PrimFunc, isa: str) -> Any:
    """Returns a module of a function, by the name "kernel", for an ISA of this host."""
    mod = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return tvm.compile(mod, target=target.resolve(isa).to_tvm()).mod


def host_peak_gmacs(num_threads: int) -> float | None:
    """Returns what dot products reach on so many cores of this host, in 1e9 multiply-accumulates a second.

    None where the host has no AVX512-VNNI.
    """
    if target.missing_on_host(target.resolve(PEAK_ISA)) is not None:
        return None
    peak = peak_timer()
    return num_threads * 1e-9 / median(peak() for _ in range(PEAK_SAMPLES))


def peak_timer() -> Callable[[], float]:
    """Returns a timer of independent dot products between 512-bit registers, in seconds per multiply-accumulate.

    The host has AVX512-VNNI.
    """
    run = timer(*_dots(PEAK_STEPS), AVX512VNNI.NAME)
    return lambda: run() / (PEAK_STEPS * PEAK_REGISTERS * DOT_MACS)


def peak_program(macs: int) -> Callable[[], None]:
    """Returns a program of about so many multiply-accumulates that are nothing but such dot products, on one thread.

    It takes as long as a network would at the peak: what disturbs the one disturbs the other.
    """
    function, arguments = _dots(max(1, round(macs / (PEAK_REGISTERS * DOT_MACS))))
    kernel = _compiled(function, AVX512VNNI.NAME)["kernel"]
    tensors = [tvm.runtime.tensor(array) for array in arguments]
    return lambda: kernel(*tensors)


def _dots(steps: int) -> tuple[PrimFunc, list[npt.NDArray[Any]]]:
    """Returns a function of steps * PEAK_REGISTERS dot products of DOT_MACS each, and its arguments."""

    def body(a: Any, b: Any, out: Any) -> None:
        dot = AVX512VNNI.dot_for("s32")
        accumulators = registers(PEAK_REGISTERS, "int32x16")
        for accumulator in accumulators:
            put(accumulator, splat(T.int32(0), 16))
        u8, s8 = T.bind(load(a, 0, 64)), T.bind(load(b, 0, 64))
        with T.serial(0, steps):
            for accumulator in accumulators:
                put(accumulator, dot.add(get(accumulator), u8, s8))
        for i, accumulator in enumerate(accumulators):
            store(out, get(accumulator), i * 16, 16)

    out = np.zeros(PEAK_REGISTERS * 16, np.int32)
    function = prim_func("peak", [("a", (64,), "uint8"), ("b", (64,), "int8"), ("out", out.shape, "int32")], body)
    return function, [np.ones(64, np.uint8), np.ones(64, np.int8), out]


def describe(spec: Any) -> str:
    """Returns a spec in one short line."""
    if hasattr(spec, "kernel_h"):
        groups = f" groups {spec.groups}" if spec.groups > 1 else ""
        size = f"{spec.in_h}x{spec.in_w}x{spec.in_channels} -> {spec.out_channels}"
        residual = ", plus a residual" if isinstance(spec, Conv2dAddSpec) else ""
        return f"{size}, {spec.kernel_h}x{spec.kernel_w} / {spec.stride[0]}{groups}{residual}, {spec.requantize}"
    inputs = getattr(spec, "shapes", None) or (getattr(spec, "in_shape", None) or spec.shape,)
    outputs = [shape for shape, _ in outputs_of(spec)]
    taken, given = (" and ".join("x".join(map(str, shape)) or "1" for shape in shapes) for shapes in (inputs, outputs))
    return f"{taken} -> {given}"
