"""Whether sums of two products stay in int16, told from the constant weights and the codes the input can have.

Where they do, instruction sets whose fastest products saturate at int16 may use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.conv2d_pack import Weight, conv2d_dots, source_shift
from qtorch_relay.kernels.dynamic_spec import DynamicDenseSpec
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec, PairSums

CodeRange: TypeAlias = tuple[int, int]
WeightDots: TypeAlias = Callable[[Isa, Conv2dSpec, Weight], Weight]


def pair_sums(dots: npt.NDArray[np.int8], codes: CodeRange) -> PairSums:
    """Returns what holds code0 * w0 + code1 * w1 for each two weights next to each other of dots [..., 4].

    s16 is proven if the least and the greatest sum over all codes of the range are in int16: a sum is least where each
    product is, for each weight at one end of the range.
    """
    wide = dots.reshape(-1, 2).astype(np.int64)
    ends = np.stack([wide * codes[0], wide * codes[1]])
    least, greatest = ends.min(axis=0).sum(axis=1), ends.max(axis=0).sum(axis=1)
    limits = np.iinfo(np.int16)
    return "s16" if least.min(initial=0) >= limits.min and greatest.max(initial=0) <= limits.max else "s32"


def _as_source(codes: CodeRange, in_zero_point: int, in_dtype: str, source_shift: int) -> CodeRange:
    """Returns the range of codes and padding as dot products take them: s8 codes moved up by 128, u8 codes down."""
    shift = (128 if in_dtype == "int8" else 0) - source_shift
    return min(codes[0], in_zero_point) + shift, max(codes[1], in_zero_point) + shift


def refine_conv2d(
    isa: Isa,
    spec: Conv2dSpec,
    codes: CodeRange,
    weight: Weight,
    in_zero_point: int,
    *_: Any,
    dots: WeightDots = conv2d_dots,
) -> Conv2dSpec:
    """Returns the spec with what is known of the sums of pairs for inputs in a range of codes.

    dots: how the kernel's dot products take the weights.
    """
    if not isa.distinguishes_pair_sums:
        return spec
    taken = _as_source(codes, in_zero_point, spec.in_dtype, source_shift(isa.dot_for("s16")))
    return replace(spec, pair_sums=pair_sums(dots(isa, spec, weight), taken))


def refine_dense(isa: Isa, spec: DenseSpec, codes: CodeRange, weight: Weight, in_zero_point: int, *_: Any) -> DenseSpec:
    """Returns the same as refine_conv2d for a dense layer."""
    conv = spec.as_conv2d()
    refined = refine_conv2d(isa, conv, codes, weight.reshape(conv.weight_shape), in_zero_point)
    return replace(spec, pair_sums=refined.pair_sums)


def refine_dynamic_dense(
    isa: Isa, spec: DynamicDenseSpec, codes: CodeRange, weight: Weight, *_: Any
) -> DynamicDenseSpec:
    """Returns the same as refine_conv2d for a dense layer whose parameters are known only at run time."""
    conv = spec.as_conv2d()
    # the zero point pads nothing here
    refined = refine_conv2d(isa, conv, codes, weight.reshape(conv.weight_shape), codes[0])
    return replace(spec, pair_sums=refined.pair_sums)
