"""What PyTorch's ONNX exporter lacks for quantized models: splitting a quantized tensor, and dynamic linear layers.

Its own symbolic of a chunk slices the (codes, scale, zero point) that it has for a quantized tensor as if that were one
tensor, and fails. It has none of dynamically quantized linear layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from torch.onnx import TensorProtoDataType, symbolic_helper

OPSET = 17
DYNAMIC_OP = b"DynamicQuantizeLinear"


@contextmanager
def symbolics_for(model: torch.nn.Module, dynamic_activations: bool) -> Iterator[None]:
    """Teaches PyTorch's exporter these ops while the block exports a model.

    dynamic_activations: whether those of dynamic layers are quantized, or only the weights.
    """
    products = _integer_products if dynamic_activations else _float_products
    symbolics = {
        "prim::ConstantChunk": _chunk,
        "quantized::linear_dynamic": partial(_dynamic_linear, model, products, _unchanged),
        "quantized::linear_relu_dynamic": partial(_dynamic_linear, model, products, _relu),
    }
    for name, symbolic in symbolics.items():
        torch.onnx.register_custom_op_symbolic(name, symbolic, OPSET)
    try:
        yield
    finally:
        for name in symbolics:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)


def _chunk(g: Any, x: Any, chunks: int, dim: int) -> list[Any]:
    """prim::ConstantChunk[chunks, dim](Tensor x) -> Tensor[]

    A quantized tensor is dequantized, split and quantized as it was: the form in which peers see that codes are copied.
    """
    quantized = x.node().kind() == "prim::TupleConstruct"
    scale = zero_point = None
    if quantized:
        x, scale, zero_point, _ = symbolic_helper.dequantize_helper(g, x)
    size = x.type().sizes()[dim] if x.type().sizes() is not None else None
    if size is None:
        raise torch.onnx.errors.SymbolicValueError("a chunk of a tensor of unknown shape", x)
    part = -(-size // chunks)
    sizes = [min(part, size - start) for start in range(0, size, part)]
    parts = g.op("Split", x, _constant(g, sizes, torch.int64), axis_i=dim, outputs=len(sizes))
    parts = [parts] if len(sizes) == 1 else parts
    return [symbolic_helper.quantize_helper(g, p, scale, zero_point) for p in parts] if quantized else list(parts)


@dataclass(frozen=True)
class _Weight:
    """A weight's codes [in, out] and quantization parameters, one for all or one for each output; values of a graph.

    axis: 1 if there is one for each output, else None.
    """

    codes: Any
    scale: Any
    zero_point: Any
    axis: int | None


def _dynamic_linear(
    model: torch.nn.Module,
    products: Callable[[Any, Any, _Weight], Any],
    activation: Callable[[Any, Any], Any],
    g: Any,
    x: Any,
    packed: Any,
    _reduce_range: Any,
) -> Any:
    """quantized::linear_dynamic(Tensor X, LinearPackedParams W, bool reduce_range) -> Tensor"""
    # The exporter names a parameter by the attributes that lead to it.
    parameters = reduce(getattr, packed.debugName().split("."), model)
    weight, bias = torch.ops.quantized.linear_unpack(parameters)
    per_tensor = weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)
    scale = torch.tensor(weight.q_scale()) if per_tensor else weight.q_per_channel_scales()
    zero_point = torch.tensor(weight.q_zero_point()) if per_tensor else weight.q_per_channel_zero_points()
    operand = _Weight(
        _constant(g, weight.int_repr().t().contiguous(), torch.int8),
        _constant(g, scale, torch.float32),
        _constant(g, zero_point, torch.int8),
        None if per_tensor else 1,
    )
    y = products(g, x, operand)
    return activation(g, y if bias is None else g.op("Add", y, _constant(g, bias.detach(), torch.float32)))


def _integer_products(g: Any, x: Any, weight: _Weight) -> Any:
    """Returns x @ weight with x quantized as ONNX does it, to all 256 codes: it has no way to 128."""
    codes, scale, zero_point = g.op(DYNAMIC_OP.decode(), x, outputs=3)
    products = g.op("MatMulInteger", codes, weight.codes, zero_point, weight.zero_point)
    products = g.op("Cast", products, to_i=TensorProtoDataType.FLOAT)
    return g.op("Mul", products, g.op("Mul", scale, weight.scale))


def _float_products(g: Any, x: Any, weight: _Weight) -> Any:
    """Returns x @ weight with x in float."""
    axis = {} if weight.axis is None else {"axis_i": weight.axis}
    return g.op("MatMul", x, g.op("DequantizeLinear", weight.codes, weight.scale, weight.zero_point, **axis))


def _unchanged(_g: Any, y: Any) -> Any:
    return y


def _relu(g: Any, y: Any) -> Any:
    return g.op("Relu", y)


def _constant(g: Any, value: Any, dtype: torch.dtype) -> Any:
    return g.op("Constant", value_t=torch.as_tensor(value).to(dtype))
