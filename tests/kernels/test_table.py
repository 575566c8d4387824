"""What the table refuses, and what packing refuses, with the reason."""

from __future__ import annotations

import numpy as np
import pytest

from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.kernels import KERNELS, NoKernelError, select
from qtorch_relay.kernels.dynamic_spec import DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.pointwise_spec import AddSpec, MulSpec
from qtorch_relay.kernels.pool_spec import AvgPool2dSpec, MaxPool2dSpec
from qtorch_relay.kernels.spec import AccumulatorRequantize, Conv2dSpec, DenseSpec, RealRequantize
from qtorch_relay.qparams import PerTensor

ISA = "x86-avx512vnni"


def test_depthwise_goes_to_its_own_kernel() -> None:
    assert select(ISA, Conv2dSpec(1, 7, 7, 32, 32, 3, 3, groups=32)).name.startswith("depthwise")
    assert select(ISA, Conv2dSpec(1, 7, 7, 32, 32, 3, 3, groups=16)).name.startswith("conv2d")


def test_large_depthwise_windows_are_left_to_the_general_convolution() -> None:
    assert select(ISA, Conv2dSpec(1, 9, 9, 32, 32, 9, 9, groups=32)).name.startswith("conv2d")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (DenseSpec(1, 70_000, 10), "70000 products could overflow int32; accepted are at most 65793"),
        (Conv2dSpec(1, 3, 3, 8000, 8, 3, 3), "72000 products could overflow"),
        (MaxPool2dSpec(1, 20, 20, 8, (9, 9), (1, 1)), "its window has 81 pixels; accepted are at most 64"),
        (AvgPool2dSpec(1, 9, 9, 8, (2, 2), (2, 2), ceil_mode=True), "accepted are neither"),
        (AvgPool2dSpec(1, 300, 300, 8, (300, 300), (1, 1)), "accepted are fewer than"),
        (DynamicQuantizeSpec((8,), "int8", "rounded"), "NaN becomes 0, which is the lowest code of uint8 only"),
        (DynamicDenseSpec((0, 8), 8), "no rows or no columns"),
        ("conv", "there is no kernel for str"),
    ],
    ids=["dense", "conv", "max", "ceil", "large", "rounded", "empty", "other"],
)
def test_refusals_say_why(spec, reason: str) -> None:
    with pytest.raises(NoKernelError, match=reason):
        select(ISA, spec)


def test_an_isa_without_kernels_has_none() -> None:
    with pytest.raises(NoKernelError, match="there is no kernel"):
        select("generic", DenseSpec(1, 8, 8))


@pytest.mark.parametrize(
    "params",
    [
        AccumulatorRequantize(np.zeros(16, np.float32), np.full(16, 1e6, np.float32), 0, 0, 255),
        AccumulatorRequantize(np.full(16, 1e30, np.float32), np.full(16, 1e-3, np.float32), 0, 0, 255),
        RealRequantize(1.0, np.ones(16, np.float32), np.full(16, np.nan, np.float32), 1.0, 0, 0, 255),
    ],
    ids=["multiplier", "addend", "nan"],
)
def test_requantization_beyond_int32_is_refused(params) -> None:
    spec = Conv2dSpec(1, 4, 4, 64, 16, 1, 1, requantize=params.kind)
    weight = np.full(spec.weight_shape, 127, np.int8)
    with pytest.raises(UnsupportedQuantSchemeError, match="output channel 0 can reach"):
        select(ISA, spec).pack(spec, weight, 0, params)


def test_requantization_constants_must_be_one_per_channel() -> None:
    spec = Conv2dSpec(1, 4, 4, 64, 16, 1, 1)
    params = AccumulatorRequantize(np.zeros(1, np.float32), np.ones(1, np.float32), 0, 0, 255)
    with pytest.raises(ValueError, match="requantization has"):
        select(ISA, spec).pack(spec, np.zeros(spec.weight_shape, np.int8), 0, params)


@pytest.mark.parametrize("spec", [AddSpec((64,)), MulSpec((64,))], ids=["add", "mul"])
def test_sums_and_products_beyond_int32_are_refused(spec) -> None:
    huge, tiny = PerTensor(1e9, 0, "uint8"), PerTensor(1e-9, 0, "uint8")
    with pytest.raises(UnsupportedQuantSchemeError, match="steps of its output scale"):
        select(ISA, spec).pack(spec, huge, huge, tiny)


def test_a_factor_of_one_is_the_plain_sum() -> None:
    ones = np.ones(4, np.float32)
    assert AccumulatorRequantize(ones, ones, 0, 0, 255, ones).kind == "accumulator"
    assert AccumulatorRequantize(ones, ones, 0, 0, 255, 2 * ones).kind == "fused"


def test_every_kernel_has_cases_and_says_its_isa() -> None:
    for kernel in KERNELS:
        assert kernel.cases
        assert kernel.name.endswith(kernel.isa.replace("-", "_"))
