"""Modules of several named bindings for the tests of lowering, and their execution."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qtorch_relay import target as targets
from qtorch_relay._tvm import relax, tvm
from qtorch_relay.engine_constants import AccumulatorFactors, requantize_factors
from qtorch_relay.pipeline import generic_passes, machine_passes
from qtorch_relay.qnn import requantize
from qtorch_relay.qnn.printer import to_text
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.runtime.linker import find_linker, link
from tests.qnn.build import body_lines

ISA = "x86-avx512vnni"
# LLVM compiles ten times faster without optimization; that it changes no code is tested in tests/qnn.
PORTABLE = tvm.target.Target({"kind": "llvm", "opt-level": 0})
# LLVM cannot select instructions for the kernels' vector operations without optimization.
KERNELS = targets.resolve(ISA).to_tvm()

Inputs = Mapping[str, tuple[tuple[int, ...], str]]
Arrays = list[np.ndarray[Any, Any]]
Emit = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Case:
    """A program: body takes emit(expression, name) and one variable for each input, and returns the result."""

    name: str
    inputs: Inputs
    body: Callable[..., Any]

    def module(self) -> Any:
        builder = relax.BlockBuilder()
        variables = [relax.Var(name, relax.TensorType(shape, dtype)) for name, (shape, dtype) in self.inputs.items()]
        with builder.function("main", variables):
            with builder.dataflow():
                result = builder.emit_output(self.body(builder.emit, *variables))
            builder.emit_func_output(result)
        return builder.finalize()

    def arrays(self, seed: int = 0) -> Arrays:
        rng = np.random.default_rng(seed)
        return [random_array(rng, shape, dtype) for shape, dtype in self.inputs.values()]


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Returns codes over the dtype's whole range, int32 sums or floats."""
    if dtype == "float32":
        return np.asarray(rng.normal(0, 3, shape), np.float32)
    low, high = (-60_000, 60_000) if dtype == "int32" else (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    return np.asarray(rng.integers(low, high, shape), dtype)


def constant(seed: int, shape: tuple[int, ...], dtype: str) -> Any:
    """Returns a constant of random numbers."""
    return relax.const(random_array(np.random.default_rng(seed), shape, dtype), dtype)


def compile_all(mods: Mapping[str, Any]) -> Callable[[str, Arrays], Arrays]:
    """Returns (name, inputs) -> outputs of modules without kernels, compiled as the pipeline does, all at once."""
    functions = {name: CanonicalizeOps()(mod)["main"].with_attr("global_symbol", name) for name, mod in mods.items()}
    executable = _build(tvm.IRModule(functions), PORTABLE)
    with tempfile.TemporaryDirectory() as folder:
        # for hundreds of functions a linked library is ready in less than half the time of LLVM's JIT
        path = str(Path(folder) / "lib.so")
        executable.export_library(path, fcompile=partial(link, find_linker(targets.resolve("host"))))
        return _runner(tvm.runtime.load_module(path))


def execute(mod: Any, arrays: Arrays, target: Any = PORTABLE) -> Arrays:
    """Returns main's outputs, compiled as the pipeline does after selection."""
    return _runner(_build(CanonicalizeOps()(mod), target))("main", arrays)


def _build(canonical: Any, target: Any) -> Any:
    with target:
        ready = machine_passes()(generic_passes()(canonical))
    return relax.build(ready, target=target, relax_pipeline=None)


def _runner(program: Any) -> Callable[[str, Arrays], Arrays]:
    machine = relax.VirtualMachine(program, tvm.cpu())

    def run(name: str, arrays: Arrays) -> Arrays:
        result = machine[name](*[tvm.runtime.tensor(array) for array in arrays])
        return [tensor.numpy() for tensor in (result if not hasattr(result, "numpy") else [result])]

    return run


def assert_same_results(found: Arrays, expected: Arrays) -> None:
    """Checks number, dtype and every element; tolerance 0."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def lines(mod: Any) -> list[str]:
    """Returns main's bindings as text, without those that only mark the output."""
    return [line for line in body_lines(to_text(mod)) if not re.match(r"gv\d* = \w+$", line)]


def typed_line(mod: Any, name: str) -> str:
    """Returns the text of one binding with its type."""
    found = [line.strip() for line in to_text(mod).splitlines() if line.strip().startswith(f"{name}: ")]
    assert len(found) == 1, to_text(mod)
    return found[0]


def to_codes(
    sums: Any,
    channels: int,
    *,
    engine: str = "fbgemm",
    axis: int = -1,
    per_channel: bool = True,
    out_scale: float = 0.5,
) -> Any:
    """Returns a qnn.requantize of int32 sums to uint8 with an engine's constants and a bias."""
    rng = np.random.default_rng(5)
    scales = rng.uniform(0.001, 0.01, channels) if per_channel else np.float64(0.004)
    bias = rng.normal(0, 1, channels).astype(np.float32)
    factors = requantize_factors(engine, "conv", 0.02, scales, out_scale, bias, channels)
    return requantize(
        sums,
        np.float32(0.02) * np.asarray(scales, np.float32),
        0,
        out_scale,
        11,
        axis=axis,
        out_dtype="uint8",
        rounding="TONEAREST_EVEN",
        arithmetic="accumulator" if isinstance(factors, AccumulatorFactors) else "real",
        factors=factors.operands(),
    )
