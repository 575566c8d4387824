"""Every ARM row of the kernel table against its reference on the row's own cases, under qemu-aarch64, tolerance 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qtorch_relay.kernels.spec import outputs_of
from qtorch_relay.kernels.table import KERNELS
from tests.kernels.arm import emulator

ISAS = [isa for isa in emulator.CPUS if any(kernel.isa == isa for kernel in KERNELS)]
pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=f"needs {emulator.missing()}")


@pytest.mark.parametrize("isa", ISAS)
def test_kernels_equal_references(isa: str, tmp_path: Path) -> None:
    functions, calls, expected = {}, [], []
    for row, kernel in enumerate(kernel for kernel in KERNELS if kernel.isa == isa):
        for index, spec in enumerate(kernel.cases):
            assert kernel.why_not(spec) is None
            name = f"k{row}_{index}"
            functions[name] = kernel.build(spec)
            for extreme in (False, True):
                inputs, constants = kernel.arguments(spec, index, extreme)
                reference = kernel.reference(spec, *inputs, *constants)
                packed = kernel.pack(spec, *constants)
                outs = [np.zeros(shape, dtype) for shape, dtype in outputs_of(spec)]
                calls.append(emulator.Call(len(functions) - 1, [*inputs, *packed], outs))
                expected.append((f"{kernel.name}: {spec}", reference if isinstance(reference, tuple) else (reference,)))
    program = emulator.build(isa, functions, tmp_path)
    found = emulator.run(program, emulator.CPUS[isa], calls)
    wrong = {
        name: int((ours != theirs).sum())
        for (name, references), outputs in zip(expected, found, strict=True)
        for ours, theirs in zip(outputs, references, strict=True)
        if ours.tobytes() != np.ascontiguousarray(theirs, ours.dtype).tobytes()
    }
    assert not wrong
