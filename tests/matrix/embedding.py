"""Rows of quantized embeddings: packed and row-wise tables, bags of every form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tests.matrix.case import Apply, Case
from tests.matrix.engine_free import thinned

ROWS, LENGTH = 23, 29
OFFSETS = np.array([0, 4, 4, 11, 28])
OPS = torch.ops.quantized
TABLE_BITS = {"byte": 8, "4bit": 4, "2bit": 2}


def _values(dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(2 * torch.randn(ROWS, 1, generator=generator))
    return torch.randn(ROWS, dim, generator=generator) * spread


def _packed(dim: int, dtype: torch.dtype) -> Any:
    generator = torch.Generator().manual_seed(dim)
    scales = torch.exp(2 * torch.randn(ROWS, generator=generator)) * 0.01
    zero_points = torch.rand(ROWS, generator=generator) * (255 if dtype == torch.quint8 else 15)
    quantized = torch.quantize_per_channel(_values(dim, dim), scales, zero_points, 0, dtype)
    return OPS.embedding_bag_prepack(quantized)


def _indices(shape: tuple[int, ...], dtype: Any, count: int = ROWS) -> np.ndarray[Any, Any]:
    return np.asarray(np.random.default_rng(sum(shape)).integers(0, count, shape), dtype)


def _calling(op: Any, names: tuple[str, ...], **settings: Any) -> Callable[..., Any]:
    """Returns a function of (indices, the inputs of these names..., weight=) that calls an op."""

    def call(indices: torch.Tensor, *inputs: torch.Tensor, weight: Any, **constants: Any) -> Any:
        return op(weight, indices, **dict(zip(names, inputs, strict=True)), **constants, **settings)

    return call


def _embeddings() -> Iterator[Case]:
    for name, dtype in (("byte", torch.quint8), ("4bit", torch.quint4x2)):
        op = getattr(OPS, f"embedding_{name}")
        for dim in (2, 8, 24, 34, 100):
            for shape in ((1,), (7,), (3, 5)):
                for index_dtype in (np.int64, np.int32):
                    yield Case(
                        f"quantized::embedding_{name}",
                        f"{dim}-{'x'.join(map(str, shape))}-{np.dtype(index_dtype)}",
                        lambda op=op, dim=dim, dtype=dtype: Apply(_calling(op, ()), weight=_packed(dim, dtype)),
                        (_indices(shape, index_dtype),),
                    )


def _bags(op_name: str, make_weight: Callable[[int], Any], dims: tuple[int, ...]) -> Iterator[Case]:
    """Yields the rows of one op: offsets, last offsets, two dimensions, weights, pruned tables, modes."""
    op, op_id = getattr(OPS, op_name), f"quantized::{op_name}"
    weights = np.random.default_rng(5).normal(size=LENGTH).astype(np.float32)
    for dim in dims:
        for index_dtype in (np.int64, np.int32) if dim == dims[0] else (np.int64,):
            kind = str(np.dtype(index_dtype))
            indices, offsets = _indices((LENGTH,), index_dtype), OFFSETS.astype(index_dtype)

            def row(
                variant: str,
                names: tuple[str, ...],
                inputs: tuple[Any, ...],
                dim: int = dim,
                kind: str = kind,
                **settings: Any,
            ) -> Case:
                constants = {key: value for key, value in settings.items() if isinstance(value, torch.Tensor)}
                plain = {key: value for key, value in settings.items() if key not in constants}

                def make() -> Apply:
                    return Apply(_calling(op, names, **plain), weight=make_weight(dim), **constants)

                return Case(op_id, f"{variant}-{dim}-{kind}", make, inputs)

            yield row("offsets", ("offsets",), (indices, offsets))
            last = np.append(offsets, LENGTH).astype(index_dtype)
            yield row("last-offset", ("offsets",), (indices, last), include_last_offset=True)
            yield row("weighted", ("offsets", "per_sample_weights"), (indices, offsets, weights))
            yield row("2d", (), (_indices((4, 6), index_dtype),))
            yield row(
                "2d-weighted", ("per_sample_weights",), (_indices((4, 7), index_dtype), weights[:28].reshape(4, 7))
            )
            mapping = np.full(40, -1, np.int32)
            mapping[np.sort(np.random.default_rng(6).permutation(40)[:ROWS])] = np.arange(ROWS)
            pruned = {"pruned_weights": True, "compressed_indices_mapping": torch.from_numpy(mapping)}
            many = _indices((LENGTH,), index_dtype, 40)
            yield row("pruned", ("offsets",), (many, offsets), **pruned)
            yield row("pruned-weighted", ("offsets", "per_sample_weights"), (many, offsets, weights), **pruned)
    unpruned = {"pruned_weights": True, "compressed_indices_mapping": torch.zeros(1, dtype=torch.int32)}
    indices = _indices((LENGTH,), np.int64)
    yield row("none-pruned", ("offsets",), (indices, OFFSETS), **unpruned)
    for mode in (1, 2):
        yield row(f"mode{mode}", ("offsets",), (indices, OFFSETS), mode=mode)
    yield row("mixed", ("offsets",), (indices, OFFSETS.astype(np.int32)))
    yield row("one-bag", ("offsets",), (indices, np.zeros(1, np.int64)))
    yield row("empty-bags", ("offsets",), (indices, np.array([0, 0, 29, 29])))


def _row_wise_inputs() -> Iterator[Case]:
    for name in TABLE_BITS:
        rows = getattr(OPS, f"embedding_bag_{name}_prepack")(_values(16, 3)).numpy()
        op = getattr(OPS, f"embedding_bag_{name}_rowwise_offsets")
        yield Case(
            f"quantized::embedding_bag_{name}_rowwise_offsets",
            "table-is-an-input",
            lambda op=op: Apply(lambda table, indices, offsets: op(table, indices, offsets)),
            (rows, _indices((LENGTH,), np.int64), OFFSETS),
        )


def _modules() -> Iterator[Case]:
    """Yields modules as torch.ao.quantization makes them, and weights packed in the model itself."""
    for dtype in (torch.quint8, torch.quint4x2):
        name = str(dtype).removeprefix("torch.")

        def embedding(dtype: torch.dtype = dtype) -> torch.nn.Module:
            torch.manual_seed(0)
            return torch.ao.nn.quantized.Embedding(ROWS, 12, _weight=_quantized(12, dtype), dtype=dtype)

        def bag(dtype: torch.dtype = dtype) -> torch.nn.Module:
            return torch.ao.nn.quantized.EmbeddingBag(
                ROWS, 12, _weight=_quantized(12, dtype), dtype=dtype, mode="sum", include_last_offset=True
            )

        op = "byte" if dtype == torch.quint8 else "4bit"
        yield Case(f"quantized::embedding_{op}", f"module-{name}", embedding, (_indices((2, 5), np.int64),))
        last = np.append(OFFSETS, LENGTH)
        yield Case(f"quantized::embedding_bag_{op}", f"module-{name}", bag, (_indices((LENGTH,), np.int64), last))


def _floats() -> Iterator[Case]:
    for shape in ((), (7,), (2, 3, 4)):
        for index_dtype in (np.int64, np.int32):
            yield Case(
                "aten::embedding",
                f"{shape}-{np.dtype(index_dtype)}",
                lambda: torch.nn.Embedding.from_pretrained(_values(9, 1), padding_idx=2),
                (_indices(shape, index_dtype),),
            )


def _quantized(dim: int, dtype: torch.dtype) -> torch.Tensor:
    scales, zero_points = torch.linspace(0.001, 0.1, ROWS), torch.linspace(0, 15, ROWS)
    return torch.quantize_per_channel(_values(dim, 9), scales, zero_points, 0, dtype)


def _rows() -> Iterator[Case]:
    yield from _embeddings()
    yield from _bags("embedding_bag_byte", lambda dim: _packed(dim, torch.quint8), (1, 34, 100))
    yield from _bags("embedding_bag_4bit", lambda dim: _packed(dim, torch.quint4x2), (2, 34, 100))
    for name, bits in TABLE_BITS.items():

        def table(dim: int, name: str = name) -> torch.Tensor:
            return getattr(OPS, f"embedding_bag_{name}_prepack")(_values(dim, 3))

        dims = tuple(8 // bits * factor for factor in (1, 4, 17))
        yield from _bags(f"embedding_bag_{name}_rowwise_offsets", table, dims)
    yield from _row_wise_inputs()
    yield from _modules()
    yield from _floats()


def cases() -> Iterator[Case]:
    """Yields the rows."""
    return thinned(_rows(), 7)
