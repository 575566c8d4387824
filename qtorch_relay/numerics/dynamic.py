"""What PyTorch 2.13 computes for dynamically quantized ops, in numpy, to the bit: parameters, codes and real outputs.

Parameters are chosen from a tensor's least and greatest value when the op runs. The engines share that choice and
differ in how they round codes and outputs; each function says how.
An infinite input gives the scale inf and what follows from it. PyTorch's search for the least value skips a NaN or
not depending on where it stands, and raises if it is kept: for NaN there is nothing to equal.
Sources are paths in PyTorch's aten/src/ATen/native/quantized/cpu unless another repository is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.engine_constants import kernel_factors
from qtorch_relay.numerics.core import Codes, Floats, fma_f32, saturate

F32 = np.float32
SMALL_SCALE = F32(6.1e-5)  # QuantUtils.h SMALL_SCALE_THRESHOLD
INT32_MIN = -(2**31)


@dataclass(frozen=True)
class DynamicParams:
    """The scale as the engine's kernels use it (float32), and the zero point."""

    scale: np.float32
    zero_point: int


def choose_scale(low: np.float32, high: np.float32, quant_min: int, quant_max: int) -> tuple[float, int]:
    """Returns the scale (float64) and zero point for values from low to high, without preserve_sparsity.

    The range is extended to hold 0. A scale of 0, or one whose reciprocal overflows, becomes 0.1; one below 6.1e-5
    becomes that, and the range grows with it. The zero point is computed from the end with the smaller error; where
    it is NaN (a range that reaches inf), it is the number that x86 converts NaN to.
    Source: QuantUtils.h ChooseQuantizationParams.
    """
    low, high, steps = np.minimum(F32(low), F32(0)), np.maximum(F32(high), F32(0)), quant_max - quant_min
    with np.errstate(all="ignore"):
        scale = (np.float64(high) - np.float64(low)) / steps
        if F32(scale) == 0 or np.isinf(F32(1) / F32(scale)):
            scale = np.float64(0.1)
        if scale < SMALL_SCALE:
            amplifier = SMALL_SCALE / F32(scale)
            scale = np.float64(SMALL_SCALE)
            if low == 0:
                high = SMALL_SCALE * F32(steps)
            elif high == 0:
                low = -SMALL_SCALE * F32(steps)
            else:
                low, high = low * amplifier, high * amplifier
        below, above = np.float64(low) / scale, np.float64(high) / scale
        if abs(quant_min) - abs(below) < abs(quant_max) - abs(above):
            zero_point = quant_min - below
        else:
            zero_point = quant_max - above
        if np.isnan(zero_point):
            return float(scale), INT32_MIN
        return float(scale), int(np.rint(np.clip(zero_point, quant_min, quant_max)))


def choose_params(x: npt.ArrayLike, engine: str, reduce_range: bool) -> DynamicParams:
    """Returns the parameters an engine's dynamic ops choose for a float32 tensor, codes uint8.

    reduce_range halves the greatest code to 127; qnnpack ignores it (PyTorch warns of that).
    onednn takes its scale as a reciprocal of float64, rounded, and inverts it again in float32.
    Source: qlinear_dynamic.cpp; ideep matmul.hpp.
    """
    values = np.asarray(x, F32)
    low, high = (values.min(), values.max()) if values.size else (F32(0), F32(0))
    scale, zero_point = choose_scale(low, high, 0, greatest_code(engine, reduce_range))
    with np.errstate(all="ignore"):
        return DynamicParams(F32(1) / F32(1 / scale) if engine == "onednn" else F32(scale), zero_point)


def greatest_code(engine: str, reduce_range: bool) -> int:
    """Returns the code that the greatest value gets."""
    return 127 if reduce_range and engine != "qnnpack" else 255


def quantize_dynamic(x: npt.ArrayLike, params: DynamicParams, engine: str, dtype: str = "uint8") -> Codes:
    """Returns the codes an engine's dynamic ops compute with: x * (1 / scale) + zero_point, rounded half to even.

    fbgemm and qnnpack fuse the multiply-add, onednn rounds the product.
    Source: FBGEMM src/QuantUtilsAvx2.cc QuantizeAvx2 (with LEGACY); oneDNN's reorder from f32 to u8.
    """
    values, zero_point = np.asarray(x, F32), F32(params.zero_point)
    with np.errstate(all="ignore"):
        inverse_scale = F32(1) / params.scale
        if engine == "onednn":
            return saturate(np.rint(values * inverse_scale + zero_point), dtype)
        return saturate(np.rint(fma_f32(values, inverse_scale, zero_point)), dtype)


def dequantize_sums(
    sums: npt.NDArray[np.int32],
    params: DynamicParams,
    weight_scales: Any,
    bias: Floats | None,
    engine: str,
    kind: str = "linear",
) -> Floats:
    """Returns the real values of int32 sums [..., N]: scale * weight_scale * sum + bias in the engine's order.

    fbgemm: fma(sum, scale * weight_scale, bias). qnnpack: the same with the product rounded. onednn: one scale after
    the other, each rounded. weight_scales: float64, 0-dimensional or [N].
    Source: FBGEMM src/QuantUtilsAvx2.cc requantizeForFloatAvx2 (its compiler fuses the multiply-add);
    qnnpack/src/q8gemm pytorch_q8gemm_dq_ukernel_*; oneDNN's matmul.
    """
    arithmetic = {"onednn": "real", "qnnpack": "rounded"}.get(engine, "fused")
    addend = np.zeros(1, F32) if bias is None else bias
    return scale_sums(sums, params.scale, kernel_factors(engine, kind, weight_scales), addend, arithmetic)


def scale_sums(sums: npt.NDArray[np.int32], scale: np.float32, factors: Any, addend: Floats, arithmetic: str) -> Floats:
    """Returns sums [..., N] as real values: "fused" fma(sum, scale * factor, addend); "rounded" the same with the
    product rounded; "real" scaled by one factor after the other, each rounded."""
    real = sums.astype(F32)
    with np.errstate(all="ignore"):
        if arithmetic == "real":
            return (real * scale) * factors + addend
        if arithmetic == "rounded":
            return real * (scale * factors) + addend
        return fma_f32(real, scale * factors, addend)
