"""Converters of recurrent layers and cells with dynamically quantized or float16 weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import CellParams, LinearFp16Params, LinearParams, Node
from qtorch_relay.engine_constants import kernel_factors
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.accumulator import weight_qparams
from qtorch_relay.frontend.ops.dynamic import quantize_at_run_time
from qtorch_relay.frontend.ops.linear_dynamic import apply_dynamic, apply_fp16, linear_engine
from qtorch_relay.frontend.ops.packed_sequence import batch_sizes_of, run_packed
from qtorch_relay.frontend.registry import converter, fold, refuse
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.numerics.dynamic import greatest_code
from qtorch_relay.tir import recurrent as tir_recurrent

LOWERING = "a dynamic linear layer of the input + one TIR loop over the steps"
EXACT = "all engines but for tanh, where MKL's last bit differs from the correctly rounded one in 0.06 % of values"

fold(
    "quantized::make_quantized_cell_params_dynamic",
    "quantized::make_quantized_cell_params_fp16",
    how="packs constant weights",
)
refuse(
    "quantized::make_quantized_cell_params",
    "aten::quantized_lstm.input_legacy",
    "aten::quantized_lstm.data_legacy",
    "aten::quantized_gru.input_legacy",
    "aten::quantized_gru.data_legacy",
    "aten::quantized_lstm_cell",
    "aten::quantized_gru_cell",
    "aten::quantized_rnn_relu_cell",
    "aten::quantized_rnn_tanh_cell",
    reason="PyTorch's first form of quantized recurrent layers, which it no longer makes",
    nearest="torch.ao.quantization.quantize_dynamic",
)


@dataclass(frozen=True)
class Layer:
    """One layer in one direction: its cell's kind, its weights, and which way it goes through time."""

    kind: str
    params: CellParams
    reverse: bool = False


@converter("quantized::quantized_lstm_cell_dynamic", lowering=LOWERING, exact=EXACT)
def lstm_cell(context: ImportContext, node: Node) -> tuple[TensorValue, TensorValue]:
    """quantized::quantized_lstm_cell_dynamic(Tensor input, Tensor[] hx, LinearPackedParamsBase w_ih,
    LinearPackedParamsBase w_hh, Tensor bias_ih, Tensor bias_hh) -> (Tensor, Tensor)

    Shapes: input [B, I]; hx two of [B, H]. The biases are those of the packed layers; the arguments are not read.
    Source: aten/src/ATen/native/RNN.cpp DEFINE_QUANTIZED_RNN_CELL_DYNAMIC, which always asks for reduce_range.
    """
    states = [_tensor(context, node, state).expr for state in context.argument(node, "hx")]
    hidden, cell = _run_cell(context, node, "lstm", states)
    return TensorValue(hidden), TensorValue(cell)


@converter("quantized::quantized_gru_cell_dynamic", lowering=LOWERING, exact=EXACT)
def gru_cell(context: ImportContext, node: Node) -> TensorValue:
    """quantized::quantized_gru_cell_dynamic(Tensor input, Tensor hx, LinearPackedParamsBase w_ih,
    LinearPackedParamsBase w_hh, Tensor b_ih, Tensor b_hh) -> Tensor

    Shapes, source: as quantized_lstm_cell_dynamic.
    """
    return TensorValue(_run_cell(context, node, "gru", [context.tensor(node, "hx").expr])[0])


@converter("quantized::quantized_rnn_relu_cell_dynamic", lowering=LOWERING)
def rnn_relu_cell(context: ImportContext, node: Node) -> TensorValue:
    """quantized::quantized_rnn_relu_cell_dynamic(Tensor input, Tensor hx, LinearPackedParamsBase w_ih,
    LinearPackedParamsBase w_hh, Tensor b_ih, Tensor b_hh) -> Tensor

    Shapes, source: as quantized_lstm_cell_dynamic.
    """
    return TensorValue(_run_cell(context, node, "relu", [context.tensor(node, "hx").expr])[0])


@converter("quantized::quantized_rnn_tanh_cell_dynamic", lowering=LOWERING, exact=EXACT)
def rnn_tanh_cell(context: ImportContext, node: Node) -> TensorValue:
    """quantized::quantized_rnn_tanh_cell_dynamic(Tensor input, Tensor hx, LinearPackedParamsBase w_ih,
    LinearPackedParamsBase w_hh, Tensor b_ih, Tensor b_hh) -> Tensor

    Shapes, source: as quantized_lstm_cell_dynamic.
    """
    return TensorValue(_run_cell(context, node, "tanh", [context.tensor(node, "hx").expr])[0])


def _run_cell(context: ImportContext, node: Node, kind: str, states: list[Any]) -> list[Any]:
    """Returns a cell's new states: a layer of one step."""
    layers = [context.argument(node, name) for name in ("w_ih", "w_hh")]
    for layer in layers:
        if not isinstance(layer, LinearParams | LinearFp16Params):
            raise context.unsupported(node, f"the weights must be packed linear parameters, found {describe(layer)}")
    params = CellParams(layers[0], layers[1], True, node.scope or layers[0].name)
    value = context.tensor(node, "input")
    sequence = TensorValue(context.emit(relax.op.expand_dims(value.expr, [0])))
    _, *new_states = _run_layer(context, Layer(kind, params), sequence, states)
    return new_states


@converter("aten::quantized_lstm.input", lowering=LOWERING, exact=EXACT)
def lstm(context: ImportContext, node: Node) -> tuple[TensorValue, ...]:
    """aten::quantized_lstm.input(Tensor input, Tensor[] hx, CellParamsBase[] params, bool has_biases, int num_layers,
    float dropout, bool train, bool bidirectional, bool batch_first, *, ScalarType? dtype=None, bool use_dynamic=False)
    -> (Tensor, Tensor, Tensor)

    Shapes: input [T, B, I] ([B, T, I] if batch_first); hx two of [layers * directions, B, H].
    Source: aten/src/ATen/native/RNN.cpp quantized_lstm_input.
    """
    states = [_tensor(context, node, state).expr for state in context.argument(node, "hx")]
    return _run_stack(context, node, "lstm", states)


@converter("aten::quantized_gru.input", lowering=LOWERING, exact=EXACT)
def gru(context: ImportContext, node: Node) -> tuple[TensorValue, ...]:
    """aten::quantized_gru.input(Tensor input, Tensor hx, CellParamsBase[] params, bool has_biases, int num_layers,
    float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)

    Shapes: input [T, B, I] ([B, T, I] if batch_first); hx [layers * directions, B, H].
    Source: aten/src/ATen/native/RNN.cpp quantized_gru_input.
    """
    return _run_stack(context, node, "gru", [context.tensor(node, "hx").expr])


@converter("aten::quantized_lstm.data", lowering=LOWERING, exact=EXACT)
def packed_lstm(context: ImportContext, node: Node) -> tuple[TensorValue, ...]:
    """aten::quantized_lstm.data(Tensor data, Tensor batch_sizes, Tensor[] hx, CellParamsBase[] params, bool has_biases,
    int num_layers, float dropout, bool train, bool bidirectional, *, ScalarType? dtype=None, bool use_dynamic=False) ->
    (Tensor, Tensor, Tensor)

    Shapes: data [sum of batch_sizes, I]; batch_sizes [T], known at import; hx two of [layers * directions, B, H].
    Source: aten/src/ATen/native/RNN.cpp quantized_lstm_data, PackedLayer, ReversedPackedLayer.
    """
    states = [_tensor(context, node, state).expr for state in context.argument(node, "hx")]
    return _run_stack(context, node, "lstm", states, batch_sizes_of(context, node))


@converter("aten::quantized_gru.data", lowering=LOWERING, exact=EXACT)
def packed_gru(context: ImportContext, node: Node) -> tuple[TensorValue, ...]:
    """aten::quantized_gru.data(Tensor data, Tensor batch_sizes, Tensor hx, CellParamsBase[] params, bool has_biases,
    int num_layers, float dropout, bool train, bool bidirectional) -> (Tensor, Tensor)

    Shapes, source: as aten::quantized_lstm.data, with one hx.
    """
    return _run_stack(context, node, "gru", [context.tensor(node, "hx").expr], batch_sizes_of(context, node))


def _tensor(context: ImportContext, node: Node, value: Any) -> TensorValue:
    if isinstance(value, TensorValue):
        return value
    raise context.unsupported(node, f"hx must hold tensors that are not quantized, found {describe(value)}")


def _run_stack(
    context: ImportContext, node: Node, kind: str, states: list[Any], batch_sizes: Sequence[int] | None = None
) -> tuple[TensorValue, ...]:
    """Returns the outputs of the last layer, then the last states of all layers, stacked.

    batch_sizes: of a packed sequence how many samples each step has; None if all have all, and input is padded.
    """
    layers = context.integer(node, "num_layers")
    if context.argument(node, "train") and context.number(node, "dropout") and layers > 1:
        raise context.unsupported(node, "dropout between the layers in training mode; call eval() on the model")
    directions = 2 if context.argument(node, "bidirectional") else 1
    cells: list[CellParams] = context.argument(node, "params")
    if len(cells) != layers * directions:
        raise context.unsupported(node, f"params must hold {layers * directions} cells, found {len(cells)}")
    batch_first = batch_sizes is None and bool(context.argument(node, "batch_first"))
    sequence = context.tensor(node, "input" if batch_sizes is None else "data").expr
    if batch_first:
        sequence = context.emit(relax.op.permute_dims(sequence, [1, 0, 2]))
    last: list[list[Any]] = []
    for first in range(0, len(cells), directions):
        outputs = []
        for number in range(first, first + directions):
            layer = Layer(kind, cells[number], reverse=number > first)
            initial = [_at(context, state, number) for state in states]
            output, *final = _run_layer(context, layer, TensorValue(sequence), initial, batch_sizes)
            outputs.append(output)
            last.append(final)
        sequence = outputs[0] if directions == 1 else context.emit(relax.op.concat(outputs, axis=-1))
    if batch_first:
        sequence = context.emit(relax.op.permute_dims(sequence, [1, 0, 2]))
    stacked = (context.emit(relax.op.stack(list(each), axis=0)) for each in zip(*last, strict=True))
    return (TensorValue(sequence), *(TensorValue(state) for state in stacked))


def _at(context: ImportContext, states: Any, number: int) -> Any:
    one = context.emit(relax.op.strided_slice(states, [0], [number], [number + 1]))
    return context.emit(relax.op.squeeze(one, [0]))


def _run_layer(
    context: ImportContext,
    layer: Layer,
    sequence: TensorValue,
    states: list[Any],
    batch_sizes: Sequence[int] | None = None,
) -> list[Any]:
    """Returns the outputs of all steps [T, B, H], then the last states [B, H]; of a packed sequence [sum, H]."""
    params = layer.params
    gates = _input_gates(context, layer, sequence)
    if isinstance(params.hidden_layer, LinearFp16Params):
        arithmetic, quant_max = "fp16", 0
        weights = _fp16_weights(context, params.hidden_layer, f"{params.name}_hidden")
    else:
        engine = linear_engine(context, params.hidden_layer)
        arithmetic = {"fbgemm": "fused", "qnnpack": "rounded", "onednn": "real"}[engine]
        quant_max = greatest_code(engine, params.reduce_range)
        weights = _int8_weights(context, params.hidden_layer, engine, f"{params.name}_hidden")

    def steps(gates: Any, states: list[Any]) -> list[Any]:
        call = tir_recurrent.apply(
            layer.kind,
            [gates, *states, *weights],
            arithmetic=arithmetic,
            quant_max=quant_max,
            reverse=layer.reverse,
        )
        results = context.emit(call, params.name)
        return [context.emit(relax.TupleGetItem(results, i)) for i in range(1 + len(states))]

    return (
        steps(gates, states)
        if batch_sizes is None
        else run_packed(context, gates, states, batch_sizes, steps, layer.reverse)
    )


def _input_gates(context: ImportContext, layer: Layer, sequence: TensorValue) -> Any:
    """Returns the linear layer of the input, for all steps at once, as PyTorch computes it."""
    params, name = layer.params.input_layer, f"{layer.params.name}_input"
    if isinstance(params, LinearFp16Params):
        return apply_fp16(context, sequence, params, layer=name).expr
    engine = linear_engine(context, params)
    reduce_range = layer.params.reduce_range
    codes = quantize_at_run_time(context, sequence, engine=engine, reduce_range=reduce_range, name=name)
    return apply_dynamic(context, codes, params, engine=engine, layer=name).expr


def _int8_weights(context: ImportContext, params: LinearParams, engine: str, name: str) -> list[Any]:
    """Returns the operands weight, factor and bias of the recurrent ops."""
    scales, zero_points = weight_qparams(params.weight, channel_axis=0)
    codes = params.weight.codes
    units = codes.shape[0]
    if np.any(zero_points):
        # |code - zero point| <= 255
        codes = codes.astype(np.int16) - np.asarray(zero_points, np.int16).reshape(-1, 1)
    factor = np.ascontiguousarray(np.broadcast_to(kernel_factors(engine, "linear", scales), (units,)))
    bias = np.zeros(units, np.float32) if params.bias is None else params.bias
    arrays = {"weight": codes, "factor": factor, "bias": bias}
    return [context.param(f"{name}_{part}", array) for part, array in arrays.items()]


def _fp16_weights(context: ImportContext, params: LinearFp16Params, name: str) -> list[Any]:
    """Returns the operands weight and bias of the recurrent ops."""
    weight = np.ascontiguousarray(params.weight.T.astype(np.float32))
    bias = np.zeros(weight.shape[1], np.float32) if params.bias is None else params.bias
    return [context.param(f"{name}_weight", weight), context.param(f"{name}_bias", bias)]
