"""Lookups of embeddings: sums equal to numerics_embedding, and nothing read or written out of range."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qtorch_relay._tvm import tvm
from qtorch_relay.kernels import EmbeddingBagSpec, build_embedding_bag
from qtorch_relay.numerics.embedding import embedding_bag

ROWS, LENGTH, BAGS = 19, 40, 5
# Without optimization and with all that the compiler may do: the fused multiply-add is one either way.
TARGETS = [{"kind": "llvm", "opt-level": 0}, {"kind": "llvm", "mcpu": "x86-64-v3"}]
SPEC = EmbeddingBagSpec(ROWS, 12 + 4, 4, LENGTH, "int64", offset_count=BAGS, has_last_offset=False, weighted=True)


def _run(function: Any, target: dict[str, Any], inputs: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    mod = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    library = tvm.compile(mod, target=tvm.target.Target(target))
    out = tvm.runtime.tensor(np.full(shape, np.nan, np.float32))
    library["kernel"](*(tvm.runtime.tensor(array) for array in inputs), out)
    result: np.ndarray[Any, Any] = out.numpy()
    return result


def _inputs(spec: EmbeddingBagSpec) -> list[Any]:
    rng = np.random.default_rng(spec.bits)
    codes = rng.integers(0, 256, (spec.table_rows, spec.code_size_bytes)).astype(np.uint8)
    parameters = rng.normal(size=(spec.table_rows, 2)).astype(np.float32 if spec.bits == 8 else np.float16)
    parameters[0] = [6e-8, -0.0]  # the least float16 that is not 0
    rows = np.hstack([codes, parameters.view(np.uint8)])
    indices = rng.integers(0, spec.table_rows, spec.indices)
    offsets = np.sort(np.append(0, rng.integers(0, spec.indices + 1, BAGS - 1)))
    return [rows, indices, offsets, rng.normal(size=spec.indices).astype(np.float32)]


@pytest.mark.parametrize("target", TARGETS, ids=["unoptimized", "optimized"])
@pytest.mark.parametrize(("bits", "size"), [(8, 13 + 8), (4, 12 + 4), (2, 7 + 4)])
def test_sums_equal_the_numerics(bits: int, size: int, target: dict[str, Any]) -> None:
    spec = replace(SPEC, bits=bits, row_size_bytes=size)
    rows, indices, offsets, weights = inputs = _inputs(spec)
    found = _run(build_embedding_bag(spec), target, inputs, (BAGS, spec.dim))
    expected = embedding_bag(rows, bits, indices, np.append(offsets, LENGTH), weights)
    np.testing.assert_array_equal(found, expected)


def test_a_large_table_is_summed_by_several_threads() -> None:
    spec = replace(SPEC, indices=4000)
    rows, indices, offsets, weights = inputs = _inputs(spec)
    found = _run(build_embedding_bag(spec), TARGETS[1], inputs, (BAGS, spec.dim))
    np.testing.assert_array_equal(found, embedding_bag(rows, 4, indices, np.append(offsets, 4000), weights))


@pytest.mark.parametrize("index", [-1, ROWS, 2**40])
def test_an_index_out_of_range_raises(index: int) -> None:
    inputs = _inputs(SPEC)
    inputs[1][LENGTH - 1] = index
    with pytest.raises(
        IndexError, match=rf"a quantized embedding: index {index} is out of range; accepted are 0 to 18"
    ):
        _run(build_embedding_bag(SPEC), TARGETS[0], inputs, (BAGS, SPEC.dim))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 5, 3, 6, 7], "decrease"), ([-1, 0, 0, 0, 0], "negative"), ([0, 0, 0, 0, LENGTH + 1], "decrease|beyond")],
)
def test_offsets_out_of_order_or_range_raise(offsets: list[int], message: str) -> None:
    inputs = _inputs(SPEC)
    inputs[2] = np.array(offsets)
    with pytest.raises(IndexError, match=message):
        _run(build_embedding_bag(SPEC), TARGETS[0], inputs, (BAGS, SPEC.dim))


def test_a_mapping_to_no_row_raises() -> None:
    spec = replace(SPEC, mapping_size=ROWS)
    mapping = np.arange(ROWS, dtype=np.int32)
    inputs = [*_inputs(spec), mapping]
    inputs[1][:] = 4
    mapping[4] = ROWS
    with pytest.raises(IndexError, match="mapping"):
        _run(build_embedding_bag(spec), TARGETS[0], inputs, (BAGS, spec.dim))
    mapping[4] = -1
    assert not _run(build_embedding_bag(spec), TARGETS[0], inputs, (BAGS, spec.dim)).any()


def test_a_spec_without_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="no codes"):
        replace(SPEC, row_size_bytes=4)
    with pytest.raises(ValueError, match="not bags of 7"):
        EmbeddingBagSpec(ROWS, 16, 4, LENGTH, "int64", bag_length=7)
