"""Converters of aten::to: dtypes of tensors that are not quantized; devices and memory formats change no value."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.moves import Tensor
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue

# torch.dtype as TorchScript stores it (c10/core/ScalarType.h).
DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}
QUANTIZED = {12: "int8", 13: "uint8", 14: "int32"}


@converter(
    "aten::to.dtype",
    "aten::to.dtype_layout",
    "aten::to.device",
    "aten::to.prim_Device",
    "aten::to.prim_dtype",
    "aten::cpu",
    lowering="nothing, or astype of tensors that are not quantized",
)
def to(context: ImportContext, node: Node) -> Tensor:
    """aten::to.dtype(Tensor self, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat?
    memory_format=None) -> Tensor

    A quantized tensor keeps its dtype: PyTorch refuses any other.
    """
    value = context.any_tensor(node, "self")
    dtype = context.argument(node, "dtype") if "dtype" in node.args else None
    if dtype is None:
        return value
    if isinstance(value, QuantizedValue):
        if QUANTIZED.get(dtype) != value.qparams.dtype:
            raise context.unsupported(node, f"{describe(value)} to dtype {dtype}; dequantize it first")
        return value
    if dtype not in DTYPES:
        raise context.unsupported(
            node, f"{describe(value)} to dtype {dtype}; accepted are {', '.join(DTYPES.values())}"
        )
    if value.dtype == DTYPES[dtype]:
        return value
    return value.with_expr(context.emit(relax.op.astype(value.expr, DTYPES[dtype]), "to"))
