"""The converter of quantized::matmul."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.dimensions import is_fixed
from qtorch_relay.expressions import cast
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import dequantize, quantize
from qtorch_relay.tir.matmul import MKL_LEAST_COLUMNS, MKL_LEAST_ROWS


@converter(
    "quantized::matmul",
    lowering="qnn.dequantize, matmul, qnn.quantize",
    exact=f"with at least {MKL_LEAST_ROWS} rows and {MKL_LEAST_COLUMNS} columns, or where the float32 sums are exact "
    "(scales that are powers of 2); else all but one code in 10**5",
    note="PyTorch takes the float32 product of MKL, whose order of additions for fewer rows or columns depends on "
    "addresses in memory; ours is then the exact sum of the same float32 factors, rounded once",
)
def quantized_matmul(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::matmul(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor qc

    Shapes as of aten::matmul. Source: aten/src/ATen/native/quantized/cpu/qmatmul.cpp (without ruy).
    """
    lhs, rhs = context.quantized(node, "qa"), context.quantized(node, "qb")
    if lhs.qparams.dtype != rhs.qparams.dtype or lhs.qparams.dtype not in ("uint8", "int8"):
        raise context.unsupported(node, f"operands of {lhs.qparams.dtype} and {rhs.qparams.dtype}")
    output = context.output_qparams(node, lhs.qparams.dtype, "scale", "zero_point")
    rows, columns = lhs.shape[-2:][0], rhs.shape[-1]
    in_order = len(lhs.shape) > 1 and len(rhs.shape) > 1 and is_fixed(rows) and int(rows) >= MKL_LEAST_ROWS
    # float32 factors have 24 bits: their products are exact in float64, and a sum of 2**k is off by less than k bits
    dtype = "float32" if in_order and is_fixed(columns) and int(columns) >= MKL_LEAST_COLUMNS else "float64"
    factors = [
        context.emit(cast(dequantize(value.expr, value.qparams.scale, value.qparams.zero_point), dtype))
        for value in (lhs, rhs)
    ]
    real = context.emit(cast(context.emit(relax.op.matmul(*factors)), "float32"))
    codes = quantize(real, output.scale, output.zero_point, out_dtype=output.dtype, arithmetic="fused")
    return QuantizedValue(context.emit(codes, node.scope or "matmul"), output)
