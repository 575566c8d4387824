"""Ops that read and write at indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay.relay.forms.common import attributes, static_shape
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer


@relax_form("relax.take", becomes="`take`")
def take(writer: Writer, call: Any) -> str:
    """take; of a table it is how unary ops on codes are written."""
    data, index = call.args
    attrs = attributes(call)
    axis = 0 if attrs["axis"] is None else attrs["axis"] % len(static_shape(data))
    return writer.op("take", writer.operand(data), writer.operand(index), batch_dims=0, axis=axis, mode=attrs["mode"])


@relax_form(
    "torch.checked_indices", becomes="plain ops", cost="none; an index out of range is clamped, where PyTorch raises"
)
def checked_indices(writer: Writer, call: Any) -> str:
    """The indices as int64, those from the end counted from 0."""
    index, data = call.args
    attrs = attributes(call)
    wide = writer.emit(writer.op("cast", writer.operand(index), dtype="int64"))
    if not attrs["wraps"]:
        return wide
    extent = np.int64(static_shape(data)[attrs["axis"]])
    negative = writer.emit(writer.op("less", wide, "0i64"))
    return writer.op("where", negative, writer.emit(writer.op("add", wide, writer.constant(np.asarray(extent)))), wide)


@relax_form("relax.gather_elements", becomes="`gather`")
def gather_elements(writer: Writer, call: Any) -> str:
    """gather"""
    data, index = map(writer.operand, call.args)
    return writer.op("gather", data, index, axis=attributes(call)["axis"] % len(static_shape(call)))


@relax_form("relax.scatter_elements", becomes="`scatter_elements`")
def scatter_elements(writer: Writer, call: Any) -> str:
    """scatter_elements"""
    attrs = attributes(call)
    axis = attrs["axis"] % len(static_shape(call))
    operands = [writer.operand(argument) for argument in call.args]
    return writer.op("scatter_elements", *operands, axis=axis, reduction=attrs["reduction"])


@relax_form("relax.scatter_nd", becomes="`transpose`, `scatter_nd`")
def scatter_nd(writer: Writer, call: Any) -> str:
    """Relay wants the coordinates of an index along the first dimension, not the last."""
    data, indices, updates = call.args
    rank = len(static_shape(indices))
    order = [rank - 1, *range(rank - 1)]
    first = writer.emit(writer.op("transpose", writer.operand(indices), axes=order))
    mode = attributes(call)["reduction"]
    # Relay registers no type for this op's attributes: the text says it
    key = "relay.attrs.ScatterNDAttrs"
    return writer.op("scatter_nd", writer.operand(data), first, writer.operand(updates), mode=mode, attrs_type_key=key)


@relax_form("relax.einsum", becomes="`einsum`", cost="no code; floats are added in another order")
def einsum(writer: Writer, call: Any) -> str:
    """einsum"""
    return writer.op("einsum", writer.operand(call.args[0]), equation=attributes(call)["subscripts"])


def table_of(writer: Writer, codes: str, dtype: str, table: np.ndarray[Any, Any]) -> str:
    """Returns the text of table[code - least code] for codes of an 8-bit dtype."""
    index = writer.emit(writer.op("cast", codes, dtype="int32"))
    if dtype == "int8":
        index = writer.emit(writer.op("add", index, "128"))
    return writer.op("take", writer.constant(table, "table"), index, batch_dims=0, axis=0, mode="clip")
