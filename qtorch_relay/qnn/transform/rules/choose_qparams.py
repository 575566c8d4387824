"""Canonicalization of choose_qparams: min and max of the tensor, then arithmetic on single numbers in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import canonicalization, cast, constant

SMALL_SCALE = np.float32(6.1e-5)
INT32_MIN = -(2**31)


@canonicalization("qnn.choose_qparams")
def choose_qparams(operands: Operands) -> Expr:
    """ChooseQuantizationParams of PyTorch, see numerics_dynamic.choose_scale. No product feeds a sum here, so nothing
    can be contracted."""
    op, data = relax.op, operands["data"]
    least, greatest = operands.attrs["quant_min"], operands.attrs["quant_max"]
    steps = greatest - least
    zero = _number(0, "float32")
    low, high = op.minimum(op.min(data), zero), op.maximum(op.max(data), zero)
    scale = op.divide(op.subtract(cast(high, "float64"), cast(low, "float64")), _number(steps))
    narrow = cast(scale, "float32")
    empty = op.logical_or(op.equal(narrow, zero), op.isinf(op.divide(_number(1, "float32"), narrow)))
    scale = op.where(empty, _number(0.1), scale)
    small = op.less(scale, _number(SMALL_SCALE))
    amplifier = op.divide(_number(SMALL_SCALE, "float32"), cast(scale, "float32"))
    no_low, no_high = op.equal(low, zero), op.equal(high, zero)
    end = SMALL_SCALE * np.float32(steps)
    wide_low = op.where(no_low, low, op.where(no_high, _number(-end, "float32"), op.multiply(low, amplifier)))
    wide_high = op.where(no_low, _number(end, "float32"), op.where(no_high, high, op.multiply(high, amplifier)))
    low, high = op.where(small, wide_low, low), op.where(small, wide_high, high)
    scale = op.where(small, _number(SMALL_SCALE), scale)
    below, above = op.divide(cast(low, "float64"), scale), op.divide(cast(high, "float64"), scale)
    error_below = op.subtract(_number(abs(least)), op.abs(below))
    error_above = op.subtract(_number(abs(greatest)), op.abs(above))
    ends = op.subtract(_number(least), below), op.subtract(_number(greatest), above)
    point = op.where(op.less(error_below, error_above), *ends)
    bounded = op.clip(op.round(point), float(least), float(greatest))
    zero_point = op.where(op.isnan(point), _number(INT32_MIN, "int32"), cast(bounded, "int32"))
    if operands.attrs["arithmetic"] == "float32":
        return relax.Tuple([cast(scale, "float32"), zero_point])
    inverse = cast(op.divide(_number(1), scale), "float32")
    return relax.Tuple([op.divide(_number(1, "float32"), inverse), zero_point])


def _number(value: Any, dtype: str = "float64") -> Expr:
    return constant(value, dtype)
