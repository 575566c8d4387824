"""Every x86 row of the kernel table against its reference on the row's own cases, tolerance 0."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qtorch_relay.kernels.spec import outputs_of
from qtorch_relay.kernels.table import KERNELS, Kernel

CASES = [
    pytest.param(kernel, index, id=f"{kernel.name}-{index}")
    for kernel in KERNELS
    if kernel.isa.startswith("x86")
    for index, _ in enumerate(kernel.cases)
]


@pytest.mark.parametrize(("kernel", "index"), CASES)
def test_kernel_equals_reference(kernel: Kernel, index: int, compiled_cases, run_kernel) -> None:
    spec = kernel.cases[index]
    assert kernel.why_not(spec) is None
    for extreme in (False, True):
        inputs, constants = kernel.arguments(spec, index, extreme)
        expected = kernel.reference(spec, *inputs, *constants)
        packed = kernel.pack(spec, *constants)
        outs = [np.zeros(shape, dtype) for shape, dtype in outputs_of(spec)]
        actual = run_kernel(compiled_cases(kernel)[f"k{index}"], [*inputs, *packed], *outs)
        if not isinstance(expected, tuple):
            actual, expected = (actual,), (expected,)
        for ours, theirs in zip(actual, expected, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs, err_msg=str(spec))


def test_equal_specs_have_equal_hashes() -> None:
    for kernel in KERNELS:
        for spec in kernel.cases:
            assert hash(dataclasses.replace(spec)) == hash(spec)


def test_kernel_names_are_unique() -> None:
    names = [kernel.name for kernel in KERNELS]
    assert len(set(names)) == len(names)
