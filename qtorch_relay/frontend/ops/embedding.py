"""Converters of quantized embeddings: rows of 8-, 4- or 2-bit codes, looked up and summed."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import EmbeddingParams, Node, TensorConstant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.moves import chosen
from qtorch_relay.frontend.registry import UP_TO_ORDER, converter, converter_of, fold
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.kernels import EmbeddingBagSpec, build_embedding_bag

# TVM's kOpaque operator pattern: no generic pass fuses into or rewrites a kernel.
_OPAQUE = 8
_INDEX_DTYPES = ("int32", "int64")
_NOTE = (
    "every mode is a sum, as in PyTorch, which ignores mode. The first offset is 0: where it is not, PyTorch's 4-bit "
    "kernel starts at the first index all the same"
)

fold(
    "quantized::embedding_bag_prepack",
    *(f"quantized::embedding_bag_{bits}_prepack" for bits in ("byte", "4bit", "2bit")),
    *(f"quantized::embedding_bag_{bits}_prepack_with_rowwise_min_max" for bits in ("byte", "4bit", "2bit")),
    how="packs constant weights",
)
fold(
    "quantized::embedding_bag_unpack",
    *(f"quantized::embedding_bag_{bits}_unpack" for bits in ("byte", "4bit", "2bit")),
    how="reads packed weights",
)


@converter_of({"quantized::embedding_byte": 8, "quantized::embedding_4bit": 4}, lowering="a loop over rows")
def embedding(context: ImportContext, node: Node, bits: int) -> TensorValue:
    """quantized::embedding_byte(EmbeddingPackedParamsBase weight, Tensor indices, bool pruned_weights=False) -> Tensor

    Each row is fma(scale, code, bias). Indices of one or two dimensions; one out of range raises when the program runs.
    Shapes: indices [...] int32 or int64; output [..., D] float32.
    Source: quantized/cpu/qembeddingbag.cpp QEmbedding; FBGEMM src/EmbeddingSpMDM.cc.
    """
    indices = _indices(context, node)
    if context.argument(node, "pruned_weights"):
        raise context.unsupported(node, "pruned_weights needs a mapping of indices, which this op does not take")
    table = _packed_table(context, node, bits)
    shape = (*indices.shape, _dim(table, bits))
    return _lookup(context, node, table, bits, indices, shape=shape)


@converter_of(
    {"quantized::embedding_bag_byte": 8, "quantized::embedding_bag_4bit": 4},
    lowering="a loop over bags and rows",
    note=_NOTE,
)
def embedding_bag(context: ImportContext, node: Node, bits: int) -> TensorValue:
    """quantized::embedding_bag_byte(EmbeddingPackedParamsBase weight, Tensor indices, Tensor? offsets=None, bool
    scale_grad_by_freq=False, int mode=0, bool pruned_weights=False, Tensor? per_sample_weights=None, Tensor?
    compressed_indices_mapping=None, bool include_last_offset=False) -> Tensor

    Row by row of a bag, sum = fma(scale, code, sum + bias); per_sample_weights multiply scale and bias first.
    Shapes: indices [L] with offsets [B], or indices [B, L]; output [B, D] float32.
    Source: quantized/cpu/qembeddingbag.cpp QEmbeddingBag; FBGEMM src/EmbeddingSpMDM.cc, EmbeddingSpMDMNBit.cc.
    """
    return _bag(context, node, _packed_table(context, node, bits), bits)


@converter_of(
    {
        "quantized::embedding_bag_byte_rowwise_offsets": 8,
        "quantized::embedding_bag_4bit_rowwise_offsets": 4,
        "quantized::embedding_bag_2bit_rowwise_offsets": 2,
    },
    lowering="a loop over bags and rows",
    note=_NOTE,
)
def embedding_bag_rowwise(context: ImportContext, node: Node, bits: int) -> TensorValue:
    """quantized::embedding_bag_byte_rowwise_offsets(Tensor weight, Tensor indices, Tensor? offsets=None, bool
    scale_grad_by_freq=False, int mode=0, bool pruned_weights=False, Tensor? per_sample_weights=None, Tensor?
    compressed_indices_mapping=None, bool include_last_offset=False) -> Tensor

    As embedding_bag_byte, of rows that hold their scale and bias behind the codes; the rows may be an input.
    Shapes: weight [N, bytes] uint8.
    Source: quantized/cpu/qembeddingbag.cpp embedding_bag_byte_rowwise_offsets.
    """
    weight = context.tensor(node, "weight")
    if weight.dtype != "uint8" or len(weight.shape) != 2:
        raise context.unsupported(node, f"weight must be uint8 [rows, bytes], found {weight.dtype} {weight.shape}")
    return _bag(context, node, weight, bits)


def _packed_table(context: ImportContext, node: Node, bits: int) -> TensorValue:
    params: EmbeddingParams = context.embedding_params(node)
    if params.bits != bits:
        raise context.unsupported(node, f"weight {params.name} has codes of {params.bits} bits")
    return TensorValue(context.param(f"{params.name}_rows", params.rows))


def _dim(table: TensorValue, bits: int) -> int:
    return (table.shape[1] - (8 if bits == 8 else 4)) * (8 // bits)


def _indices(context: ImportContext, node: Node) -> TensorValue:
    indices = context.tensor(node, "indices")
    if indices.dtype not in _INDEX_DTYPES or len(indices.shape) not in (1, 2):
        raise context.unsupported(
            node, f"indices must be int32 or int64 of one or two dimensions, found {indices.dtype} {indices.shape}"
        )
    return indices


def _bag(context: ImportContext, node: Node, table: TensorValue, bits: int) -> TensorValue:
    indices = _indices(context, node)
    offsets = context.argument(node, "offsets")
    has_last_offset = bool(context.argument(node, "include_last_offset"))
    if len(indices.shape) == 2:
        if offsets is not None or has_last_offset or indices.shape[1] == 0:
            raise context.unsupported(
                node, "indices of two dimensions are bags of one length: they take no offsets and are not empty"
            )
        return _lookup(context, node, table, bits, indices, bag_length=indices.shape[1])
    if not isinstance(offsets, TensorValue) or offsets.dtype not in _INDEX_DTYPES or len(offsets.shape) != 1:
        raise context.unsupported(
            node, f"indices of one dimension need offsets, an int32 or int64 vector; found {describe(offsets)}"
        )
    if has_last_offset and offsets.shape[0] == 0:
        raise context.unsupported(node, "offsets must have a last entry, and have none")
    return _lookup(context, node, table, bits, indices, offsets=offsets, has_last_offset=has_last_offset)


def _weights(context: ImportContext, node: Node, count: int) -> TensorValue | None:
    weights = context.argument(node, "per_sample_weights") if "per_sample_weights" in node.args else None
    if weights is None:
        return None
    if not isinstance(weights, TensorValue) or weights.dtype != "float32" or int(np.prod(weights.shape)) != count:
        raise context.unsupported(
            node, f"per_sample_weights must be float32, one for each index; found {describe(weights)}"
        )
    return TensorValue(context.emit(relax.op.reshape(weights.expr, (count,)), "weights"))


def _mapping(context: ImportContext, node: Node) -> TensorValue | None:
    """Returns the table from indices to rows, None if indices are rows."""
    if "compressed_indices_mapping" not in node.args or not context.argument(node, "pruned_weights"):
        return None
    given = node.args["compressed_indices_mapping"]
    if isinstance(given, TensorConstant) and given.array.size == 1 and not given.array.any():
        return None  # PyTorch's sign that no row was pruned
    mapping = context.argument(node, "compressed_indices_mapping")
    if not isinstance(mapping, TensorValue) or mapping.dtype != "int32" or len(mapping.shape) != 1:
        raise context.unsupported(
            node, f"pruned_weights needs compressed_indices_mapping, an int32 vector; found {describe(mapping)}"
        )
    return mapping


def _lookup(
    context: ImportContext,
    node: Node,
    table: TensorValue,
    bits: int,
    indices: TensorValue,
    *,
    bag_length: int = 1,
    offsets: TensorValue | None = None,
    has_last_offset: bool = False,
    shape: tuple[int, ...] | None = None,
) -> TensorValue:
    """Emits the call of a kernel.

    shape: of the result, if it is not [bags, dim].
    """
    count = int(np.prod(indices.shape))
    weights, mapping = _weights(context, node, count), _mapping(context, node)
    spec = EmbeddingBagSpec(
        table_rows=table.shape[0],
        row_size_bytes=table.shape[1],
        bits=bits,
        indices=count,
        index_dtype="int32" if indices.dtype == "int32" else "int64",
        bag_length=bag_length,
        offset_count=None if offsets is None else offsets.shape[0],
        offsets_dtype="int32" if offsets is not None and offsets.dtype == "int32" else "int64",
        has_last_offset=has_last_offset,
        weighted=weights is not None,
        mapping_size=None if mapping is None else mapping.shape[0],
    )
    flat = context.emit(relax.op.reshape(indices.expr, (count,)), "indices")
    operands: list[Any] = [table.expr, flat]
    operands += [value.expr for value in (offsets, weights, mapping) if value is not None]
    out = _call(context, node, build_embedding_bag(spec), operands, (spec.bags, spec.dim))
    if shape is not None and shape != (spec.bags, spec.dim):
        out = context.emit(relax.op.reshape(out, shape), "embedding")
    return TensorValue(out)


def _call(context: ImportContext, node: Node, function: Any, operands: list[Any], shape: tuple[int, ...]) -> Any:
    """Emits a call of a kernel with a float32 result."""
    # a function's name is given by the module it is added to
    opaque = function.without_attr("global_symbol").with_attr("op_pattern", _OPAQUE)
    kernel = context.builder.add_func(opaque, "embedding")
    call = relax.call_tir(kernel, operands, relax.TensorType(shape, "float32"))
    return context.emit(call, node.scope or "embedding")


@converter("aten::embedding", lowering="take")
def float_embedding(context: ImportContext, node: Node) -> TensorValue:
    """aten::embedding(Tensor weight, Tensor indices, int padding_idx=-1, bool scale_grad_by_freq=False, bool
    sparse=False) -> Tensor

    Rows of floats, as reference models and float parts look them up; an index out of range raises, as in PyTorch.
    """
    weight, indices = context.tensor(node, "weight"), context.tensor(node, "indices")
    if weight.dtype != "float32" or len(weight.shape) != 2 or indices.dtype not in _INDEX_DTYPES:
        raise context.unsupported(
            node,
            "weight must be float32 [rows, dim] and indices int32 or int64, "
            f"found {weight.dtype} {weight.shape} and {indices.dtype}",
        )
    return TensorValue(chosen(context, node, weight, 0, indices).expr)


@converter("aten::embedding_bag", lowering="take, then sum, mean or max", exact=UP_TO_ORDER)
def float_embedding_bag(context: ImportContext, node: Node) -> tuple[TensorValue | None, ...]:
    """aten::embedding_bag.padding_idx(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq, int mode,
    bool sparse, Tensor? per_sample_weights, bool include_last_offset, int? padding_idx) -> (Tensor, Tensor, Tensor,
    Tensor)

    Bags of one length, as indices of two dimensions give them. Only the first output has a value: the others are for
    gradients.
    Shapes: weight [N, D] float32; indices [L]; offsets [B], known at import; output [B, D].
    """
    weight, indices = context.tensor(node, "weight"), context.tensor(node, "indices")
    given, padding = node.args["offsets"], node.args.get("padding_idx")
    if not isinstance(given, TensorConstant) or padding not in (None, -1) or weight.dtype != "float32":
        raise context.unsupported(
            node, "accepted are float32 rows, offsets that are known at import, and no padding_idx"
        )
    starts = np.asarray(given.array, np.int64)
    bounds = starts if context.argument(node, "include_last_offset") else np.append(starts, indices.shape[0])
    lengths = set(np.diff(bounds).tolist())
    if len(lengths) != 1 or 0 in lengths or starts[0] != 0:
        raise context.unsupported(node, f"bags of {sorted(lengths)} indices; accepted are bags of one length")
    rows = chosen(context, node, weight, 0, indices).expr
    factors = context.argument(node, "per_sample_weights")
    if factors is not None:
        rows = context.emit(relax.op.multiply(rows, relax.op.expand_dims(factors.expr, [1])))
    bags = context.emit(relax.op.reshape(rows, (len(bounds) - 1, lengths.pop(), weight.shape[1])))
    reduce = (relax.op.sum, relax.op.mean, relax.op.max)[context.integer(node, "mode")]
    return TensorValue(context.emit(reduce(bags, axis=[1]), node.scope or "embedding_bag")), None, None, None
