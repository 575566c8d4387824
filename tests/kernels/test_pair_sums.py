"""Which layers may add two products in int16: proven from weights and codes, and exact just where it is proven."""

from __future__ import annotations

import numpy as np
import pytest

from qtorch_relay.kernels.dynamic_spec import DynamicDenseSpec
from qtorch_relay.kernels.pair_sums import pair_sums
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec
from qtorch_relay.kernels.table import select

ISAS = ("x86-avx2", "x86-avx512")
WHOLE, SEVEN_BITS = (0, 255), (0, 127)


@pytest.mark.parametrize(
    ("pair", "codes", "held"),
    [
        ((64, 64), WHOLE, True),  # 255 * 128 = 32640
        ((64, 65), WHOLE, False),  # 255 * 129 = 32895
        ((-64, -64), WHOLE, True),  # -32640
        ((-64, -65), WHOLE, False),  # -32895
        ((127, -128), WHOLE, True),  # from -32640 to 32385
        ((127, 127), SEVEN_BITS, True),  # 32258
        ((-128, -128), SEVEN_BITS, True),  # -32512
        ((-128, -128), (0, 128), True),  # -32768
        ((-128, -128), (0, 129), False),
        ((127, 127), (200, 255), False),
    ],
)
def test_bounds_of_pairs_are_those_of_int16(pair: tuple[int, int], codes: tuple[int, int], held: bool) -> None:
    ends = [[a, b] for a in codes for b in codes]
    sums = np.array(ends) @ np.array(pair)
    assert (sums.min() >= -(2**15) and sums.max() < 2**15) == held
    dots = np.zeros((3, 2, 4), np.int8)
    dots[1, 1, 2:] = pair
    assert pair_sums(dots, codes) == ("s16" if held else "s32")
    # two weights of different pairs are never added
    dots = np.zeros((1, 1, 4), np.int8)
    dots[0, 0, 1:3] = pair
    assert pair_sums(dots, codes) == "s16"


SPECS = [
    Conv2dSpec(2, 7, 9, 17, 37, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 9, 9, 3, 64, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3), requantize="real"),
    Conv2dSpec(1, 13, 7, 40, 24, 1, 1, in_dtype="int8", out_dtype="int8"),
    Conv2dSpec(1, 6, 6, 64, 64, 3, 3, padding=(1, 1, 1, 1), groups=8),
    Conv2dSpec(1, 9, 8, 40, 40, 3, 3, padding=(1, 1, 1, 1), groups=40),
    Conv2dSpec(1, 9, 8, 72, 72, 5, 5, stride=(2, 2), padding=(2, 2, 2, 2), groups=72),
    DenseSpec(5, 130, 58),
    DynamicDenseSpec((5, 130), 58),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{type(spec).__name__}-{spec.weight_shape}")
def test_layers_take_the_fast_form_where_it_is_exact_and_only_there(spec, isa: str, compile_specs, run_kernel) -> None:
    kernel = select(isa, spec)
    inputs, (weight, *rest) = kernel.arguments(spec, 1, True)
    assert kernel.refine(spec, WHOLE, weight, *rest).pair_sums == "s32"
    # codes and weights at both ends of what is proven
    low = -128 if inputs[0].dtype == np.int8 else 0
    codes = (low, low + 127)
    rng = np.random.default_rng(0)
    inputs[0] = rng.choice(codes, inputs[0].shape).astype(inputs[0].dtype)
    inputs[0].reshape(-1)[: inputs[0].size // 2] = codes[1]
    if isinstance(spec, DynamicDenseSpec):
        constants = (weight, *rest)
    else:
        constants = (weight, low + 3, *rest[1:])
    refined = kernel.refine(spec, codes, *constants)
    assert refined.pair_sums == "s16"
    assert kernel.form(refined) != kernel.form(spec)
    expected = kernel.reference(refined, *inputs, *constants)
    compiled = compile_specs(kernel, [spec, refined])
    for index, variant in enumerate((spec, refined)):
        packed = kernel.pack(variant, *constants)
        actual = run_kernel(compiled[f"k{index}"], [*inputs, *packed], np.zeros_like(expected))
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("isa", ["x86-avxvnni", "x86-avx512vnni"])
def test_one_form_where_no_product_saturates(isa: str) -> None:
    for spec in SPECS:
        kernel = select(isa, spec)
        _, constants = kernel.arguments(spec, 0, False)
        assert kernel.refine(spec, SEVEN_BITS, *constants) == spec


def test_padding_counts_as_a_code() -> None:
    spec = SPECS[0]
    kernel = select("x86-avx2", spec)
    _, (weight, _, *rest) = kernel.arguments(spec, 0, True)
    assert kernel.refine(spec, SEVEN_BITS, weight, 5, *rest).pair_sums == "s16"
    assert kernel.refine(spec, SEVEN_BITS, weight, 200, *rest).pair_sums == "s32"
