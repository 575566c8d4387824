"""Converters of quantization whose parameters are chosen from the tensor when the program runs."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.quantize import code_dtype
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import RunTimeQuantizedValue, TensorValue
from qtorch_relay.qnn import choose_qparams, quantize
from qtorch_relay.qparams import code_range

_NOTE = "a tensor with NaN: PyTorch's least and greatest value depend on where it stands; the scale is float32 here"


@converter("aten::quantize_per_tensor_dynamic", lowering="qnn.choose_qparams + qnn.quantize", note=_NOTE)
def quantize_per_tensor_dynamic(context: ImportContext, node: Node) -> RunTimeQuantizedValue:
    """aten::quantize_per_tensor_dynamic(Tensor self, ScalarType dtype, bool reduce_range) -> Tensor

    quint8 or qint8. reduce_range halves both ends of the codes, except on qnnpack.
    Source: quantized/QTensor.cpp quantize_per_tensor_dynamic.
    """
    value, dtype = context.tensor(node, "self"), code_dtype(context, node)
    if dtype == "int32":
        raise context.unsupported(node, "only quint8 and qint8 have dynamic parameters, in PyTorch too")
    scale, zero_point = _choose(context, node, value, dtype)
    codes = quantize(value.expr, scale.expr, zero_point.expr, out_dtype=dtype, arithmetic="fused")
    return RunTimeQuantizedValue(context.emit(codes, "quantized"), scale.expr, zero_point.expr, dtype)


@converter("aten::_choose_qparams_per_tensor", lowering="qnn.choose_qparams", note=_NOTE)
def choose_qparams_per_tensor(context: ImportContext, node: Node) -> tuple[TensorValue, TensorValue]:
    """aten::_choose_qparams_per_tensor(Tensor self, bool reduce_range=False) -> (float, int)

    For quint8 codes. Source: quantized/QTensor.cpp _choose_qparams_per_tensor.
    """
    return _choose(context, node, context.tensor(node, "self"), "uint8")


def _choose(context: ImportContext, node: Node, value: TensorValue, dtype: str) -> tuple[TensorValue, TensorValue]:
    low, high = code_range(dtype)
    if context.argument(node, "reduce_range") and context.engine != "qnnpack":
        low, high = int(low / 2), high // 2
    qparams = context.emit(choose_qparams(value.expr, low, high), "qparams")
    scale, zero_point = (context.emit(relax.TupleGetItem(qparams, index)) for index in (0, 1))
    return TensorValue(scale), TensorValue(zero_point)
