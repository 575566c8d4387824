"""Runs one kernel on one spec between guard bytes and compares it with its reference, code for code."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from qtorch_relay._tvm import tvm
from qtorch_relay.kernels.table import Kernel

ALIGNMENT = 64
CANARY = 0xA5


@cache
def compile_kernels(kernels: tuple[tuple[Kernel, Any], ...]) -> Any:
    """Returns the runtime module with function k0, k1, ... for these (kernel, spec) pairs."""
    functions = {
        f"k{i}": kernel.build(spec).with_attr("global_symbol", f"k{i}") for i, (kernel, spec) in enumerate(kernels)
    }
    return tvm.compile(tvm.IRModule(functions), target={"kind": "llvm", "mcpu": "znver4"})


class Guarded:
    """A tensor whose bytes end right before guard bytes that must not change (and start right after others)."""

    def __init__(self, array: np.ndarray) -> None:
        size = array.nbytes
        self.memory = np.full(size + 4 * ALIGNMENT, CANARY, np.uint8)
        self.start = ALIGNMENT + (-self.memory.ctypes.data) % ALIGNMENT
        self.end = self.start + size
        self.array = self.memory[self.start : self.end].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.tensor = tvm.runtime.from_dlpack(self.array)

    def check(self) -> None:
        """Raises if a guard byte changed."""
        assert (self.memory[: self.start] == CANARY).all(), "wrote before the buffer"
        assert (self.memory[self.end :] == CANARY).all(), "wrote past the buffer"


def run(function: Any, inputs: list[np.ndarray], out: np.ndarray) -> np.ndarray:
    """Returns the output of a compiled kernel; raises if it writes anywhere else, inputs included."""
    arguments = [Guarded(array) for array in (*inputs, out)]
    function(*(argument.tensor for argument in arguments))
    for argument, before in zip(arguments, inputs, strict=False):
        argument.check()
        assert (argument.array == before).all(), "wrote to an input"
    arguments[-1].check()
    return arguments[-1].array
