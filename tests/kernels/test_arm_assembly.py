"""What LLVM makes of the ARM kernels: inner loops are dot products by element and their loads, and use no stack."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.arm_issue import MACS, assembly, inner_loops, macs_of, on_stack
from qtorch_relay.kernels.pointwise_spec import AddSpec, LookupSpec
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec

CONV3X3 = Conv2dSpec(1, 14, 14, 256, 256, 3, 3, padding=(1, 1, 1, 1))
SPECS = {
    "3x3": CONV3X3,
    "1x1": Conv2dSpec(1, 14, 14, 256, 256, 1, 1),
    "dense": DenseSpec(64, 256, 512),
}
LOADS_AND_SHUFFLES = ("ldr", "ldur", "ldp", "ld1r", "tbl", "zip1", "zip2")
COUNTING = ("add", "adds", "sub", "subs", "cmp", "mov", "csel", "orr", "lsl", "madd")


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(
    ("isa", "cpu", "pair_sums", "products", "macs_per_instruction"),
    [
        ("arm-neon", "cortex-a53", "s16", {"smull", "smlal2"}, 4.3),
        ("arm-neon", "cortex-a53", "s32", {"smull", "smull2"}, 3.4),
        ("arm-neon", "cortex-a72", "s16", {"smull", "smlal2"}, 4.3),
        ("arm-dotprod", "cortex-a76", "s32", {"sdot"}, 12.5),
        ("arm-dotprod", "cortex-a55", "s32", {"sdot"}, 10.5),
        ("arm-dotprod", "neoverse-n1", "s32", {"sdot"}, 12.5),
        ("arm-i8mm", "neoverse-v1", "s32", {"usmmla"}, 20.0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inner_loops_are_dot_products(
    spec: Any, isa: str, cpu: str, pair_sums: str, products: set[str], macs_per_instruction: float
) -> None:
    loops = inner_loops(assembly(isa, cpu, replace(spec, pair_sums=pair_sums)))
    assert loops
    for loop in loops:
        names = [line.split()[0] for line in loop]
        assert {name for name in names if name in MACS} == products
        assert set(names) <= {*products, "sadalp", *LOADS_AND_SHUFFLES, *COUNTING}
        assert on_stack(loop) == 0
    largest = max(loops, key=macs_of)
    assert macs_of(largest) / len(largest) >= macs_per_instruction
    if isa == "arm-dotprod":
        assert all(re.search(r"\.4b\[[0-3]\]$", line) for line in largest if line.split()[0] in MACS)


def test_one_row_and_odd_channels_are_left_to_dot_products_of_one_pixel() -> None:
    for spec in (DenseSpec(1, 256, 512), Conv2dSpec(1, 14, 14, 12, 256, 1, 1)):
        names = {line.split()[0] for loop in inner_loops(assembly("arm-i8mm", "neoverse-v1", spec)) for line in loop}
        assert "usmmla" not in names
        assert names & {"usdot", "sudot"}


@pytest.mark.parametrize(("isa", "cpu"), [("arm-dotprod", "neoverse-v1"), ("arm-i8mm", "neoverse-v1")])
def test_weights_of_depthwise_windows_stay_in_registers(isa: str, cpu: str) -> None:
    spec = Conv2dSpec(1, 28, 28, 192, 192, 3, 3, padding=(1, 1, 1, 1), groups=192)
    assert on_stack(max(inner_loops(assembly(isa, cpu, spec)), key=macs_of)) == 0


def test_the_a55_loads_one_register_at_a_time() -> None:
    loops = inner_loops(assembly("arm-dotprod", "cortex-a55", CONV3X3))
    assert loops
    assert not any(re.match(r"ldp\s+q", line) for loop in loops for line in loop)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_a55_loads_from_an_address_and_an_offset_in_registers(spec: Any) -> None:
    largest = max(inner_loops(assembly("arm-dotprod", "cortex-a55", spec)), key=macs_of)
    loads = [line for line in largest if line.startswith("ld")]
    assert all(re.fullmatch(r"ldr\s+[dq]\d+, \[x\d+, x\d+\]", line) for line in loads)
    counting = [line for line in largest if line.split()[0] in COUNTING]
    assert len(counting) <= len(loads) / 3


@pytest.mark.parametrize(
    ("kind", "fused"), [("accumulator", False), ("real", False), ("fused", True)], ids=lambda value: str(value)
)
def test_products_and_sums_are_fused_only_where_the_formula_says_so(kind: Any, fused: bool) -> None:
    for groups in (1, 64):
        spec = Conv2dSpec(1, 7, 7, 64, 64, 3, 3, groups=groups, requantize=kind)
        text = assembly("arm-dotprod", "cortex-a76", spec)
        assert bool(re.search(r"\tf(mla|mls|madd|msub|nmadd|nmsub)\s", text)) == fused


def test_values_are_rounded_to_even_whatever_the_mode() -> None:
    text = assembly("arm-dotprod", "cortex-a76", AddSpec((1000,)))
    assert re.search(r"\tfcvtns\s+v\d+\.4s", text)
    assert not re.search(r"\tfcvt(zs|as|ms|ps)\s+v", text)


def test_tables_are_looked_up_64_bytes_at_a_time() -> None:
    text = assembly("arm-neon", "cortex-a53", LookupSpec((1000,)))
    assert len(re.findall(r"\ttb[lx]\s+v\d+\.16b, \{ v\d+\.16b, v\d+\.16b, v\d+\.16b, v\d+\.16b \}", text)) >= 4
