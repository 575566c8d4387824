"""Converters between real tensors and codes."""

from __future__ import annotations

from typing import Any

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qnn import dequantize, quantize
from qtorch_relay.qparams import PerTensor

# torch.dtype as TorchScript stores it (c10/core/ScalarType.h).
QUANTIZED_DTYPES = {12: "int8", 13: "uint8"}


@converter("aten::quantize_per_tensor", "aten::quantize_per_tensor.tensor_qparams", lowering="qnn.quantize")
def quantize_per_tensor(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::quantize_per_tensor(Tensor self, float scale, int zero_point, ScalarType dtype) -> Tensor

    Source: FBGEMM src/QuantUtilsAvx2.cc, QuantizeAvx2 (the float is multiplied by 1 / scale).
    """
    dtype = QUANTIZED_DTYPES.get(context.integer(node, "dtype"))
    if dtype is None:
        raise context.unsupported(node, "only quint8 and qint8 can be quantized to")
    value = context.tensor(node, "self")
    qparams = context.output_qparams(node, dtype, "scale", "zero_point")
    codes = context.emit(quantize(value.expr, qparams.scale, qparams.zero_point, out_dtype=dtype), "quantized")
    return QuantizedValue(codes, qparams)


@converter("aten::dequantize.self", lowering="qnn.dequantize")
def dequantize_tensor(context: ImportContext, node: Node) -> TensorValue:
    """aten::dequantize.self(Tensor self) -> Tensor

    A tensor that is float already passes through, as in PyTorch.
    """
    value = context.any_tensor(node, "self")
    return value if isinstance(value, TensorValue) else emit_dequantize(context, value)


@converter("aten::dequantize.tensors", lowering="qnn.dequantize of each")
def dequantize_list(context: ImportContext, node: Node) -> list[Any]:
    """aten::dequantize.tensors(Tensor[] tensors) -> Tensor[]"""
    values = context.argument(node, "tensors")
    return [value if isinstance(value, TensorValue) else emit_dequantize(context, value) for value in values]


def emit_dequantize(context: ImportContext, value: QuantizedValue) -> TensorValue:
    """Returns the real values of a quantized tensor."""
    qparams: PerTensor = value.qparams
    return TensorValue(context.emit(dequantize(value.expr, qparams.scale, qparams.zero_point), "dequantized"))
