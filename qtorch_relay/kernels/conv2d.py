"""Quantized 2-D convolutions and dense layers."""

from __future__ import annotations

from functools import partial

from qtorch_relay._tvm import PrimFunc
from qtorch_relay.kernels.conv2d_groups import SmallGroupsNest
from qtorch_relay.kernels.conv2d_in_order import InOrderNest
from qtorch_relay.kernels.conv2d_nest import Conv2dNest
from qtorch_relay.kernels.conv2d_pairs import PairNest
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES, Conv2dPlan, SmallGroupsReduction, plan_for
from qtorch_relay.kernels.conv2d_tiles import TileNest
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.product import product_func
from qtorch_relay.kernels.requantize import Epilogue
from qtorch_relay.kernels.spec import Conv2dAddSpec, Conv2dSpec, DenseSpec
from qtorch_relay.kernels.tir import Buffer, load

MAX_REDUCTION = 65_793
"""Most products of one output: (2^31 - 1) / (255 * 128), so no accumulator leaves int32."""


def why_not_conv2d(spec: Conv2dSpec | DenseSpec) -> str | None:
    """Returns why these kernels do not take a spec, or None."""
    if spec.reduction > MAX_REDUCTION:
        return f"{spec.reduction} products could overflow int32; accepted are at most {MAX_REDUCTION}"
    return None


RESIDUAL_CHANNELS = 16
"""A residual is read in whole vectors, of 16 channels at most."""


def why_not_conv2d_add(spec: Conv2dAddSpec) -> str | None:
    """Returns why these kernels do not add to a convolution, or None."""
    if spec.groups > 1 or spec.out_channels % RESIDUAL_CHANNELS:
        return f"it adds to groups, or not to a multiple of {RESIDUAL_CHANNELS} channels"
    return why_not_conv2d(spec)


def nest_for(isa: Isa, plan: Conv2dPlan) -> type[Conv2dNest]:
    """Returns the loop nest of an instruction set for a plan."""
    if plan.in_pairs:
        return PairNest
    if isinstance(plan.reduction, SmallGroupsReduction):
        return SmallGroupsNest
    if isa.places_loads:
        return InOrderNest
    return Conv2dNest if isa.tiles is None else TileNest


def build_conv2d(isa: Isa, spec: Conv2dSpec) -> PrimFunc:
    """Returns conv2d(x, weight, init, requantize constants, out); see pack_conv2d for the constants."""
    return _build("conv2d", isa, spec, spec)


def build_dense(isa: Isa, spec: DenseSpec) -> PrimFunc:
    """Returns dense(x, weight, init, requantize constants, out): a 1x1 convolution over one row of pixels."""
    return _build("dense", isa, spec, spec.as_conv2d())


def _build(name: str, isa: Isa, interface: Conv2dSpec | DenseSpec, spec: Conv2dSpec) -> PrimFunc:
    """Returns the kernel of a convolution with the shapes of interface."""
    plan = plan_for(isa, spec)
    lanes = plan.padded_vectors * isa.LANES

    def emit(x: Buffer, weight: Buffer, init: Buffer, epilogue: Epilogue, out: Buffer) -> None:
        start = partial(load, init, lanes=isa.LANES)
        nest_for(isa, plan)(spec, plan, isa, x, weight, start, epilogue, out).emit()

    return product_func(name, isa, interface, lanes, plan.reduction.dots * DOT_BYTES, emit)
