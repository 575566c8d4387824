"""gelu in numpy against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.numerics.gelu import gelu

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="oneDNN has another formula without AVX-512"
)


def test_gelu_of_every_magnitude() -> None:
    rng = np.random.default_rng(0)
    spread = np.exp(rng.uniform(-100, 88, 200_000)) * rng.choice([-1, 1], 200_000)
    x = np.concatenate([rng.standard_normal(200_000) * 3, spread, [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 5.5425]])
    x = x.astype(np.float32)
    np.testing.assert_array_equal(gelu(x), torch.nn.functional.gelu(torch.from_numpy(x)).numpy())
