"""Kernels on tile registers: their arithmetic with simulated tiles on this host, their instructions in the assembly."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from qtorch_relay.kernels.conv2d import build_conv2d, build_dense
from qtorch_relay.kernels.dense_dynamic import build_dynamic_dense
from qtorch_relay.kernels.dynamic_spec import DynamicDenseSpec
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec
from qtorch_relay.kernels.table import KERNELS, Kernel, select
from qtorch_relay.kernels.x86.isas import AMX
from tests.kernels.tile_simulation import SimulatedTiles

BUILD = {Conv2dSpec: build_conv2d, DenseSpec: build_dense, DynamicDenseSpec: build_dynamic_dense}
ROWS = [kernel for kernel in KERNELS if kernel.isa == AMX.NAME]


def _simulated(kernel: Kernel) -> Kernel:
    """Returns a kernel with simulated tiles; vectors are those of AVX-512 VNNI, which AMX machines have."""
    isa = replace(AMX, tiles=SimulatedTiles())
    return replace(kernel, isa="x86-avx512vnni", build=partial(BUILD[kernel.spec], isa))


def test_convolutions_and_dense_layers_are_computed_in_tiles() -> None:
    assert {kernel.spec for kernel in ROWS} == set(BUILD)
    assert select("x86-amx", Conv2dSpec(1, 7, 7, 32, 32, 3, 3, groups=32)).isa == "x86-avx512vnni"
    assert select("x86-amx", DenseSpec(1, 64, 64)).isa == "x86-amx"


@pytest.mark.parametrize("kernel", ROWS, ids=lambda kernel: kernel.name)
def test_simulated_tiles_give_the_reference(kernel: Kernel, compile_specs, run_kernel) -> None:
    compiled = compile_specs(_simulated(kernel), kernel.cases)
    for index, spec in enumerate(kernel.cases):
        for extreme in (False, True):
            inputs, constants = kernel.arguments(spec, index, extreme)
            expected = kernel.reference(spec, *inputs, *constants)
            packed = kernel.pack(spec, *constants)
            actual = run_kernel(compiled[f"k{index}"], [*inputs, *packed], np.zeros_like(expected))
            np.testing.assert_array_equal(actual, expected, err_msg=str(spec))


SPECS = [
    Conv2dSpec(1, 14, 14, 256, 256, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 224, 224, 3, 64, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3)),
    Conv2dSpec(1, 28, 28, 128, 512, 1, 1),
    DenseSpec(64, 512, 1000),
    DynamicDenseSpec((128, 256), 256),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{type(spec).__name__}-{spec.weight_shape}")
def test_the_reduction_is_tdpbusd_on_configured_tiles(spec: Any, target_assembly) -> None:
    code = target_assembly("x86-amx", select("x86-amx", spec).build(spec))
    instructions = re.findall(r"^\t(ldtilecfg|tilerelease|tileloadd|tilestored|tdpbusd)\b(.*)$", code, flags=re.M)
    names = [name for name, _ in instructions]
    assert names.count("ldtilecfg") == names.count("tilerelease") >= 1
    assert "vpdpbusd" not in code
    dots = [operands.split(", ") for name, operands in instructions if name == "tdpbusd"]
    assert dots
    for weights, activations, sums in (tuple(operand.strip() for operand in dot) for dot in dots):
        assert weights in ("%tmm6", "%tmm7")
        assert activations in ("%tmm4", "%tmm5")
        assert sums in ("%tmm0", "%tmm1", "%tmm2", "%tmm3")


def test_a_loop_of_full_blocks_has_as_many_products_as_loads(target_assembly) -> None:
    spec = Conv2dSpec(1, 32, 32, 2048, 64, 1, 1)
    code = target_assembly("x86-amx", select("x86-amx", spec).build(spec))
    loops = re.split(r"^(?=\.LBB\d+_\d+:)", code, flags=re.M)
    found = [re.findall(r"^\t(tdpbusd|tileloadd)", loop, flags=re.M) for loop in loops if "tdpbusd" in loop]
    assert any(names.count("tileloadd") == names.count("tdpbusd") for names in found)
