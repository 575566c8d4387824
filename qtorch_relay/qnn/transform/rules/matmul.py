"""Canonicalization of batch_matmul and contrib_dense_pack: one integer matmul of shifted codes."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import cast, per_axis, shifted
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import canonicalization


@canonicalization("qnn.batch_matmul")
def batch_matmul(operands: Operands) -> Expr:
    """(x - x_zero_point) times the transposed (y - y_zero_point)."""
    x, y = (shifted(operands[name], operands.constant(f"{name}_zero_point"), 0, 0) for name in ("x", "y"))
    return relax.op.matmul(x, relax.op.permute_dims(y, [0, 2, 1]), out_dtype="int32")


@canonicalization("qnn.contrib_dense_pack")
def contrib_dense_pack(operands: Operands) -> Expr:
    """The weight unpacked to [units, features], then as qnn.dense."""
    outer_n, outer_c, inner_n, inner_c = operands.shape("weight")
    data = shifted(operands["data"], operands.constant("input_zero_point"), 0, 0)
    tiles = relax.op.permute_dims(cast(operands["weight"], "int32"), [0, 2, 1, 3])
    weight = relax.op.reshape(tiles, (outer_n * inner_n, outer_c * inner_c))
    zero_point = operands.constant("kernel_zero_point")
    if zero_point.any():
        weight = relax.op.subtract(weight, per_axis(zero_point, 2, 0, "int32"))
    return relax.op.matmul(data, relax.op.permute_dims(weight), out_dtype="int32")
