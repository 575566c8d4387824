"""Ops that move elements, and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay.relay.forms.common import attributes, axes_of, dtype_of, integers, number, static_shape
from qtorch_relay.relay.forms.floating import ANOTHER_ORDER
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer


@relax_form("relax.reshape", "relax.flatten", "relax.expand_dims", "relax.squeeze", becomes="`reshape`")
def reshape(writer: Writer, call: Any) -> str:
    """reshape to the shape that is known: one op for all that only rename dimensions."""
    return writer.op("reshape", writer.operand(call.args[0]), newshape=static_shape(call), allowzero=False)


@relax_form("relax.permute_dims", becomes="`transpose`")
def permute_dims(writer: Writer, call: Any) -> str:
    """transpose"""
    rank = len(static_shape(call))
    axes = attributes(call)["axes"]
    order = list(reversed(range(rank))) if axes is None else axes_of(axes, rank)
    return writer.op("transpose", writer.operand(call.args[0]), axes=order)


@relax_form("relax.strided_slice", becomes="`strided_slice`")
def strided_slice(writer: Writer, call: Any) -> str:
    """strided_slice"""
    data, *numbers = call.args
    axes, begin, end, *strides = map(integers, numbers)
    rank = len(static_shape(data))
    return writer.op(
        "strided_slice",
        writer.operand(data),
        begin=begin,
        end=end,
        strides=strides[0] if strides else [1] * len(axes),
        slice_mode="end",
        axes=axes_of(tuple(axes), rank),
    )


@relax_form("relax.slice_scatter", becomes="`where` with a mask")
def slice_scatter(writer: Writer, call: Any) -> str:
    """The slice's elements spread over the axis, and chosen where the slice lies."""
    data, update, begin, end, step = call.args
    axis = attributes(call)["axis"] % len(static_shape(data))
    extent = static_shape(data)[axis]
    places = np.arange(extent)[number(begin) : number(end) : number(step)]
    source, inside = np.zeros(extent, np.int32), np.zeros(extent, bool)
    source[places], inside[places] = np.arange(len(places)), True
    shape = [extent if dim == axis else 1 for dim in range(len(static_shape(data)))]
    spread = writer.emit(
        writer.op(
            "take", writer.operand(update), writer.constant(source, "places"), batch_dims=0, axis=axis, mode="clip"
        )
    )
    return writer.op("where", writer.constant(inside.reshape(shape), "inside"), spread, writer.operand(data))


@relax_form("relax.concat", becomes="`concatenate`")
def concat(writer: Writer, call: Any) -> str:
    """concatenate"""
    return _joined(writer, call, "concatenate")


@relax_form("relax.stack", becomes="`stack`")
def stack(writer: Writer, call: Any) -> str:
    """stack"""
    return _joined(writer, call, "stack")


def _joined(writer: Writer, call: Any, name: str) -> str:
    axis = attributes(call)["axis"] or 0
    return writer.op(name, writer.operand(call.args[0]), axis=axis % len(static_shape(call)))


@relax_form("relax.broadcast_to", becomes="`broadcast_to`")
def broadcast_to(writer: Writer, call: Any) -> str:
    """broadcast_to"""
    return writer.op("broadcast_to", writer.operand(call.args[0]), shape=static_shape(call), dtype="")


@relax_form("relax.tile", becomes="`tile`")
def tile(writer: Writer, call: Any) -> str:
    """tile"""
    return writer.op("tile", writer.operand(call.args[0]), reps=list(attributes(call)["repeats"]))


@relax_form("relax.repeat", becomes="`repeat`")
def repeat(writer: Writer, call: Any) -> str:
    """repeat"""
    attrs = attributes(call)
    axis = attrs["axis"] % len(static_shape(call))
    return writer.op("repeat", writer.operand(call.args[0]), repeats=attrs["repeats"], axis=axis)


@relax_form("relax.full", becomes="`full`")
def full(writer: Writer, call: Any) -> str:
    """full"""
    return writer.op("full", writer.operand(call.args[1]), shape=static_shape(call), dtype=dtype_of(call))


@relax_form("relax.nn.pad", becomes="`nn.pad`")
def pad(writer: Writer, call: Any) -> str:
    """nn.pad, whose value is an operand."""
    attrs = attributes(call)
    widths = attrs["pad_width"]
    pairs = [list(widths[start : start + 2]) for start in range(0, len(widths), 2)]
    value = writer.constant(np.asarray(attrs["pad_value"], dtype_of(call)))
    return writer.op("nn.pad", writer.operand(call.args[0]), value, pad_width=pairs, pad_mode=attrs["pad_mode"])


@relax_form("relax.sum", "relax.mean", becomes="`sum`, `mean`", cost=ANOTHER_ORDER)
@relax_form("relax.max", "relax.min", becomes="`max`, `min`")
def reduce(writer: Writer, call: Any) -> str:
    """The op of the same name. Relay's has no axis of a number: that is the number itself."""
    data = call.args[0]
    rank = len(static_shape(data))
    if rank == 0:
        return writer.operand(data)
    attrs = attributes(call)
    axes = axes_of(attrs["axis"], rank)
    name = str(call.op.name).removeprefix("relax.")
    return writer.op(name, writer.operand(data), axis=axes, keepdims=bool(attrs["keepdims"]), exclude=False)


@relax_form("relax.argmax", "relax.argmin", becomes="`argmax`, `argmin`, cast to int64")
def index_of_extreme(writer: Writer, call: Any) -> str:
    """The first of equals; Relay counts in int32."""
    data, attrs = call.args[0], attributes(call)
    name = str(call.op.name).removeprefix("relax.")
    axes = axes_of(attrs["axis"], len(static_shape(data)))
    found = writer.op(
        name,
        writer.operand(data),
        axis=axes,
        keepdims=bool(attrs["keepdims"]),
        exclude=False,
        select_last_index=False,
    )
    return writer.op("cast", writer.emit(found), dtype=dtype_of(call))
