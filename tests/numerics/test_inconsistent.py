"""Where PyTorch is not consistent with itself on quantized maps: the smallest cases, so that a fix would be noticed.

Ours gives in each the values that PyTorch gives for the other layout or engine (tests/matrix says so in its rows).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.qparams import PerTensor

from .reference_torch import codes_of, random_codes, random_qparams, tensor


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
@pytest.mark.parametrize(
    "resize",
    [
        lambda q: functional.interpolate(q, size=(2, 2), mode="bilinear"),
        lambda q: functional.interpolate(q, size=(2, 2), mode="nearest"),
        lambda q: functional.adaptive_avg_pool2d(q, (2, 2)),
    ],
    ids=["bilinear", "nearest", "adaptive_avg_pool2d"],
)
def test_planar_maps_of_one_pixel_are_scattered(resize: Callable[[torch.Tensor], torch.Tensor], engine: str) -> None:
    """A planar [N, C, 1, 1] passes for channels-last; the result is written so into memory that is planar."""
    codes = np.asarray([69, 3, 200], np.uint8).reshape(1, 3, 1, 1)
    with quantized_engine(engine):
        found = codes_of(resize(tensor(codes, random_qparams(np.random.default_rng(0)))))
    right = np.broadcast_to(codes, (1, 3, 2, 2))
    assert (found != right).any()
    np.testing.assert_array_equal(found.reshape(4, 3), right.transpose(0, 2, 3, 1).reshape(4, 3))


def test_qnnpack_max_pool_with_dilation_and_padding_is_not_the_maximum() -> None:
    rng = np.random.default_rng(0)
    codes, qparams = random_codes(rng, (1, 2, 7, 7)), random_qparams(rng)
    right = functional.max_pool2d(torch.from_numpy(codes.astype(np.float32)), 3, 2, 1, 2).numpy()
    found = {}
    for engine in ("fbgemm", "qnnpack"):
        with quantized_engine(engine):
            found[engine] = codes_of(functional.max_pool2d(tensor(codes, qparams), 3, 2, 1, 2))
    np.testing.assert_array_equal(found["fbgemm"], right)
    assert (found["qnnpack"] != right).any()


def test_qnnpack_average_pool_ignores_count_include_pad_and_the_divisor() -> None:
    rng = np.random.default_rng(0)
    quantized = tensor(*(random_codes(rng, (1, 2, 4, 4)), random_qparams(rng)))
    with quantized_engine("qnnpack"):
        plain = codes_of(functional.avg_pool2d(quantized, 3, 2, 1))
        for options in ({"count_include_pad": False}, {"divisor_override": 2}):
            np.testing.assert_array_equal(codes_of(functional.avg_pool2d(quantized, 3, 2, 1, **options)), plain)
    with quantized_engine("fbgemm"):
        assert (codes_of(functional.avg_pool2d(quantized, 3, 2, 1, count_include_pad=False)) != plain).any()


def test_qnnpack_clamp_scrambles_channels_last_maps() -> None:
    rng = np.random.default_rng(0)
    codes, qparams = random_codes(rng, (1, 3, 2, 2)), PerTensor(0.1, 128, "uint8")
    with quantized_engine("qnnpack"):
        planar, moved = (codes_of(tensor(codes, qparams, layout).clamp(-50, 50)) for layout in (False, True))
    assert (planar != moved).any()
    np.testing.assert_array_equal(np.sort(planar, axis=None), np.sort(moved, axis=None))
