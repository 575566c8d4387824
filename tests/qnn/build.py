"""Small modules of the dialect for tests, and their execution by TVM's generic code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax, tvm


def module(inputs: dict[str, tuple[tuple[int, ...], str]], body: Callable[..., Any]) -> Any:
    """Returns a module whose main takes the inputs and returns what body makes of them, one binding."""
    builder = relax.BlockBuilder()
    variables = [relax.Var(name, relax.TensorType(shape, dtype)) for name, (shape, dtype) in inputs.items()]
    with builder.function("main", variables):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(body(*variables), "y"))
        builder.emit_func_output(result)
    return builder.finalize()


def run(mod: Any, *arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns what main computes, on the host's best CPU features, where LLVM is free to fuse multiply-adds."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})
    machine = relax.VirtualMachine(tvm.compile(mod, target=target), tvm.cpu())
    result: np.ndarray[Any, Any] = machine["main"](*[tvm.runtime.tensor(array) for array in arrays]).numpy()
    return result


def body_lines(text: str) -> list[str]:
    """Returns the bindings of printed text without their types: "y = qnn.add(...)"."""
    lines = [line.strip() for line in text.splitlines() if " = " in line]
    return [f"{line.split(':', 1)[0]} = {line.split(' = ', 1)[1]}" for line in lines]
