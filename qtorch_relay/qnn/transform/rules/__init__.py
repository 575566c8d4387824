"""The canonicalization of every qnn op, by name."""

from qtorch_relay.qnn.transform.rules import (
    choose_qparams,
    conv,
    conv_transpose,
    elementwise,
    pooling,
    quantize,
    requantize_add,
)
from qtorch_relay.qnn.transform.rules.common import RULES

__all__ = ["RULES", "choose_qparams", "conv", "conv_transpose", "elementwise", "pooling", "quantize", "requantize_add"]
