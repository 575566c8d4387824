"""Compiles kernels and runs them between guard bytes."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from qtorch_relay import target as target_table
from qtorch_relay._tvm import tvm
from qtorch_relay.kernels.table import Kernel

ALIGNMENT = 64
CANARY = 0xA5
PROT_NONE = 0


# AVX-VNNI and AVX-512 VNNI are one intrinsic in 256 bits, in two encodings.
_STAND_INS = {
    "x86-avxvnni": replace(
        target_table.resolve("x86-avxvnni"),
        mattr=("+avx512f", "+avx512vl", "+avx512vnni"),
        cpu_flags=target_table.resolve("x86-avx512vnni").cpu_flags,
    )
}


def target_to_run(isa: str) -> target_table.Target | None:
    """Returns a target for which this host runs the kernels of an ISA, or None."""
    candidates = [target_table.resolve(isa), *([_STAND_INS[isa]] if isa in _STAND_INS else [])]
    return next((target for target in candidates if target_table.missing_on_host(target) is None), None)


def compile_kernel(kernel: Kernel, specs: Sequence[Any]) -> Any:
    """Returns the runtime module with a kernel's functions for these specs, named k0, k1, ..."""
    functions = {f"k{i}": kernel.build(spec).with_attr("global_symbol", f"k{i}") for i, spec in enumerate(specs)}
    target = target_to_run(kernel.isa)
    if target is None:
        pytest.skip(f"this host does not run {kernel.isa}")
    return tvm.compile(tvm.IRModule(functions), target=target.to_tvm())


class Guarded:
    """A tensor between guard bytes that must not change, its end as near as alignment lets it to an unreadable page."""

    def __init__(self, array: np.ndarray) -> None:
        pages = -(-(array.nbytes + 2 * ALIGNMENT) // mmap.PAGESIZE)
        self._map = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        self.memory = np.frombuffer(self._map, np.uint8, pages * mmap.PAGESIZE)
        fence = ctypes.c_void_p(self.memory.ctypes.data + self.memory.size)
        assert ctypes.CDLL(None).mprotect(fence, mmap.PAGESIZE, PROT_NONE) == 0
        self.memory[:] = CANARY
        self.start = (self.memory.size - array.nbytes) // ALIGNMENT * ALIGNMENT
        self.end = self.start + array.nbytes
        self.array = self.memory[self.start : self.end].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.tensor = tvm.runtime.from_dlpack(self.array)

    def check(self) -> None:
        assert (self.memory[: self.start] == CANARY).all(), "wrote before the buffer"
        assert (self.memory[self.end :] == CANARY).all(), "wrote past the buffer"


def run_guarded(function: Any, inputs: Sequence[np.ndarray], *outs: np.ndarray) -> Any:
    """Returns the output of a compiled kernel, a tuple if there are several; fails if it writes anywhere else, inputs
    included."""
    arguments = [Guarded(array) for array in (*inputs, *outs)]
    function(*(argument.tensor for argument in arguments))
    for argument in arguments:
        argument.check()
    for argument, before in zip(arguments[: len(inputs)], inputs, strict=True):
        assert argument.array.tobytes() == before.tobytes(), "wrote to an input"
    written = tuple(argument.array for argument in arguments[len(inputs) :])
    return written if len(outs) > 1 else written[0]


@pytest.fixture(scope="session")
def compile_specs() -> Callable[[Kernel, Sequence[Any]], Any]:
    return compile_kernel


@pytest.fixture(scope="session")
def compiled_cases() -> Callable[[Kernel], Any]:
    """The compiled functions of all cases of a row, compiled once a session."""
    return cache(lambda kernel: compile_kernel(kernel, kernel.cases))


@pytest.fixture(scope="session")
def run_kernel() -> Callable[..., np.ndarray]:
    return run_guarded


@pytest.fixture(scope="session")
def target_assembly() -> Callable[[str, Any], str]:
    """Returns the assembly of a function for a target, which the host need not run."""

    def text(target: str, function: Any) -> str:
        module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
        return tvm.compile(module, target=target_table.resolve(target).to_tvm()).mod.inspect_source("asm")

    return text
