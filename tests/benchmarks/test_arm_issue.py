"""What Arm's guide says of a loop on the Cortex-A55, whose kernels a CPU is measured with, and what is told of both."""

from __future__ import annotations

import pytest

from benchmarks.arm_issue import Row, cycles_by_guide, kernels_of, to_markdown

SDOT = "sdot\tv0.4s, v1.16b, v2.4b[0]"
NARROW, WIDE, PAIR, ADD = "ldr\td3, [x1, x2]", "ldr\tq3, [x1, x2]", "ldp\tq3, q4, [x1]", "add\tx1, x1, #16"


@pytest.mark.parametrize(
    ("code", "cycles"),
    [
        ([SDOT] * 4, 4),
        ([SDOT, NARROW] * 4, 4),
        ([SDOT, WIDE] * 4, 12),
        ([SDOT, PAIR] * 2, 10),
        ([SDOT, NARROW, ADD, ADD] * 2, 4),
        (["stp\tq1, q2, [sp, #16]", "str\td1, [x2]", "stur\tb0, [x1]"], 5),
    ],
    ids=["products", "64 bits", "128 bits", "pairs", "additions", "stores"],
)
def test_the_width_of_loads_counts(code: list[str], cycles: float) -> None:
    assert cycles_by_guide(code) == cycles


@pytest.mark.parametrize(
    ("isa", "cpu", "kernels"),
    [
        ("arm-dotprod", "cortex-a55", "arm-dotprod-in-order"),
        ("arm-neon", "cortex-a55", "arm-neon"),
        ("arm-dotprod", "neoverse-v1", "arm-dotprod"),
        ("arm-i8mm", "neoverse-v1", "arm-i8mm"),
    ],
)
def test_kernels_are_those_of_the_cpu_if_it_has_its_own(isa: str, cpu: str, kernels: str) -> None:
    assert kernels_of(isa, cpu) == kernels


def test_what_a_guide_says_stands_below_the_table() -> None:
    row = Row("arm-dotprod", "cortex-a55", "conv", "sdot", 64, 5, 5.0, 12.8, 16.0, "dot products", 0.8, 0)
    assert "guide" not in to_markdown([row], "a model")
    told = Row("arm-dotprod", "cortex-a55", "conv", "sdot", 64, 5, 5.0, 12.8, 16.0, "dot products", 0.8, 0, 8.0)
    assert "\n- arm-dotprod conv 50%\n" in to_markdown([told], "a model")
