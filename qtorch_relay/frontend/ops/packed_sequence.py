"""Packed sequences: samples of differing lengths, the longest first, laid out step by step without padding.

Lengths must be known at import: they decide the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node, TensorConstant
from qtorch_relay.expressions import constant
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.moves import reshaped, taken
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.qnn.op_def import static_shape

# (gates [T, B, G], states [B, H]) -> outputs [T, B, H], last states [B, H]
Steps = Callable[[Any, list[Any]], list[Any]]


@converter("aten::_pack_padded_sequence", lowering="take")
def pack_padded_sequence(context: ImportContext, node: Node) -> tuple[TensorValue, TensorValue]:
    """aten::_pack_padded_sequence(Tensor input, Tensor lengths, bool batch_first) -> (Tensor, Tensor)

    Shapes: input [T, B, ...] ([B, T, ...] if batch_first); lengths [B], falling; output [sum of lengths, ...] and the
    number of samples that each step has.
    """
    value = context.tensor(node, "input")
    batch_first = bool(context.argument(node, "batch_first"))
    lengths = _known(context, node, "lengths")
    sizes = np.asarray([(lengths > step).sum() for step in range(int(lengths.max()))], np.int64)
    steps, samples = (value.shape[1], value.shape[0]) if batch_first else value.shape[:2]
    places = [
        sample * steps + step if batch_first else step * samples + sample
        for step, size in enumerate(sizes)
        for sample in range(size)
    ]
    flat = reshaped(context, value, [steps * samples, *value.shape[2:]])
    data = taken(context, flat, 0, places)
    return TensorValue(data.expr), TensorValue(context.param("batch_sizes", sizes))


@converter("aten::_pad_packed_sequence", lowering="take")
def pad_packed_sequence(context: ImportContext, node: Node) -> tuple[TensorValue, TensorValue]:
    """aten::_pad_packed_sequence(Tensor data, Tensor batch_sizes, bool batch_first, Scalar padding_value, int
    total_length) -> (Tensor, Tensor)

    Shapes: data [sum of batch_sizes, ...]; output [T, B, ...] ([B, T, ...] if batch_first) and the lengths [B].
    """
    data, sizes = context.tensor(node, "data"), batch_sizes_of(context, node)
    steps = max(len(sizes), context.integer(node, "total_length"))
    rows = np.full((steps, sizes[0]), data.shape[0], np.int32)  # one more row, of padding
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for step, size in enumerate(sizes):
        rows[step, :size] = starts[step] + np.arange(size)
    if context.argument(node, "batch_first"):
        rows = rows.T
    number = constant(context.number(node, "padding_value"), data.dtype)
    padding = context.emit(relax.op.full([1, *data.shape[1:]], number, data.dtype))
    whole = TensorValue(context.emit(relax.op.concat([data.expr, padding], axis=0)))
    padded = reshaped(context, taken(context, whole, 0, rows.reshape(-1)), [*rows.shape, *data.shape[1:]])
    lengths = np.asarray([(np.asarray(sizes) > sample).sum() for sample in range(sizes[0])], np.int64)
    return TensorValue(padded.expr), TensorValue(context.param("lengths", lengths))


def batch_sizes_of(context: ImportContext, node: Node) -> list[int]:
    """Returns how many samples each step of a packed sequence has."""
    return [int(size) for size in _known(context, node, "batch_sizes")]


def _known(context: ImportContext, node: Node, name: str) -> npt.NDArray[np.int64]:
    operand = node.args[name]
    if isinstance(operand, TensorConstant):
        return np.asarray(operand.array, np.int64)
    raise context.unsupported(
        node,
        f"{name} depends on lengths that are known only at run time, and decides shapes; make the lengths constants of "
        "the model, or give the layer the padded tensor",
    )


def run_packed(
    context: ImportContext,
    gates: Any,
    states: list[Any],
    batch_sizes: Sequence[int],
    run: Steps,
    reverse: bool,
) -> list[Any]:
    """Returns a layer's outputs [sum of batch_sizes, H], then its last states [B, H].

    Steps with as many samples run as one. Forward, samples that end leave the batch with their states; backward, they
    join it with their initial ones. So a step's dynamic range is that of the samples it has, as in PyTorch.
    Source: aten/src/ATen/native/RNN.cpp PackedLayer, ReversedPackedLayer.
    """
    stretches = [(size, len(list(same))) for size, same in groupby(batch_sizes)]
    starts = np.concatenate([[0], np.cumsum([size * count for size, count in stretches])])
    order = range(len(stretches) - 1, -1, -1) if reverse else range(len(stretches))
    outputs: dict[int, Any] = {}
    ended: list[list[Any]] = []
    current = _rows(context, states, 0, stretches[-1][0]) if reverse else states
    for number in order:
        size, count = stretches[number]
        held = static_shape(current[0])[0]
        if size < held:
            ended.append(_rows(context, current, size, held))
            current = _rows(context, current, 0, size)
        elif size > held:
            current = _joined(context, [current, _rows(context, states, held, size)])
        (part,) = _rows(context, [gates], int(starts[number]), int(starts[number + 1]))
        units = static_shape(gates)[-1]
        output, *current = run(context.emit(relax.op.reshape(part, [count, size, units])), current)
        outputs[number] = context.emit(relax.op.reshape(output, [count * size, static_shape(output)[-1]]))
    found = [outputs[number] for number in range(len(stretches))]
    whole = found[0] if len(found) == 1 else context.emit(relax.op.concat(found, axis=0))
    return [whole, *(_joined(context, [current, *reversed(ended)]) if ended else current)]


def _rows(context: ImportContext, tensors: list[Any], start: int, end: int) -> list[Any]:
    return [context.emit(relax.op.strided_slice(tensor, [0], [start], [end])) for tensor in tensors]


def _joined(context: ImportContext, parts: Sequence[list[Any]]) -> list[Any]:
    return [context.emit(relax.op.concat(list(each), axis=0)) for each in zip(*parts, strict=True)]
