"""layer_norm in numpy against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.numerics.layer_norm import layer_norm


@pytest.mark.parametrize("count", [1, 3, 7, 8, 13, 72, 256, 300, 768, 1000, 2050, 5003])
def test_layer_norm(count: int) -> None:
    rng = np.random.default_rng(count)
    x, weight, bias = (
        (rng.standard_normal(shape) * 2 + 1).astype(np.float32) for shape in ((300, count), (count,), (count,))
    )
    tensors = [torch.from_numpy(array) for array in (x, weight, bias)]
    expected = torch.nn.functional.layer_norm(tensors[0], (count,), tensors[1], tensors[2])
    np.testing.assert_array_equal(layer_norm(x, weight, bias, 1e-5), expected.numpy())
    plain = torch.nn.functional.layer_norm(tensors[0], (count,), bias=tensors[2], eps=1e-3)
    np.testing.assert_array_equal(layer_norm(x, None, bias, 1e-3), plain.numpy())
