"""The loop nest of convolutions under plans that the planner need not choose on this machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qtorch_relay.kernels import conv2d, conv2d_pack
from qtorch_relay.kernels.conv2d_plan import Conv2dPlan, make_plan, plan_conv2d, tile_options
from qtorch_relay.kernels.conv2d_tiling import DotUnit
from qtorch_relay.kernels.spec import Conv2dSpec
from qtorch_relay.kernels.table import KERNELS, Kernel, select

UNIT = DotUnit(16, 32)
PADDED = Conv2dSpec(2, 8, 4, 6, 104, 3, 3, padding=(1, 0, 1, 2))
DIRECT = Conv2dSpec(2, 5, 7, 6, 104, 2, 3)
POINTWISE = Conv2dSpec(1, 5, 7, 6, 104, 1, 1)
GROUPED = Conv2dSpec(1, 5, 7, 12, 120, 3, 3, padding=(1, 1, 1, 1), groups=3, requantize="real")


def plans(spec: Conv2dSpec) -> list[Conv2dPlan]:
    """Returns a third of all tiles, cut into chunks in different ways."""
    found = []
    for index, option in enumerate(tile_options(spec, UNIT)):
        plan = make_plan(spec, UNIT, *option)
        units = plan.groups.count if plan.groups.count > 1 else plan.blocks
        if index % 3 == 0:
            bands = min(1 + index // 3 % 3, plan.tiling.groups)
            found.append(replace(plan, bands=bands, channel_parts=max(1, min(1 + index % 2, units))))
    return found


@pytest.mark.parametrize("spec", [PADDED, DIRECT, POINTWISE, GROUPED], ids=["padded", "direct", "pointwise", "grouped"])
def test_every_tile_gives_the_same_codes(spec: Conv2dSpec, monkeypatch, compile_specs, run_kernel) -> None:
    kernel = select("x86-avx512vnni", spec)
    inputs, constants = kernel.arguments(spec, 1, False)
    expected = kernel.reference(spec, *inputs, *constants)
    candidates = plans(spec)
    built = []
    for plan in candidates:
        monkeypatch.setattr(conv2d, "plan_for", lambda *_, plan=plan: plan)
        monkeypatch.setattr(conv2d_pack, "plan_for", lambda *_, plan=plan: plan)
        built.append((kernel.build(spec), kernel.pack(spec, *constants)))
    compiled = compile_specs(replace(kernel, build=lambda i: built[i][0]), range(len(built)))
    for i, (plan, (_, packed)) in enumerate(zip(candidates, built, strict=True)):
        actual = run_kernel(compiled[f"k{i}"], [*inputs, *packed], np.zeros_like(expected))
        np.testing.assert_array_equal(actual, expected, err_msg=str(plan))


def test_plans_tried_reach_every_branch_of_the_loop_nest() -> None:
    tried = [plan for spec in (PADDED, DIRECT, POINTWISE, GROUPED) for plan in plans(spec)]
    branches = {
        "rest of a row": [plan.tiling.column_rest for plan in tried],
        "last rows": [plan.tiling.last and not plan.tiling.flat for plan in tried],
        "last of a sequence": [plan.tiling.last and plan.tiling.flat for plan in tried],
        "last rows in bands": [plan.tiling.last and plan.bands > 1 and plan.copies_input for plan in tried],
        "rest of the channels": [plan.rest_vectors and plan.blocks and plan.channel_parts > 1 for plan in tried],
        "several rows in a tile": [plan.tiling.tile_h > 1 for plan in tried],
        "groups in parts": [plan.groups.count > 1 and plan.channel_parts > 1 for plan in tried],
        "uneven bands": [plan.tiling.groups % plan.bands for plan in tried],
    }
    assert [name for name, reached in branches.items() if not any(reached)] == []


def test_tiles_fit_the_registers() -> None:
    conv_kernels = [kernel for kernel in KERNELS if kernel.name.startswith("conv2d")]
    for spec in (spec for kernel in conv_kernels for spec in kernel.cases):
        plan = plan_conv2d(spec, UNIT)
        for pixels, _ in plan.tiling.shapes:
            assert pixels * plan.vectors + plan.vectors + 1 <= UNIT.registers


def test_equal_plans_for_equal_specs() -> None:
    kernel: Kernel = select("x86-avx512vnni", PADDED)
    assert kernel.build(PADDED).script() == kernel.build(replace(PADDED)).script()
