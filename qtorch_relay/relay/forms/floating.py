"""Float layers that Relay has whole: softmax, layer norm."""

from __future__ import annotations

from typing import Any

from qtorch_relay.relay.forms.common import attributes, axes_of, static_shape
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer

ANOTHER_ORDER = "no code; floats are added in another order (integers are exact)"


@relax_form("torch.softmax", "relax.nn.softmax", becomes="`nn.softmax`", cost=ANOTHER_ORDER)
def softmax(writer: Writer, call: Any) -> str:
    """nn.softmax"""
    return _along_axis(writer, call, "nn.softmax")


@relax_form("torch.log_softmax", "relax.nn.log_softmax", becomes="`nn.log_softmax`", cost=ANOTHER_ORDER)
def log_softmax(writer: Writer, call: Any) -> str:
    """nn.log_softmax"""
    return _along_axis(writer, call, "nn.log_softmax")


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
