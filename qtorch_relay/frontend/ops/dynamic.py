"""Quantization parameters chosen when the program runs: shared by dynamically quantized layers.

A layer takes a float tensor, chooses a scale and a zero point from its range, quantizes it to uint8, computes exact
int32 sums with its int8 weights, and turns the sums back into floats:

    codes = quantize_at_run_time(...)
    sums = qnn.dense(codes.expr, ..., codes.zero_point, ...)
    y = dequantize_sums(..., sums, codes, ...)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.engine_constants import kernel_factors
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.values import RunTimeQuantizedValue, TensorValue
from qtorch_relay.numerics.dynamic import greatest_code
from qtorch_relay.qnn import choose_qparams, dequantize, quantize
from qtorch_relay.qnn.op_def import static_shape


def quantize_at_run_time(
    context: ImportContext, value: TensorValue, *, engine: str, reduce_range: bool, name: str
) -> RunTimeQuantizedValue:
    """Returns a float tensor's codes, with parameters that cover its range, as this engine's dynamic layers do it.

    engine: "fbgemm", "onednn" or "qnnpack" ("x86" is resolved by resolve_x86 before); qnnpack ignores reduce_range.
    name: the layer's, for the values' names.
    Source: aten/src/ATen/native/quantized/cpu/QuantUtils.h ChooseQuantizationParams, qlinear_dynamic.cpp.
    """
    onednn = engine == "onednn"
    arithmetic = "reciprocal" if onednn else "float32"
    qparams = context.emit(
        choose_qparams(value.expr, 0, greatest_code(engine, reduce_range), arithmetic=arithmetic), f"{name}_qparams"
    )
    scale = context.emit(relax.TupleGetItem(qparams, 0), f"{name}_scale")
    zero_point = context.emit(relax.TupleGetItem(qparams, 1), f"{name}_zero_point")
    codes = quantize(value.expr, scale, zero_point, out_dtype="uint8", arithmetic="rounded" if onednn else "fused")
    return RunTimeQuantizedValue(context.emit(codes, f"{name}_codes"), scale, zero_point, "uint8")


def dequantize_sums(
    context: ImportContext,
    sums: Any,
    codes: RunTimeQuantizedValue,
    weight_scales: npt.NDArray[np.float64] | np.float64,
    bias: npt.NDArray[np.float32] | None,
    *,
    engine: str,
    kind: str,
    axis: int,
    layer: str,
    relu: bool,
) -> TensorValue:
    """Returns int32 sums as floats, the bias added, in this engine's order of operations (numerics/dynamic.py).

    kind: "conv" or "linear". axis: that of the output channels, along which weight_scales and bias run.
    """
    factors = kernel_factors(engine, kind, weight_scales)
    channels = static_shape(sums)[axis]
    addend = np.zeros(1, np.float32) if bias is None else context.param(f"{layer}_bias", bias)
    if engine == "onednn":
        arithmetic = "real"
        operands = {"input_factor": codes.scale, "kernel_factor": factors, "addend": addend}
    else:
        arithmetic = "rounded" if engine == "qnnpack" else "fused"
        operands = {"addend": addend}
    factor = factors.reshape(()) if factors.size == 1 else np.broadcast_to(factors, (channels,))
    scale = context.emit(relax.op.multiply(codes.scale, relax.const(factor, "float32")), f"{layer}_sum_scale")
    real = context.emit(
        dequantize(sums, scale, 0, axis=axis, arithmetic=arithmetic, factors=operands), f"{layer}_dequantized"
    )
    return TensorValue(context.emit(relax.op.nn.relu(real), layer) if relu else real)
