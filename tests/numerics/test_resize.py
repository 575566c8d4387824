"""Resizing of quantized maps: the codes of PyTorch's kernels, tolerance 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.numerics import resize

from .reference_torch import TORCH_DTYPES, codes_of, random_codes, random_qparams, tensor


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear(align_corners: bool, channels_last: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for turn in range(60):
        height, width = (int(extent) for extent in rng.integers(1, 9, 2))
        scale = None if align_corners or turn % 3 else float(rng.uniform(0.7, 3))
        size = (
            tuple(int(x) for x in rng.integers(1, 23, 2))
            if scale is None
            else (int(height * scale), int(width * scale))
        )
        if min(size) < 1:
            continue
        channels = int(rng.choice([3, 8, 21]))
        codes, qparams = random_codes(rng, (2, channels, height, width), dtype), random_qparams(rng, dtype)
        if turn % 2:
            codes = codes // 64 * 64 + codes.dtype.type(1)  # few values make ties
        if height * width == 1:
            continue  # PyTorch writes these where they do not belong (test_inconsistent.py)
        found = torch.ops.aten.upsample_bilinear2d(
            tensor(codes, qparams, channels_last), size, align_corners, scale, scale
        )
        expected = resize.upsample_bilinear2d(
            codes, qparams, size, align_corners=align_corners, scales=(scale, scale), channels_last=channels_last
        )
        np.testing.assert_array_equal(expected, codes_of(found), err_msg=f"{codes.shape} to {size}")


@pytest.mark.parametrize("exact", [False, True])
def test_nearest(exact: bool) -> None:
    rng = np.random.default_rng(1)
    op = torch.ops.aten._upsample_nearest_exact2d if exact else torch.ops.aten.upsample_nearest2d
    for turn in range(400):
        extent = int(rng.integers(1, 40))
        scale = float(np.round(rng.uniform(0.3, 3.3), turn % 5)) if turn % 2 else None
        outputs = int(rng.integers(1, 90)) if scale is None else int(extent * scale)
        if outputs < 1:
            continue
        codes = np.broadcast_to(np.arange(extent, dtype=np.uint8), (1, 1, 2, extent))
        found = codes_of(op(tensor(codes, random_qparams(rng)), [3, outputs], None, scale))[0, 0, 0]
        np.testing.assert_array_equal(resize.nearest_index(extent, outputs, scale, exact=exact), found)
