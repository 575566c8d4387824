"""numerics_embedding against PyTorch's kernels: floats equal to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qtorch_relay.capture.packed import unpack
from qtorch_relay.numerics.embedding import embedding_bag, unpack_rows

OPS = torch.ops.quantized
NAMES = {8: "byte", 4: "4bit", 2: "2bit"}
ROWS, LENGTH = 37, 61
OFFSETS = np.array([0, 5, 5, 17, 18, 40, LENGTH])


def _table(bits: int, dim: int) -> torch.Tensor:
    rng = np.random.default_rng(dim)
    values = rng.normal(size=(ROWS, dim)) * np.exp(2 * rng.normal(size=(ROWS, 1)))
    table: torch.Tensor = getattr(OPS, f"embedding_bag_{NAMES[bits]}_prepack")(torch.from_numpy(values).float())
    return table


@pytest.mark.parametrize("index_dtype", [np.int64, np.int32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("dim", [4, 8, 12, 20, 36, 64, 100, 260])
@pytest.mark.parametrize("bits", NAMES)
def test_sums_equal_pytorch(bits: int, dim: int, pruned: bool, weighted: bool, index_dtype: Any) -> None:
    table, rng = _table(bits, dim), np.random.default_rng(1)
    mapping = np.full(50, -1, np.int32)
    mapping[np.sort(rng.permutation(50)[:ROWS])] = np.arange(ROWS)
    indices = rng.integers(0, 50 if pruned else ROWS, LENGTH).astype(index_dtype)
    weights = rng.normal(size=LENGTH).astype(np.float32) if weighted else None
    expected = getattr(OPS, f"embedding_bag_{NAMES[bits]}_rowwise_offsets")(
        table,
        torch.from_numpy(indices),
        torch.from_numpy(OFFSETS[:-1].astype(index_dtype)),
        pruned_weights=pruned,
        per_sample_weights=None if weights is None else torch.from_numpy(weights),
        compressed_indices_mapping=torch.from_numpy(mapping) if pruned else None,
    )
    found = embedding_bag(table.numpy(), bits, indices, OFFSETS, weights, mapping if pruned else None)
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize(("bits", "dtype"), [(8, torch.quint8), (4, torch.quint4x2)])
def test_unpacked_parameters_are_those_of_the_kernel(bits: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.exp(3 * torch.randn(ROWS, generator=generator))
    zero_points = torch.rand(ROWS, generator=generator) * 300 - 20
    quantized = torch.quantize_per_channel(torch.randn(ROWS, 30, generator=generator), scales, zero_points, 0, dtype)
    packed = OPS.embedding_bag_prepack(quantized)
    params = unpack(packed, "weight", "quantized::embedding")
    found = embedding_bag(params.rows, bits, np.arange(ROWS), np.arange(ROWS + 1))
    expected = getattr(OPS, f"embedding_{NAMES[bits]}")(packed, torch.arange(ROWS))
    np.testing.assert_array_equal(found, expected.numpy())


def test_codes_of_fewer_bits_start_with_the_lowest() -> None:
    rows = np.zeros((1, 5), np.uint8)
    rows[0, 0] = 0b11_01_10_00
    assert unpack_rows(rows, 2)[0].tolist() == [[0, 2, 1, 3]]
    assert unpack_rows(rows, 4)[0].tolist() == [[0b1000, 0b1101]]


def test_pytorch_starts_at_the_first_index_in_its_4_bit_kernel() -> None:
    """An inconsistency of PyTorch: where the first offset is not 0, its 8-bit kernel starts there."""
    indices, offsets = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2])
    for bits, first in ((8, 1), (4, 0)):
        op = getattr(OPS, f"embedding_bag_{NAMES[bits]}_rowwise_offsets")
        rows = op(_table(bits, 8), indices, torch.arange(4))
        assert torch.equal(op(_table(bits, 8), indices, offsets)[0], rows[first])
