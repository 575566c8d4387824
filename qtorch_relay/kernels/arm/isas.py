"""The instruction sets of 64-bit ARM that kernels are written for."""

from __future__ import annotations

from qtorch_relay.kernels.arm.dots import Sdot, SdotHalfLoads, Usdot, Usmmla, WidenedPairs
from qtorch_relay.kernels.arm.vectors import Neon

_SDOT, _SDOT_HALF_LOADS, _USDOT = Sdot(), SdotHalfLoads(), Usdot()

NEON = Neon("arm-neon", {"s16": WidenedPairs(in_s16=True), "s32": WidenedPairs(in_s16=False)})
DOTPROD = Neon("arm-dotprod", {"s16": _SDOT, "s32": _SDOT})
DOTPROD_IN_ORDER = Neon("arm-dotprod-in-order", {"s16": _SDOT_HALF_LOADS, "s32": _SDOT_HALF_LOADS}, places_loads=True)
I8MM = Neon("arm-i8mm", {"s16": _USDOT, "s32": _USDOT}, Usmmla())
