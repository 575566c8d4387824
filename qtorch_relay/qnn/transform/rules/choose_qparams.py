"""Canonicalization of choose_qparams: min and max of the tensor, then arithmetic on single numbers."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import canonicalization
from qtorch_relay.tir.qparams import choose_scale, choose_zero_point


@canonicalization("qnn.choose_qparams")
def choose_qparams(operands: Operands) -> Expr:
    """ChooseQuantizationParams of PyTorch, see numerics.dynamic.choose_scale."""
    low, high = relax.op.min(operands["data"]), relax.op.max(operands["data"])
    bounds = operands.attrs["quant_min"], operands.attrs["quant_max"]
    scale = choose_scale(low, high, *bounds, operands.attrs["arithmetic"])
    return relax.Tuple([scale, choose_zero_point(low, high, *bounds)])
