"""What LLVM makes of the kernels: the inner loops are nothing but loads and dot products, and no sum is contracted."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qtorch_relay.kernels.conv2d_plan import Conv2dPlan, plan_conv2d
from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.spec import Conv2dSpec
from qtorch_relay.kernels.table import select

ISA = "x86-avx512vnni"
SHAPES = [
    Conv2dSpec(1, 56, 56, 64, 64, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 14, 14, 256, 256, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 7, 7, 512, 512, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 28, 28, 512, 128, 1, 1),
    Conv2dSpec(1, 7, 7, 2048, 512, 1, 1),
    Conv2dSpec(1, 17, 17, 768, 192, 1, 1),
]


DYNAMIC = [DynamicDenseSpec((128, 256), 256), DynamicDenseSpec((1, 256), 256), DynamicDenseSpec((3, 30, 64), 100)]


def assembly(compile_specs, spec: Any) -> str:
    return compile_specs(select(ISA, spec), [spec]).mod.inspect_source("asm")


def inner_loops(text: str) -> list[list[str]]:
    """Returns the instructions of every loop of one basic block that has dot products."""
    found = []
    for block in re.split(r"^(?=\.LBB\d+_\d+:)", text, flags=re.M)[1:]:
        label = block[: block.index(":")]
        code = [line.strip() for line in block.splitlines()[1:] if line.startswith("\t") and not line.startswith("\t.")]
        jumps = [i for i, line in enumerate(code) if re.match(r"j\w+\s", line)]
        if jumps and code[jumps[0]].split()[-1] == label and "vpdpbusd" in block:
            found.append(code[: jumps[0]])
    return found


@pytest.mark.parametrize("spec", SHAPES, ids=lambda spec: f"{spec.in_h}x{spec.in_channels}-{spec.kernel_h}")
def test_inner_loop_is_dot_products_without_spills(spec: Conv2dSpec, compile_specs) -> None:
    _check_loops(plan_conv2d(spec, 16, 32), inner_loops(assembly(compile_specs, spec)))


@pytest.mark.parametrize("spec", DYNAMIC, ids=lambda spec: f"{spec.shape}-{spec.out_features}")
def test_inner_loop_with_a_run_time_zero_point_is_no_other(spec: DynamicDenseSpec, compile_specs) -> None:
    _check_loops(plan_conv2d(spec.as_conv2d(), 16, 32), inner_loops(assembly(compile_specs, spec)))


def _check_loops(plan: Conv2dPlan, loops: list[list[str]]) -> None:
    assert loops
    vectors = [count for count in (plan.vectors, plan.rest_vectors) if count]
    sizes = {pixels * count for pixels, _ in plan.tiling.shapes for count in vectors}
    for loop in loops:
        dots = [line for line in loop if line.startswith("vpdpbusd")]
        # LLVM may unroll a step
        assert any(len(dots) % size == 0 for size in sizes)
        assert all("%zmm" in line for line in dots)
        assert not [line for line in loop if "%rsp" in line]
        others = [line for line in loop if not re.match(r"vpdpbusd|vpbroadcastd|vmovdq|vmovup|vmovap", line)]
        # counting, and the address of a prefetch
        assert len(others) <= 10


@pytest.mark.parametrize(
    ("kind", "contracts"), [("accumulator", False), ("real", False), ("fused", True)], ids=lambda value: str(value)
)
def test_products_and_sums_are_fused_only_where_the_formula_says_so(kind, contracts: bool, compile_specs) -> None:
    for groups in (1, 64):
        spec = Conv2dSpec(1, 7, 7, 64, 64, 3, 3, groups=groups, requantize=kind)
        assert ("vfm" in assembly(compile_specs, spec)) == contracts


@pytest.mark.parametrize(
    ("spec", "contracts"),
    [
        (DynamicDenseSpec((5, 64), 64, "fused"), True),
        (DynamicDenseSpec((5, 64), 64, "rounded"), False),
        (DynamicDenseSpec((5, 64), 64, "real", relu=True), False),
        (DynamicQuantizeSpec((5, 77), "uint8", "fused"), True),
        (DynamicQuantizeSpec((5, 77), "uint8", "rounded"), False),
    ],
    ids=str,
)
def test_dynamic_kernels_fuse_only_where_the_formula_says_so(spec: Any, contracts: bool, compile_specs) -> None:
    assert ("vfm" in assembly(compile_specs, spec)) == contracts


def test_a_range_is_found_16_elements_at_a_time(compile_specs) -> None:
    text = assembly(compile_specs, ChooseQparamsSpec((5, 77), 0, 127))
    assert len(re.findall(r"vminps\s.*%zmm", text)) >= 4
    assert len(re.findall(r"vmaxps\s.*%zmm", text)) >= 4
