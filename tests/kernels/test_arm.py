"""Every ARM row of the kernel table against its reference on the row's own cases, under qemu-aarch64, tolerance 0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtorch_relay._tvm import PrimFunc
from qtorch_relay.kernels.arguments import Arguments
from qtorch_relay.kernels.spec import outputs_of
from qtorch_relay.kernels.table import KERNELS, Kernel
from qtorch_relay.qparams import code_range
from tests.kernels.arm import emulator

ISAS = [isa for isa in emulator.CPUS if any(kernel.isa == isa for kernel in KERNELS)]
pytestmark = pytest.mark.skipif(
    emulator.missing() is not None and "QTORCH_RELAY_REQUIRE_BOARD" not in os.environ,
    reason=f"needs {emulator.missing()}",
)


def variants(kernel: Kernel, spec: Any, seed: int) -> Iterator[tuple[Any, Arguments]]:
    """Yields a spec with extreme arguments, and with others as it is known with these."""
    yield spec, kernel.arguments(spec, seed, True)
    inputs, constants = kernel.arguments(spec, seed, False)
    if hasattr(spec, "pair_sums"):
        spec = kernel.refine(spec, code_range(str(inputs[0].dtype)), *constants)
    yield spec, Arguments(inputs, constants)


@pytest.mark.parametrize("isa", ISAS)
def test_kernels_equal_references(isa: str, tmp_path: Path) -> None:
    functions: dict[tuple[str, Any], PrimFunc] = {}
    calls, expected = [], []
    for kernel in (kernel for kernel in KERNELS if kernel.isa == isa):
        for seed, case in enumerate(kernel.cases):
            assert kernel.why_not(case) is None
            for spec, (inputs, constants) in variants(kernel, case, seed):
                if (kernel.name, spec) not in functions:
                    functions[kernel.name, spec] = kernel.build(spec)
                outs = [np.zeros(shape, dtype) for shape, dtype in outputs_of(spec)]
                packed = kernel.pack(spec, *constants)
                calls.append(emulator.Call(list(functions).index((kernel.name, spec)), [*inputs, *packed], outs))
                reference = kernel.reference(spec, *inputs, *constants)
                expected.append((f"{kernel.name}: {spec}", reference if isinstance(reference, tuple) else (reference,)))
    program = emulator.build(
        isa, {f"k{index}": function for index, function in enumerate(functions.values())}, tmp_path
    )
    found = emulator.run(program, emulator.CPUS[isa], calls)
    wrong = {
        name: int((ours != theirs).sum())
        for (name, references), outputs in zip(expected, found, strict=True)
        for ours, theirs in zip(outputs, references, strict=True)
        if ours.tobytes() != np.ascontiguousarray(theirs, ours.dtype).tobytes()
    }
    assert not wrong
