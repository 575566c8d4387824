"""Float layers that Relay has whole, or nearly: softmax, layer norm, the softmax inside attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay.relay.forms.common import attributes, axes_of, static_shape
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer

ANOTHER_ORDER = "no code; floats are added in another order (integers are exact)"
_LAST = {"axis": [-1], "keepdims": True, "exclude": False}


@relax_form("torch.softmax", "relax.nn.softmax", becomes="`nn.softmax`", cost=ANOTHER_ORDER)
def softmax(writer: Writer, call: Any) -> str:
    """nn.softmax"""
    return _along_axis(writer, call, "nn.softmax")


@relax_form("torch.log_softmax", "relax.nn.log_softmax", becomes="`nn.log_softmax`", cost=ANOTHER_ORDER)
def log_softmax(writer: Writer, call: Any) -> str:
    """nn.log_softmax"""
    return _along_axis(writer, call, "nn.log_softmax")


@relax_form("torch.attention_weights", becomes="`max`, `subtract`, `exp`, `where`", cost=ANOTHER_ORDER)
def attention_weights(writer: Writer, call: Any) -> str:
    """exp(scores - max) along the last axis, 0 where all scores of a row are -inf."""
    scores = writer.operand(call.args[0])
    greatest = writer.emit(writer.op("max", scores, **_LAST))
    weights = writer.emit(writer.op("exp", writer.emit(writer.op("subtract", scores, greatest))))
    zero, lowest = (writer.constant(np.asarray(value, np.float32)) for value in (0, np.finfo(np.float32).min))
    # a maximum of -inf alone is the lowest finite number in TVM, where it starts
    nothing = writer.emit(writer.op("less_equal", greatest, lowest))
    return writer.op("where", nothing, zero, weights)


@relax_form("torch.attention_factors", becomes="`sum`, `where`, `divide`", cost=ANOTHER_ORDER)
def attention_factors(writer: Writer, call: Any) -> str:
    """1 / sum along the last axis, 1 where that is 0."""
    total = writer.emit(writer.op("sum", writer.operand(call.args[0]), **_LAST))
    zero, one = (writer.constant(np.asarray(value, np.float32)) for value in (0, 1))
    divisor = writer.emit(writer.op("where", writer.emit(writer.op("equal", total, zero)), one, total))
    return writer.op("divide", one, divisor)


def _along_axis(writer: Writer, call: Any, name: str) -> str:
    (axis,) = axes_of(attributes(call)["axis"], len(static_shape(call)))
    return writer.op(name, writer.operand(call.args[0]), axis=axis)


@relax_form(
    "torch.layer_norm", "torch.layer_norm_weighted", becomes="`mean`, `variance`, plain ops", cost=ANOTHER_ORDER
)
def layer_norm(writer: Writer, call: Any) -> str:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions, as many as the bias has."""
    data, bias, *weight = call.args
    rank = len(static_shape(data))
    over = {"axis": list(range(rank - len(static_shape(bias)), rank)), "keepdims": True, "exclude": False}
    x = writer.operand(data)
    mean = writer.emit(writer.op("mean", x, **over))
    variance = writer.emit(writer.op("variance", x, mean, **over, unbiased=False))
    spread = writer.emit(writer.op("add", variance, f"{float(attributes(call)['eps']):.9g}f"))
    centered = writer.emit(writer.op("subtract", x, mean))
    value = writer.emit(writer.op("divide", centered, writer.emit(writer.op("sqrt", spread))))
    if weight:
        value = writer.emit(writer.op("multiply", value, writer.operand(weight[0])))
    return writer.op("add", value, writer.operand(bias))
