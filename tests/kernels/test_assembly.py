"""What LLVM makes of the kernels: the inner loops are nothing but loads and dot products, and no sum is contracted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from qtorch_relay.kernels.conv2d_plan import plan_for
from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.spec import Conv2dAddSpec, Conv2dSpec
from qtorch_relay.kernels.table import ISAS, select

ISA = "x86-avx512vnni"
BY_NAME = {isa.NAME: isa for isa in ISAS}
# (kernels' ISA, sums of pairs) -> instructions of a dot
DOTS = {
    ("x86-avx2", "s16"): ("vpmaddubsw", "vpmaddwd", "vpaddd"),
    ("x86-avx2", "s32"): ("vpmaddwd", "vpaddd"),
    ("x86-avxvnni", "s32"): ("vpdpbusd",),
    ("x86-avx512", "s16"): ("vpmaddubsw", "vpmaddwd", "vpaddd"),
    ("x86-avx512", "s32"): ("vpmaddwd", "vpaddd"),
    ("x86-avx512vnni", "s32"): ("vpdpbusd",),
}
# loads of activations and weights, which may widen
WEIGHTS = r"vmovdq|vmovup|vmovap|vpmovsxbw|vpbroadcastd"
SHAPES = [
    Conv2dSpec(1, 56, 56, 64, 64, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 14, 14, 256, 256, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 7, 7, 512, 512, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 28, 28, 512, 128, 1, 1),
    Conv2dSpec(1, 7, 7, 2048, 512, 1, 1),
    Conv2dSpec(1, 17, 17, 768, 192, 1, 1),
]


DYNAMIC = [DynamicDenseSpec((128, 256), 256), DynamicDenseSpec((1, 256), 256), DynamicDenseSpec((3, 30, 64), 100)]


def assembly(compile_specs, spec: Any, isa: str = ISA) -> str:
    return compile_specs(select(isa, spec), [spec]).mod.inspect_source("asm")


def inner_loops(text: str, instruction: str) -> list[list[str]]:
    """Returns the instructions of every loop of one basic block that has dot products."""
    found = []
    for block in re.split(r"^(?=\.LBB\d+_\d+:)", text, flags=re.M)[1:]:
        label = block[: block.index(":")]
        code = [line.strip() for line in block.splitlines()[1:] if line.startswith("\t") and not line.startswith("\t.")]
        jumps = [i for i, line in enumerate(code) if re.match(r"j\w+\s", line)]
        if jumps and code[jumps[0]].split()[-1] == label and instruction in block:
            found.append(code[: jumps[0]])
    return found


@pytest.mark.parametrize(("isa", "pair_sums"), DOTS, ids=lambda value: value)
@pytest.mark.parametrize("spec", SHAPES, ids=lambda spec: f"{spec.in_h}x{spec.in_channels}-{spec.kernel_h}")
def test_inner_loop_is_dot_products_without_spills(spec: Conv2dSpec, isa, pair_sums, target_assembly) -> None:
    spec = replace(spec, pair_sums=pair_sums)
    kernel = select(isa, spec)
    _check_loops(isa, spec, target_assembly(isa, kernel.build(spec)))


@pytest.mark.parametrize("spec", DYNAMIC, ids=lambda spec: f"{spec.shape}-{spec.out_features}")
def test_inner_loop_with_a_run_time_zero_point_is_no_other(spec: DynamicDenseSpec, compile_specs) -> None:
    _check_loops(ISA, spec.as_conv2d(), assembly(compile_specs, spec))


REQUANTIZING = 40
"""Most instructions for four vectors: four each, seven to pack and clamp them, stores and addresses."""


def _check_loops(isa: str, spec: Conv2dSpec, text: str) -> None:
    """Checks that the loops over the reduction hold the dots of a register tile and nothing but what feeds them."""
    instructions = DOTS[isa, spec.pair_sums]
    loops = inner_loops(text, instructions[0])
    assert loops
    plan = plan_for(BY_NAME[isa], spec)
    vectors = [count for count in (plan.vectors, plan.rest_vectors) if count]
    sizes = {pixels * count for pixels, _ in plan.tiling.shapes for count in vectors}
    register = "%ymm" if BY_NAME[isa].LANES == 8 else "%zmm"
    for loop in loops:
        dots = [line for line in loop if line.removeprefix("{vex}").strip().startswith(instructions)]
        for instruction in instructions:
            count = sum(instruction in line for line in dots)
            # LLVM may unroll a step
            assert any(count % size == 0 for size in sizes), (instruction, count, sizes)
        assert all(register in line for line in dots)
        requantizes = any("vcvtdq2ps" in line for line in loop)
        assert plan.interleaves or not requantizes
        # four vectors of the last tile, requantized among the dots, read constants from the stack; sums stay in place
        stack = [line for line in loop if "%rsp" in line]
        assert not [line for line in stack if line.rstrip().endswith("(%rsp)") or line in dots]
        assert requantizes or not stack
        # counting, and the addresses of prefetches
        others = [line for line in loop if line not in dots and not re.match(WEIGHTS, line)]
        assert len(others) <= (12 + REQUANTIZING if requantizes else 12)


@pytest.mark.parametrize("channels", [4, 8])
def test_small_groups_take_a_read_of_a_quarter_and_no_product_with_zeros(channels: int, compile_specs) -> None:
    spec = Conv2dSpec(1, 56, 56, 256, 256, 3, 3, padding=(1, 1, 1, 1), groups=256 // channels)
    loops = inner_loops(assembly(compile_specs, spec), "vpdpbusd")
    assert loops
    sizes = {pixels for pixels, _ in plan_for(BY_NAME[ISA], spec).tiling.shapes}
    for loop in loops:
        reads = sum("vbroadcasti32x4" in line for line in loop)
        products = sum(line.startswith("vpdpbusd") for line in loop)
        assert any(reads % pixels == 0 for pixels in sizes)
        assert products == reads * channels // 4
        assert not [line for line in loop if "%rsp" in line]
        assert len(loop) - reads - products <= 2 * products + 4, "loads of weights, and counting"


def test_a_residual_is_added_among_the_dots(compile_specs) -> None:
    spec = Conv2dAddSpec(1, 28, 28, 64, 256, 1, 1)
    (loop,) = [loop for loop in inner_loops(assembly(compile_specs, spec), "vpdpbusd") if "vcvtps2dq" in " ".join(loop)]
    pixels, vectors = plan_for(BY_NAME[ISA], spec).tiling.tile_w, plan_for(BY_NAME[ISA], spec).vectors
    # one of as many parts as pixels, each with its share of the dots
    assert sum(line.startswith("vpdpbusd") for line in loop) == spec.in_channels // 4 * vectors
    assert sum(line.startswith("vcvtps2dq") for line in loop) == vectors
    assert sum(line.startswith("vpshufb") for line in loop) == vectors
    assert pixels > 1
    # constants lie on the stack, sums do not
    assert not [line for line in loop if line.rstrip().endswith("(%rsp)")]


@pytest.mark.parametrize("spec", SHAPES[:2], ids=lambda spec: f"{spec.in_h}x{spec.in_channels}-{spec.kernel_h}")
def test_avxvnni_is_encoded_without_avx512(spec: Conv2dSpec, target_assembly) -> None:
    text = target_assembly("x86-avxvnni", select("x86-avxvnni", spec).build(spec))
    dots = re.findall(r"^\t(.*vpdpbusd.*)$", text, flags=re.M)
    assert dots
    assert all(dot.startswith("{vex}") and "%ymm" in dot for dot in dots)
    # the registers that only AVX-512 can name
    assert not re.search(r"%[xy]mm(1[6-9]|2\d|3[01])|%zmm|%k\d", text)


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
