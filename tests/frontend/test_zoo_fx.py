"""torchvision's classifiers without a quantizable form, quantized by FX, saved and loaded: 0 differing codes.

`make zoo-fx` does the same for eleven of them at full size.
"""

from __future__ import annotations

import pytest
import torch

from accuracy_reports.zoo_fx_report import compare_fx_model


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # PyTorch's vector tails depend on the number of threads


@pytest.mark.parametrize(
    ("name", "engine", "path"), [("squeezenet1_1", "fbgemm", "kernels"), ("mobilenet_v3_small", "onednn", "portable")]
)
def test_networks_of_codes_throughout_are_equal(name: str, engine: str, path: str) -> None:
    row = compare_fx_model(name, engine, path, 64)
    assert (row.path, row.wrong, row.differing_codes, row.differing_floats, row.output_differing) == (path, (), 0, 0, 0)
    assert row.layers > 30


def test_a_network_with_floats_between_codes_is_equal_up_to_their_rounding() -> None:
    row = compare_fx_model("convnext_tiny", "fbgemm", "portable", 32)
    assert (row.wrong, row.differing_codes) == ((), 0)
    assert row.largest_ulp <= 2
    assert row.output_fraction <= 0.1  # codes that moved at ties, and what follows from them
