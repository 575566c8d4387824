"""The canonicalization of every qnn op, by name."""

from qtorch_relay.qnn.transform.rules import choose_qparams, conv, elementwise, pooling, quantize
from qtorch_relay.qnn.transform.rules.common import RULES

__all__ = ["RULES", "choose_qparams", "conv", "elementwise", "pooling", "quantize"]
