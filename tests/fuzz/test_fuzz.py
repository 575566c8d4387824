"""Random quantized networks, post-training and QAT, eager and FX: the same codes as PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.frontend.models import UNOPTIMIZED
from tests.fuzz.check import check
from tests.fuzz.graph import Network, Step
from tests.fuzz.search import search

NETWORKS_IN_A_TEST = 20
# Generic code is compiled without optimization, which is ten times faster; the optimized program, with its kernels,
# gets every tenth batch.
TARGETS: list[Any] = ["host", *[UNOPTIMIZED] * 9]


@pytest.mark.parametrize("number", range(25))
def test_random_networks_give_pytorch_codes(number: int) -> None:
    search(NETWORKS_IN_A_TEST, number, TARGETS[number % len(TARGETS)])


def test_a_difference_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(1, (8, 4, 8), (Step("relu", (0,), {}),), "eager", "fbgemm", 0)
    check(network, UNOPTIMIZED)
    monkeypatch.setattr("qtorch_relay.frontend.ops.activation.clamp_below_zero", lambda context, value: value)
    with pytest.raises(AssertionError, match=r"outputs differ; first differing layer: .*aten::relu"):
        check(network, UNOPTIMIZED)
