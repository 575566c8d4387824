"""The instruction sets of x86 that kernels are written for."""

from __future__ import annotations

from qtorch_relay.kernels.x86.amx import AmxTiles
from qtorch_relay.kernels.x86.dots import PairsInS16, Tdpbusd, Vnni, WidenedPairs
from qtorch_relay.kernels.x86.vectors import Vectors256, Vectors512

AVX2 = Vectors256("x86-avx2", 8, 16, {"s16": PairsInS16(8), "s32": WidenedPairs(8)})
AVXVNNI = Vectors256("x86-avxvnni", 8, 16, {"s16": Vnni(8), "s32": Vnni(8)})
AVX512 = Vectors512("x86-avx512", 16, 32, {"s16": PairsInS16(16), "s32": WidenedPairs(16)})
AVX512VNNI = Vectors512("x86-avx512vnni", 16, 32, {"s16": Vnni(16), "s32": Vnni(16)})
AMX = Vectors512("x86-amx", 16, 32, {"s16": Tdpbusd(16), "s32": Tdpbusd(16)}, AmxTiles())
