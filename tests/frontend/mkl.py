"""Whether Intel MKL, which multiplies float matrices for PyTorch, adds on this CPU as tir/matmul.py does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.numerics.core import fma_f32
from qtorch_relay.tir.matmul import block_of


def _mkl_adds_in_blocks() -> bool:
    """Tells whether MKL adds on this CPU in the order of tir/matmul.py: products of a block with fused multiply-adds,
    then the blocks."""
    generator = torch.Generator().manual_seed(0)
    for depth in (150, 193, 383, 401):
        x, w = (torch.randn(5, depth, generator=generator), torch.randn(depth, 16, generator=generator))
        total = np.zeros((5, 16), np.float32)
        for start in range(0, depth, block_of(depth)):
            part = np.zeros((5, 16), np.float32)
            for k in range(start, min(depth, start + block_of(depth))):
                part = fma_f32(x.numpy()[:, k : k + 1], w.numpy()[k], part)
            total = total + part
        if not np.array_equal(total, (x @ w).numpy()):
            return False
    return True


in_mkls_order = pytest.mark.skipif(not _mkl_adds_in_blocks(), reason="MKL adds in another order on this CPU")
