"""Every row of the kernel table against its reference on the row's own cases, tolerance 0."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from data import matmul_arguments
from harness import compile_kernels, run

from qtorch_relay.kernels.table import KERNELS, Kernel

CASES = [
    pytest.param(kernel, index, id=f"{kernel.name}-{index}")
    for kernel in KERNELS
    for index, _ in enumerate(kernel.cases)
]


@cache
def compiled(kernel: Kernel) -> Any:
    """Returns the functions of all cases of a row, compiled together."""
    return compile_kernels(tuple((kernel, spec) for spec in kernel.cases))


@pytest.mark.parametrize(("kernel", "index"), CASES)
def test_kernel_equals_reference(kernel: Kernel, index: int) -> None:
    spec = kernel.cases[index]
    assert kernel.why_not(spec) is None
    for extreme in (False, True):
        inputs, constants = matmul_arguments(spec, seed=index, extreme=extreme)
        expected = kernel.reference(spec, *inputs, *constants)
        packed = kernel.pack(spec, *constants)
        actual = run(compiled(kernel)[f"k{index}"], [*inputs, *packed], np.zeros(spec.out_shape, spec.out_dtype))
        np.testing.assert_array_equal(actual, expected, err_msg=str(spec))
