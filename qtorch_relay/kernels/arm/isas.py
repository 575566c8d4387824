"""The instruction sets of 64-bit ARM that kernels are written for."""

from __future__ import annotations

from qtorch_relay.kernels.arm.dots import Sdot, Usdot, Usmmla, WidenedPairs
from qtorch_relay.kernels.arm.vectors import Neon

_SDOT, _USDOT = Sdot(), Usdot()

NEON = Neon("arm-neon", {"s16": WidenedPairs(in_s16=True), "s32": WidenedPairs(in_s16=False)})
DOTPROD = Neon("arm-dotprod", {"s16": _SDOT, "s32": _SDOT})
I8MM = Neon("arm-i8mm", {"s16": _USDOT, "s32": _USDOT}, Usmmla())
