"""The float32 constants that PyTorch's engines make from scales and biases, in their order of operations.

The engines agree on the mathematics and differ in rounding: which factors are multiplied first, which are divided by
and which
are multiplied by a reciprocal, and where a fused multiply-add is used. These functions reproduce the constants to the
bit;
numerics/core.py has the formulas that use them. PyTorch holds scales as float64 and converts some to float32 before it
divides, some
after. Sources are PyTorch 2.13, FBGEMM and oneDNN 3.12, named at each function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import EngineError, UnsupportedQuantSchemeError
from qtorch_relay.qparams import PerChannel, PerTensor

F32 = np.float32
Vector = npt.NDArray[np.float32]

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")


@dataclass(frozen=True, eq=False)
class AccumulatorFactors:
    """clamp(rne(fma(addend, addend_factor, float(acc + integer_bias)) * multiplier) + zero_point): fbgemm, qnnpack."""

    addend: Vector
    addend_factor: Vector
    multiplier: Vector
    integer_bias: npt.NDArray[np.int32] | None

    def operands(self) -> dict[str, Vector]:
        """The operands of qnn.requantize with arithmetic "accumulator"."""
        return {"addend": self.addend, "addend_factor": self.addend_factor, "multiplier": self.multiplier}


@dataclass(frozen=True, eq=False)
class RealFactors:
    """clamp(rne((float(acc) * input_factor * kernel_factor + addend) * output_factor + zero_point)): onednn."""

    input_factor: Vector
    kernel_factor: Vector
    addend: Vector
    output_factor: Vector

    def operands(self) -> dict[str, Vector]:
        """The operands of qnn.requantize with arithmetic "real"."""
        return {
            "input_factor": self.input_factor,
            "kernel_factor": self.kernel_factor,
            "addend": self.addend,
            "output_factor": self.output_factor,
        }


def requantize_factors(
    engine: str,
    kind: str,
    input_scale: float,
    weight_scales: Any,
    output_scale: float,
    bias: Vector | None,
    channels: int,
) -> AccumulatorFactors | RealFactors:
    """Returns an engine's constants for a convolution (kind "conv") or a linear layer (kind "linear").

    weight_scales: float64, 0-dimensional for per-tensor weights, [channels] for per-channel ones. bias: [channels] or
    None.
    Raises: EngineError for an engine without requantization of its own ("x86" is resolved by resolve_x86 before).
    """
    weight = np.atleast_1d(np.asarray(weight_scales, np.float64))
    per_channel = np.ndim(weight_scales) == 1
    addend = np.zeros(channels, F32) if bias is None else bias.astype(F32)
    if engine == "fbgemm":
        return _fbgemm(input_scale, weight, output_scale, addend, per_channel)
    if engine == "onednn":
        return _onednn(kind, input_scale, weight, output_scale, addend, per_channel)
    if engine == "qnnpack":
        return _qnnpack(input_scale, weight, output_scale, None if bias is None else addend, channels)
    raise EngineError(f"engine '{engine}' has no requantization; accepted are fbgemm, onednn, qnnpack")


def _fbgemm(
    input_scale: float, weight: npt.NDArray[np.float64], output_scale: float, bias: Vector, per_channel: bool
) -> AccumulatorFactors:
    """Per channel: bias / aw is divided; per tensor: bias * (1 / aw) is fused into the addition by FBGEMM's compiler.

    Source: FBGEMM src/QuantUtilsAvx2.cc requantizeOutputProcessingAvx2; PyTorch quantized/cpu/qconv.cpp
    (act_times_w_scale, output_multiplier_float).
    """
    accumulator_scale = F32(input_scale) * weight.astype(F32)
    multiplier = accumulator_scale / F32(output_scale)
    if per_channel:
        return AccumulatorFactors(bias / accumulator_scale, np.ones(1, F32), multiplier, None)
    return AccumulatorFactors(bias, F32(1) / accumulator_scale, multiplier, None)


def _onednn(
    kind: str,
    input_scale: float,
    weight: npt.NDArray[np.float64],
    output_scale: float,
    bias: Vector,
    per_channel: bool,
) -> RealFactors:
    """Scales pass through reciprocals on the way to oneDNN: 1 / scale in float64, rounded, inverted again in float32.

    Source: PyTorch quantized/cpu/qconv.cpp, qlinear.cpp, qlinear_prepack.cpp; ideep conv.hpp, matmul.hpp.
    """
    return RealFactors(
        np.atleast_1d(F32(1) / F32(1 / input_scale)),
        _onednn_kernel_factors(kind, weight, per_channel),
        bias,
        np.atleast_1d(F32(1) / (F32(1) / F32(1 / output_scale))),
    )


def _onednn_kernel_factors(kind: str, weight: npt.NDArray[np.float64], per_channel: bool) -> Vector:
    if kind == "conv":
        return weight.astype(F32)
    if per_channel:
        return F32(1) / (F32(1) / weight.astype(F32))
    return F32(1) / (1 / weight).astype(F32)


def kernel_factors(engine: str, kind: str, weight_scales: Any) -> Vector:
    """Returns the weight's scales, one or one per channel, as an engine multiplies sums by them in dynamic ops.

    kind: "conv" or "linear". weight_scales as in requantize_factors.
    """
    weight = np.atleast_1d(np.asarray(weight_scales, np.float64))
    if engine == "onednn":
        return _onednn_kernel_factors(kind, weight, np.ndim(weight_scales) == 1)
    return weight.astype(F32)


def sum_factor(scale: float) -> Vector:
    """Returns the factor of what onednn adds to a convolution's real values: its scale, inverted twice in float32.

    Source: PyTorch quantized/cpu/qconv.cpp (accum_scale); ideep conv.hpp.
    """
    return np.atleast_1d(F32(1) / F32(1 / np.float64(F32(scale))))


def _qnnpack(
    input_scale: float, weight: npt.NDArray[np.float64], output_scale: float, bias: Vector | None, channels: int
) -> AccumulatorFactors:
    """The bias becomes int32 codes of scale input * weight; the multiplier uses the reciprocal of the output scale.

    Source: PyTorch quantized/cpu/QnnpackUtils.h generate_requantization_scales, QuantUtils.h QuantizeBias.
    """
    multiplier = (weight.astype(F32) * F32(input_scale)) * (F32(1) / F32(output_scale))
    integer_bias = None
    if bias is not None:
        reciprocal = F32(1) / (input_scale * weight).astype(F32)
        rounded = np.rint(bias * reciprocal).astype(np.float64)
        integer_bias = np.broadcast_to(np.clip(rounded, -(2.0**31), 2.0**31 - 1).astype(np.int32), (channels,))
    zeros = np.zeros(channels, F32)
    return AccumulatorFactors(zeros, np.ones(1, F32), multiplier, integer_bias)


@dataclass(frozen=True)
class FixedPointAddFactors:
    """Multipliers and shift of qnnpack's addition, see numerics.add_fixed_point."""

    lhs_multiplier: int
    rhs_multiplier: int
    shift: int

    def operands(self) -> dict[str, np.int32]:
        """The operands of qnn.add with arithmetic "fixed_point"."""
        return {
            "lhs_multiplier": np.int32(self.lhs_multiplier),
            "rhs_multiplier": np.int32(self.rhs_multiplier),
            "shift": np.int32(self.shift),
        }


def fixed_point_add_factors(lhs_scale: float, rhs_scale: float, output_scale: float) -> FixedPointAddFactors:
    """Returns both scales over the output's as integers of at most 22 bits with one common shift.

    The larger ratio lies in [2**e, 2**(e + 1)); both are multiplied by 2**(21 - e) and rounded half to even.

    Raises: UnsupportedQuantSchemeError unless the larger ratio is in [2**-10, 2**8), where the shift is at most 31;
        PyTorch itself refuses ratios outside [2**-14, 2**8).
    Source: PyTorch quantized/cpu/qnnpack/src/add.c and requantization params
    (pytorch_qnnp_compute_add_quantization_params).
    """
    lhs, rhs = (F32(scale) / F32(output_scale) for scale in (lhs_scale, rhs_scale))
    if not 2.0**-10 <= max(lhs, rhs) < 2.0**8:
        raise UnsupportedQuantSchemeError(
            f"quantized::add on qnnpack with input scales {lhs_scale}, {rhs_scale} and output scale {output_scale}; "
            "the larger input scale must be 2**-10 to 2**8 times the output's"
        )
    exponent = int(np.frexp(max(lhs, rhs))[1]) - 1
    shift = 21 - exponent
    scaled = [int(np.rint(ratio * F32(2.0) ** F32(shift))) for ratio in (lhs, rhs)]
    return FixedPointAddFactors(scaled[0], scaled[1], shift)


def mul_multiplier(lhs_scale: float, rhs_scale: float, output_scale: float) -> np.float32:
    """Returns (sa * sb) * (1 / sy), three float32 roundings, as quantized::mul makes it on every engine.

    Source: PyTorch quantized/cpu/kernels/QuantizedOpKernels.cpp qmul_kernel.
    """
    return F32(F32(F32(lhs_scale) * F32(rhs_scale)) * (F32(1) / F32(output_scale)))


def qnnpack_mean_factor(scale: float, count: int) -> np.float32:
    """Returns qnnpack's factor for the mean of count codes, s / (s * count) in float32.

    Source: PyTorch quantized/cpu/qnnpack/src/average-pooling.c, global-average-pooling.c.
    """
    return F32(F32(scale) / (F32(scale) * F32(count)))


def resolve_x86(
    kind: str, weight: PerTensor | PerChannel, groups: int = 1, output_padding: tuple[int, ...] = ()
) -> str:
    """Returns the engine that "x86" hands a layer to when its parameters are packed, on a CPU with AVX512-VNNI.

    Linear layers always go to fbgemm. Convolutions, transposed or not, go to onednn if every weight zero point is 0,
    groups <= 100 and the output is not padded; on CPUs without AVX512-VNNI PyTorch gives them to fbgemm too, so its own
    codes differ from machine to machine there.
    Source: PyTorch quantized/cpu/qconv_prepack.cpp, qlinear_prepack.cpp, OnednnUtils.h should_use_onednn_quant.
    """
    symmetric = not np.any(weight.zero_point if isinstance(weight, PerTensor) else weight.zero_points)
    onednn = kind == "conv" and symmetric and groups <= 100 and not any(output_padding)
    return "onednn" if onednn else "fbgemm"


def takes_direct_kernel(
    weight_shape: Sequence[int], *, groups: int, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> bool:
    """Says whether FBGEMM runs a transposed convolution with a weight [C, O/groups, KH, KW] by its direct kernel.

    Source: FBGEMM src/FbgemmConv.cc takeDirectConvPath.
    """
    if len(weight_shape) != 4 or groups != 1:
        return False
    channels, outputs, rows, columns = weight_shape
    whole = channels % 8 == 0 and outputs % 8 == 0
    small = rows == 2 and columns <= 6 and all(step in (1, 2) for step in stride)
    return whole and small and not any(padding) and all(step == 1 for step in dilation)


def saturates_in_pairs(
    weight: npt.NDArray[np.integer],
    *,
    groups: int,
    in_channels: int,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> bool:
    """Says whether FBGEMM runs a convolution by its depthwise kernel and some uint8 codes can overflow its int16 sums.

    That kernel adds the products of each two consecutive taps of a window by vpmaddubsw, which saturates to int16, on
    every x86 CPU. It is taken in two and three dimensions, for windows of 3, 5 or 7 (height and width equal) and stride
    1 or 2 that keep the image's size at stride 1, with channels in multiples of 8 and one or two outputs for each.
    weight: codes [O, 1, K...].
    Source: FBGEMM src/FbgemmConv.cc takeDepthWiseFastPath, src/GenerateI8Depthwise.cc.
    """
    outputs, _, *kernel = weight.shape
    taken = (
        groups == in_channels
        and outputs in (groups, 2 * groups)
        and groups % 8 == 0
        and len(kernel) in (2, 3)
        and kernel[-2] == kernel[-1]
        and all(extent in (3, 5, 7) for extent in kernel)
        and all(step in (1, 2) for step in stride)
        and all(step == 1 for step in dilation)
        and all(pad == (extent - 1) // 2 for pad, extent in zip(padding, kernel, strict=True))
    )
    if not taken:
        return False
    taps = weight.reshape(outputs, -1).astype(np.int64)
    first, second = taps[:, 0:-1:2], taps[:, 1::2]
    most = 255 * (np.maximum(first, 0) + np.maximum(second, 0))
    least = 255 * (np.minimum(first, 0) + np.minimum(second, 0))
    return bool((most > 2**15 - 1).any() or (least < -(2**15)).any())
