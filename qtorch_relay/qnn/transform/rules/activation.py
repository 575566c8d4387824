"""Canonicalization of leaky_relu and softmax, Relay's integer arithmetic.

Source: TVM 0.17, src/relay/qnn/op/leaky_relu.cc, softmax.cc.
"""

from __future__ import annotations

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import cast, constant
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import canonicalization
from qtorch_relay.qnn.transform.rules.relay import (
    Parameters,
    fixed_point_multiply,
    fixed_point_product,
    requantize,
    requantize_or_upcast,
    saturate_int,
)

# The sum of the exponentials divides 2**30; the quotient keeps 7 bits.
_NUMERATOR_BITS, _OUTPUT_BITS = 30, 7


@canonicalization("qnn.leaky_relu")
def leaky_relu(operands: Operands) -> Expr:
    """Requantized codes; below the input's zero point their fixed point product with alpha."""
    data, alpha = cast(operands["x"], "int32"), operands.attrs["alpha"]
    target = Parameters.of(operands, "output")
    codes = requantize_or_upcast(data, len(operands.shape("x")), Parameters.of(operands, "input"), target)
    scaled = fixed_point_multiply(codes, np.array(alpha), 0, 0)
    offset = fixed_point_product(int(target.zero_point), 1 - alpha)
    if offset:
        scaled = relax.op.add(scaled, constant(offset, "int32"))
    negative = relax.op.less(data, constant(operands.scalar("input_zero_point"), "int32"))
    return saturate_int(relax.op.where(negative, scaled, codes), operands.dtype("x"))


@canonicalization("qnn.softmax")
def softmax(operands: Operands) -> Expr:
    """exp(x - max) as 2**-q * (1 - r) with x * log2(e) by shifts, all in int32; then requantize from scale 2**-7."""
    axis = operands.attrs["axis"]
    one = constant(_reciprocal(operands.scalar("scale")), "int32")
    data = relax.op.subtract(cast(operands["x"], "int32"), constant(operands.scalar("zero_point"), "int32"))
    below = relax.op.subtract(data, relax.op.max(data, axis=[axis], keepdims=True))
    # x * (1 + 1/2 - 1/16) is about x * log2(e)
    power = relax.op.subtract(relax.op.add(below, _right(below, 1)), _right(below, 4))
    # both are at most 0, so that floor and truncation agree
    whole = relax.op.floor_divide(power, relax.op.negative(one))
    whole = relax.op.minimum(whole, constant(20, "int32"))
    rest = relax.op.add(power, relax.op.multiply(whole, one))
    mantissa = relax.op.add(_right(rest, 1), one)
    greatest = relax.op.max(whole, axis=[axis], keepdims=True)
    exponentials = relax.op.left_shift(mantissa, relax.op.subtract(greatest, whole))
    total = relax.op.sum(exponentials, axis=[axis], keepdims=True)
    inverse = relax.op.floor_divide(constant(1 << _NUMERATOR_BITS, "int32"), total)
    codes = _right(relax.op.multiply(inverse, exponentials), _NUMERATOR_BITS - _OUTPUT_BITS)
    source = Parameters(np.array(2.0**-_OUTPUT_BITS, np.float32), np.zeros((), np.int32))
    return requantize(codes, len(operands.shape("x")), source, Parameters.of(operands, "output"), "int8")


def _right(value: Expr, bits: int) -> Expr:
    return relax.op.right_shift(value, constant(bits, "int32"))


def _reciprocal(scale: np.float32) -> int:
    """Returns round(1 / scale), half away from zero, saturated to int32."""
    return min(int(np.floor(np.float64(np.float32(1) / scale) + 0.5)), 2**31 - 1)
