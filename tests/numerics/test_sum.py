"""The order of float32 sums: torch.sum to the last bit, for all kinds of reduced axes and layouts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from qtorch_relay.layout import Layout
from qtorch_relay.numerics.sum import sum_f32

SHAPES = (
    *((5,), (7,), (8,), (9,), (100,), (777,)),
    *((3, 40), (37, 3), (40, 70), (300, 4), (600, 9), (2, 3, 50)),
    *((3, 33, 5, 7), (2, 40, 7, 7), (1, 64, 9, 1), (2, 6, 17, 3), (1, 1, 9, 30)),
    *((2, 3, 4, 5, 6), (2, 37, 2, 3, 5)),
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


LAYOUTS = [(shape, channels_last) for shape in SHAPES for channels_last in (False, True)[: 2 if len(shape) > 3 else 1]]


@pytest.mark.parametrize(("shape", "channels_last"), LAYOUTS, ids=str)
def test_sum_adds_in_pytorchs_order(shape: tuple[int, ...], channels_last: bool) -> None:
    values = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * 100
    tensor = torch.from_numpy(values)
    if channels_last:
        tensor = tensor.contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    layout = Layout(shape, tuple(tensor.stride()))
    for count in range(1, len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            found = torch.sum(tensor, axes).numpy()
            np.testing.assert_array_equal(sum_f32(values, layout, axes), found, err_msg=f"axes {axes}")
