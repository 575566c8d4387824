"""Normalizations of tensors that are not quantized.

numerics/layer_norm.py has the arithmetic of layer_norm. The moments of the others are computed in float64 and rounded
once: PyTorch's are sums of float32, in an order of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node, TensorConstant
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.floating_elementwise import float_tensor
from qtorch_relay.frontend.registry import UP_TO_ORDER, converter
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.tir.layer_norm import layer_norm as tir_layer_norm


@converter("aten::batch_norm", lowering="multiply and add of float tensors", exact="1 ulp in one of 2^28 values")
def batch_norm(context: ImportContext, node: Node) -> TensorValue:
    """aten::batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool
    training, float momentum, float eps, bool cudnn_enabled) -> Tensor

    The statistics become a scale and a shift per channel, and the result is a fused multiply-add, as in PyTorch. The
    sums are rounded twice, to float64 and to float32: one in 2^28 may differ by an ulp.
    Source: aten/src/ATen/native/cpu/batch_norm_kernel.cpp, batch_norm_cpu_collect_linear_and_constant_terms.
    """
    value = float_tensor(context, node, "input")
    if node.args["training"] or value.dtype != "float32":
        raise context.unsupported(node, f"training {node.args['training']} on {value.dtype}; accepted: False, float32")
    mean, variance = (_constant(context, node, name) for name in ("running_mean", "running_var"))
    if mean is None or variance is None:
        raise context.unsupported(node, "a batch norm without running statistics")
    weight, bias = (_constant(context, node, name) for name in ("weight", "bias"))
    scale = np.float32(1) / np.sqrt(variance + np.float32(context.number(node, "eps")))
    scale = (scale if weight is None else scale * weight).astype(np.float64)
    shift = ((0 if bias is None else bias) - mean * scale).astype(np.float32).astype(np.float64)
    layer = node.scope or "batch_norm"
    shape = [1, -1] + [1] * (len(value.shape) - 2)
    factor, addend = (
        context.param(f"{layer}_{name}", array.reshape(shape)) for name, array in (("scale", scale), ("shift", shift))
    )
    wide = relax.op.add(relax.op.multiply(cast(value.expr, "float64"), factor), addend)
    return value.with_expr(context.emit(cast(wide, "float32"), layer))


def _constant(context: ImportContext, node: Node, name: str) -> npt.NDArray[np.float32] | None:
    operand = node.args[name]
    if operand is None:
        return None
    if isinstance(operand, TensorConstant):
        return operand.array.astype(np.float32)
    raise context.unsupported(node, f"{name} must be a tensor of the model, found {describe(context.resolve(operand))}")


@converter("aten::layer_norm", lowering="moments in PyTorch's order, fused multiply-add")
def layer_norm(context: ImportContext, node: Node) -> TensorValue:
    """aten::layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float
    eps=1e-05, bool cudnn_enable=True) -> Tensor

    float64 within rounding.
    """
    value = float_tensor(context, node, "input")
    weight, bias = (_optional(context, node, name) for name in ("weight", "bias"))
    shape = context.integers(node, "normalized_shape")
    name = node.scope or "layer_norm"
    return value.with_expr(emit_layer_norm(context, value.expr, shape, weight, bias, context.number(node, "eps"), name))


def emit_layer_norm(
    context: ImportContext, expr: Any, shape: Sequence[int], weight: Any | None, bias: Any | None, eps: float, name: str
) -> Any:
    """Returns expr normalized over its last dimensions, which have this shape, times weight plus bias."""
    dtype, rank = str(expr.ty.dtype), len(static_shape(expr))
    if dtype == "float32":
        addend = constant(np.zeros(tuple(shape)), dtype) if bias is None else bias
        return context.emit(tir_layer_norm(expr, weight, addend, eps), name)
    normal = normalize(context, expr, range(rank - len(shape), rank), eps)
    return emit_affine(context, normal, weight, bias, name)


def normalize(context: ImportContext, expr: Any, axes: Sequence[int], eps: float) -> Any:
    """Returns (expr - mean) / sqrt(variance + eps) over these axes."""
    dtype = str(expr.ty.dtype)
    wide = cast(expr, "float64")
    mean = context.emit(relax.op.mean(wide, list(axes), keepdims=True))
    centered = context.emit(relax.op.subtract(wide, mean))
    variance = context.emit(relax.op.mean(relax.op.multiply(centered, centered), list(axes), keepdims=True))
    deviation = context.emit(relax.op.sqrt(relax.op.add(variance, constant(eps, "float64"))))
    return context.emit(cast(relax.op.divide(centered, deviation), dtype))


def emit_affine(context: ImportContext, expr: Any, weight: Any | None, bias: Any | None, name: str) -> Any:
    """Returns expr * weight + bias; either may be missing."""
    if weight is not None:
        expr = relax.op.multiply(expr, weight)
    if bias is not None:
        expr = relax.op.add(expr, bias)
    return expr if weight is None and bias is None else context.emit(expr, name)


@converter("aten::group_norm", lowering="moments in float64, multiply and add", exact=UP_TO_ORDER)
def group_norm(context: ImportContext, node: Node) -> TensorValue:
    """aten::group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, bool
    cudnn_enabled=True) -> Tensor

    Shapes: input [N, C, ...]; weight and bias [C].
    """
    return _norm_by_group(context, node, context.integer(node, "num_groups"))


@converter("aten::instance_norm", lowering="moments in float64, multiply and add", exact=UP_TO_ORDER)
def instance_norm(context: ImportContext, node: Node) -> TensorValue:
    """aten::instance_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool
    use_input_stats, float momentum, float eps, bool cudnn_enabled) -> Tensor
    """
    if not node.args["use_input_stats"]:
        raise context.unsupported(node, "an instance norm with running statistics")
    return _norm_by_group(context, node, float_tensor(context, node, "input").shape[1])


def _norm_by_group(context: ImportContext, node: Node, groups: int) -> TensorValue:
    value = float_tensor(context, node, "input")
    shape = value.shape
    channels = [1, shape[1]] + [1] * (len(shape) - 2)
    split = context.emit(relax.op.reshape(value.expr, (shape[0], groups, shape[1] // groups, *shape[2:])))
    normal = normalize(context, split, range(2, len(shape) + 1), context.number(node, "eps"))
    affine = [_optional(context, node, name) for name in ("weight", "bias")]
    weight, bias = (None if expr is None else relax.op.reshape(expr, channels) for expr in affine)
    whole = context.emit(relax.op.reshape(normal, shape))
    return value.with_expr(emit_affine(context, whole, weight, bias, node.scope or node.function))


def _optional(context: ImportContext, node: Node, name: str) -> Any | None:
    return None if node.args[name] is None else float_tensor(context, node, name).expr
