"""The canonicalization of every qnn op, by name."""

from qtorch_relay.qnn.transform.rules import (
    activation,
    choose_qparams,
    conv,
    conv_transpose,
    elementwise,
    matmul,
    pooling,
    quantize,
    requantize_add,
    simulated,
    unary,
)
from qtorch_relay.qnn.transform.rules.common import RULES

__all__ = [
    "RULES",
    "activation",
    "choose_qparams",
    "conv",
    "conv_transpose",
    "elementwise",
    "matmul",
    "pooling",
    "quantize",
    "requantize_add",
    "simulated",
    "unary",
]
