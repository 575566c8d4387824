"""Kernels give the same codes whatever the number of threads that share their chunks."""

from __future__ import annotations

import numpy as np
import pytest

from qtorch_relay.kernels.pointwise_spec import AddSpec, LookupSpec, MulSpec, QuantizeSpec
from qtorch_relay.kernels.pool_spec import AvgPool2dSpec, MaxPool2dSpec
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec
from qtorch_relay.kernels.table import select
from qtorch_relay.runtime import get_num_threads, set_num_threads
from qtorch_relay.runtime.threads import prepare_thread

SPECS = [
    Conv2dSpec(1, 28, 28, 64, 72, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 7, 7, 256, 264, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 28, 28, 120, 120, 3, 3, padding=(1, 1, 1, 1), groups=120),
    DenseSpec(1, 2048, 1000),
    QuantizeSpec((1, 3, 224, 224), channels_last=True),
    AddSpec((1, 56, 56, 64)),
    MulSpec((1, 28, 28, 120), per_channel=True),
    LookupSpec((1, 112, 112, 40)),
    MaxPool2dSpec(1, 56, 56, 64, (3, 3), (2, 2), (1, 1, 1, 1)),
    AvgPool2dSpec(1, 35, 35, 192, (3, 3), (1, 1), (1, 1, 1, 1)),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_threads_do_not_change_codes(spec, compile_specs, run_kernel) -> None:
    kernel = select("x86-avx512vnni", spec)
    compiled = compile_specs(kernel, [spec])
    inputs, constants = kernel.arguments(spec, 0, False)
    expected = kernel.reference(spec, *inputs, *constants)
    before = get_num_threads()
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            prepare_thread()
            actual = run_kernel(compiled["k0"], [*inputs, *kernel.pack(spec, *constants)], np.zeros_like(expected))
            np.testing.assert_array_equal(actual, expected)
    finally:
        set_num_threads(before)
        prepare_thread()
    assert "parallel" in kernel.build(spec).script()
