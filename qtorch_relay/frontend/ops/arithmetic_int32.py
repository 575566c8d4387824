"""add, mul and cat of qint32 tensors: PyTorch's arithmetic for codes of 32 bits, on every engine.

It has no qnn op of its own: the real values are float32, and a result of quantize is rounded with its zero point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import mul_multiplier
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.expressions import cast, constant, fused_multiply_add, round_value, shifted
from qtorch_relay.frontend.context import ImportContext, location
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import dequantize, quantize
from qtorch_relay.qparams import PerTensor, code_range

CAT_LANES = 8  # channels that PyTorch's channels-last concatenation takes at a time; the rest goes through scalar code


def emit_add(context: ImportContext, lhs: QuantizedValue, rhs: QuantizedValue, output: PerTensor) -> Any:
    """Returns clamp(rne((fma(sa, qa, sa * -za) + fma(sb, qb, sb * -zb)) * (1 / sy) + zy)).

    Source: aten/src/ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp qadd_kernel, its vector code.
    """
    total = relax.op.add(*(context.emit(_dequantize_fused(value)) for value in (lhs, rhs)))
    return quantize_real(context, total, output)


def emit_mul(lhs: QuantizedValue, rhs: QuantizedValue, output: PerTensor) -> Any:
    """Returns clamp(rne(float((qa - za) * (qb - zb)) * ((sa * sb) * (1 / sy))) + zy); the product wraps at 32 bits.

    Source: aten/src/ATen/native/quantized/cpu/kernels/QuantizedOpKernels.cpp qmul_kernel.
    """
    sides = [shifted(value.expr, np.asarray(value.qparams.zero_point), 0, 0) for value in (lhs, rhs)]
    multiplier = mul_multiplier(lhs.qparams.scale, rhs.qparams.scale, output.scale)
    scaled = relax.op.multiply(cast(relax.op.multiply(*sides), "float32"), constant(multiplier, "float32"))
    return saturate_wide(round_value(scaled, "TONEAREST_EVEN"), output.zero_point)


def saturate_wide(rounded: Any, zero_point: int) -> Any:
    """Returns clamp(rounded + zero_point) as codes of 32 bits, all of which a float64 holds."""
    moved = relax.op.add(cast(rounded, "float64"), constant(float(zero_point), "float64"))
    low, high = code_range("int32")
    return cast(relax.op.clip(moved, float(low), float(high)), "int32")


def refuse_int32(node: Node, value: QuantizedValue) -> None:
    """Raises UnsupportedQuantSchemeError for an op that is converted for codes of 8 bits only."""
    if value.qparams.dtype == "int32":
        raise UnsupportedQuantSchemeError(
            f"{node.op}{location(node)} on codes of dtype int32; accepted are uint8 and int8: requantize its input"
        )


def emit_cat(
    context: ImportContext, values: list[QuantizedValue], output: PerTensor, axis: int, *, channels_last: bool
) -> Any:
    """Returns the codes of all values along axis, dequantized and quantized.

    channels_last: an input with the output's parameters is copied, and each input's first channels, by 8, are
    dequantized by fma. Source: aten/src/ATen/native/quantized/cpu/TensorShape.cpp, qcat_nhwc_kernel.
    """
    pieces = []
    for value in values:
        extent = value.shape[axis]
        if channels_last and value.qparams == output:
            pieces.append(value.expr)
            continue
        split = extent // CAT_LANES * CAT_LANES if channels_last else 0
        for begin, end in ((0, split), (split, extent)):
            if begin == end:
                continue
            part = value.with_expr(context.emit(relax.op.strided_slice(value.expr, [axis], [begin], [end])))
            fused = end == split
            real = _dequantize_fused(part) if fused else dequantize(part.expr, value.qparams.scale, _point(value))
            pieces.append(context.emit(quantize_real(context, real, output)))
    return relax.op.concat(pieces, axis=axis)


def quantize_real(context: ImportContext, real: Any, output: PerTensor) -> Any:
    """Returns clamp(rne(real * (1 / s) + z)), each step rounded."""
    return quantize(context.emit(real), output.scale, output.zero_point, out_dtype="int32", arithmetic="rounded")


def _point(value: QuantizedValue) -> int:
    return value.qparams.zero_point


def _dequantize_fused(value: QuantizedValue) -> Any:
    """Returns fma(s, float(q), s * -z)."""
    scale = np.float32(value.qparams.scale)
    offset = scale * np.float32(-value.qparams.zero_point)
    return fused_multiply_add(
        (cast(value.expr, "float32"), constant([scale], "float32")), constant([offset], "float32")
    )
