"""Attention of tensors that are not quantized: scaled_dot_product_attention, and PyTorch's fused transformer ops.

They equal PyTorch up to the order of float additions. PyTorch takes the fused ops in eval mode ("fast path"), where
nn.MultiheadAttention and nn.TransformerEncoderLayer are what a trace calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.dimensions import is_fixed
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.floating_elementwise import FLOAT_DTYPES, float_tensor, gelu_of
from qtorch_relay.frontend.ops.floating_matmul import emit_linear
from qtorch_relay.frontend.ops.floating_norm import emit_layer_norm
from qtorch_relay.frontend.ops.floating_softmax import softmax_of
from qtorch_relay.frontend.registry import IN_MKLS_ORDER, UP_TO_ORDER, converter
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.tir.attention import FLASH_KEYS, attention_factors, attention_weights
from qtorch_relay.tir.ops import fma

ATTENTION_EXACT = f"{IN_MKLS_ORDER}; of more than {FLASH_KEYS} keys, or without 4 dimensions, within rounding"
# mask_type of aten::_native_multi_head_attention: what the dimensions of a mask are
MASK_SHAPES = {0: "[L, S]", 1: "[N, S]", 2: "[N, heads, L, S]"}


@converter("aten::scaled_dot_product_attention", lowering="matmul, softmax, matmul", exact=ATTENTION_EXACT)
def scaled_dot_product_attention(context: ImportContext, node: Node) -> TensorValue:
    """aten::scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float
    dropout_p=0., bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor

    Shapes: query [..., heads, L, E]; key [..., heads, S, E]; value [..., heads, S, V]; with enable_gqa key and value
    have fewer heads, each for several of the query's.
    """
    query, key, value = (float_tensor(context, node, name) for name in ("query", "key", "value"))
    if context.number(node, "dropout_p"):
        raise context.unsupported(node, "dropout_p above 0 in eval mode")
    scale = 1 / math.sqrt(query.shape[-1]) if node.args["scale"] is None else context.number(node, "scale")
    keys, values = key.expr, value.expr
    if node.args.get("enable_gqa", False):
        repeats = query.shape[-3] // key.shape[-3]
        keys, values = (context.emit(relax.op.repeat(expr, repeats, -3)) for expr in (keys, values))
    allowed: Any | None = None
    added: Any | None = None
    if node.args["is_causal"]:
        triangle = np.tril(np.ones((query.shape[-2], key.shape[-2]), bool))
        allowed = constant(triangle, "bool")
    elif node.args["attn_mask"] is not None:
        mask = context.tensor(node, "attn_mask")
        allowed, added = (mask.expr, None) if mask.dtype == "bool" else (None, mask.expr)
    name = node.scope or "attention"
    if _is_fused(context, node, (query, key, value)):
        scores = _scores(context, query.expr, keys, scale, allowed, added)
        weights = context.emit(attention_weights(scores))
        attended = context.emit(relax.op.matmul(weights, values))
        return query.with_expr(context.emit(relax.op.multiply(attended, attention_factors(weights)), name))
    weights = _weights(context, query.expr, keys, scale, allowed, added)
    return query.with_expr(context.emit(relax.op.matmul(weights, values), name))


def _is_fused(context: ImportContext, node: Node, tensors: Sequence[TensorValue]) -> bool:
    """Tells whether PyTorch takes its fused kernel, and computes in one piece.

    Source: aten/src/ATen/native/transformers/sdp_utils_cpp.cpp use_flash_attention_cpp.
    """
    layouts = [context.layout(node, name) for name in ("query", "key", "value")]
    in_rows = all(layout is None or layout.strides[-1] == 1 for layout in layouts)
    same = len({tensor.shape[-1] for tensor in tensors}) == 1 and len({tensor.shape[0] for tensor in tensors}) == 1
    known = is_fixed(tensors[1].shape[-2]) and tensors[1].shape[-2] <= FLASH_KEYS
    fits = all(len(tensor.shape) == 4 and tensor.dtype == "float32" for tensor in tensors)
    return fits and same and known and in_rows


def _weights(context: ImportContext, query: Any, key: Any, scale: float, allowed: Any | None, added: Any | None) -> Any:
    """Returns softmax(query @ key.T * scale); where a row may look at nothing, its weights are 0, as in PyTorch."""
    scores = _scores(context, query, key, scale, allowed, added)
    dtype, axis = str(scores.ty.dtype), len(static_shape(key)) - 1
    if added is None and allowed is None:
        return context.emit(softmax_of(scores, axis))
    # TVM's maximum of -inf alone is the lowest finite number, where it starts
    lowest = constant(np.finfo(dtype).min, dtype)
    nothing = relax.op.less_equal(relax.op.max(scores, -1, keepdims=True), lowest)
    return context.emit(relax.op.where(nothing, constant(0, dtype), context.emit(softmax_of(scores, axis))))


def _scores(context: ImportContext, query: Any, key: Any, scale: float, allowed: Any | None, added: Any | None) -> Any:
    """Returns query @ key.T * scale, plus added, and -inf where a query may not look."""
    dtype, rank = str(query.ty.dtype), len(static_shape(key))
    swapped = context.emit(relax.op.permute_dims(key, [*range(rank - 2), rank - 1, rank - 2]))
    product, factor = context.emit(relax.op.matmul(query, swapped)), constant(scale, dtype)
    if added is None:
        scores = relax.op.multiply(product, factor)
    elif dtype == "float32":
        scores = fma(product, factor, cast(added, dtype))
    else:
        scores = relax.op.add(relax.op.multiply(product, factor), cast(added, dtype))
    scores = context.emit(scores, "scores")
    if allowed is not None:
        scores = context.emit(relax.op.where(allowed, scores, constant(-np.inf, dtype)))
    return scores


@converter("aten::_native_multi_head_attention", lowering="matmul, softmax, matmul", exact=UP_TO_ORDER)
def native_multi_head_attention(context: ImportContext, node: Node) -> tuple[TensorValue, TensorValue | None]:
    """aten::_native_multi_head_attention(Tensor query, Tensor key, Tensor value, int embed_dim, int num_head, Tensor
    qkv_weight, Tensor qkv_bias, Tensor proj_weight, Tensor proj_bias, Tensor? mask=None, bool need_weights=True, bool
    average_attn_weights=True, int? mask_type=None) -> (Tensor, Tensor)

    Shapes: query, key and value [N, L, E].
    Source: aten/src/ATen/native/transformers/attention.cpp.
    """
    tensors = [float_tensor(context, node, name).expr for name in ("query", "key", "value")]
    attended, weights = _multi_head(context, node, tensors)
    if not node.args["need_weights"]:
        return TensorValue(attended), None
    if node.args["average_attn_weights"]:
        weights = context.emit(relax.op.mean(weights, 1), "weights")
    return TensorValue(attended), TensorValue(weights)


def _multi_head(context: ImportContext, node: Node, tensors: list[Any]) -> tuple[Any, Any]:
    """Returns the projected attention [N, L, E] and the weights [N, heads, L, S] of query, key and value."""
    weight, bias, out_weight, out_bias = (
        float_tensor(context, node, name).expr for name in ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias")
    )
    width = context.integer(node, "embed_dim")
    heads = context.integer(node, "num_heads" if "num_heads" in node.args else "num_head")
    batch, length, _ = static_shape(tensors[0])
    projected = []
    for i, tensor in enumerate(tensors):
        part, part_bias = (
            context.emit(relax.op.strided_slice(expr, [0], [i * width], [(i + 1) * width])) for expr in (weight, bias)
        )
        linear = emit_linear(context, tensor, part, part_bias, "projected")
        split = context.emit(relax.op.reshape(linear, (batch, -1, heads, width // heads)))
        projected.append(context.emit(relax.op.permute_dims(split, [0, 2, 1, 3])))
    query, key, value = projected
    allowed = _allowed(context, node)
    weights = _weights(context, query, key, 1 / math.sqrt(width // heads), allowed, None)
    attended = context.emit(relax.op.permute_dims(relax.op.matmul(weights, value), [0, 2, 1, 3]))
    merged = context.emit(relax.op.reshape(attended, (batch, length, width)))
    return emit_linear(context, merged, out_weight, out_bias, node.scope or "attention"), weights


def _allowed(context: ImportContext, node: Node) -> Any | None:
    """Returns where a query may look at a key, broadcast to [N, heads, L, S]; the op's mask says where it may not."""
    if node.args["mask"] is None:
        return None
    mask = context.tensor(node, "mask")
    expr = mask.expr
    if mask.dtype != "bool":
        if mask.dtype not in FLOAT_DTYPES:
            raise context.unsupported(node, f"a mask that is {describe(mask)}; accepted are bool and floats")
        expr = relax.op.not_equal(expr, constant(0, mask.dtype))
    kind = node.args["mask_type"]
    if kind not in MASK_SHAPES:
        raise context.unsupported(node, f"mask_type {kind}; accepted are {MASK_SHAPES}")
    if kind == 1:
        expr = relax.op.expand_dims(expr, [1, 2])
    return context.emit(relax.op.logical_not(expr), "allowed")


@converter("aten::_transformer_encoder_layer_fwd", lowering="attention, layer norms, linear layers", exact=UP_TO_ORDER)
def transformer_encoder_layer(context: ImportContext, node: Node) -> TensorValue:
    """aten::_transformer_encoder_layer_fwd(Tensor src, int embed_dim, int num_heads, Tensor qkv_weight, Tensor
    qkv_bias, Tensor proj_weight, Tensor proj_bias, bool use_gelu, bool norm_first, float eps, Tensor norm_weight_1,
    Tensor norm_bias_1, Tensor norm_weight_2, Tensor norm_bias_2, Tensor ffn_weight_1, Tensor ffn_bias_1, Tensor
    ffn_weight_2, Tensor ffn_bias_2, Tensor? mask=None, int? mask_type=None) -> Tensor

    Source: aten/src/ATen/native/transformers/transformer.cpp (the gelu is the exact one).
    """
    source = float_tensor(context, node, "src")
    norm_first, name = bool(node.args["norm_first"]), node.scope or "encoder_layer"

    def norm(expr: Any, which: int) -> Any:
        weight, bias = (float_tensor(context, node, f"norm_{kind}_{which}").expr for kind in ("weight", "bias"))
        return emit_layer_norm(context, expr, static_shape(weight), weight, bias, context.number(node, "eps"), name)

    def feed_forward(expr: Any) -> Any:
        (w1, b1), (w2, b2) = (
            [float_tensor(context, node, f"ffn_{kind}_{which}").expr for kind in ("weight", "bias")] for which in (1, 2)
        )
        hidden = emit_linear(context, expr, w1, b1, name)
        activation = gelu_of if node.args["use_gelu"] else relax.op.nn.relu
        return emit_linear(context, context.emit(activation(hidden)), w2, b2, name)

    before = norm(source.expr, 1) if norm_first else source.expr
    attended, _ = _multi_head(context, node, [before] * 3)
    result = context.emit(relax.op.add(attended, source.expr), name)
    if norm_first:
        result = context.emit(relax.op.add(feed_forward(norm(result, 2)), result), name)
    else:
        result = norm(result, 1)
        result = norm(context.emit(relax.op.add(feed_forward(result), result), name), 2)
    return source.with_expr(result)
