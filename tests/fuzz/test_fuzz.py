"""Random quantized networks, post-training and QAT, eager and FX: the same codes as PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.frontend.models import UNOPTIMIZED
from tests.fuzz.check import check
from tests.fuzz.graph import Network, Step
from tests.fuzz.search import search

# 500 networks. Most are compiled without optimization, which is ten times faster; some as they are deployed, with
# kernels.
BATCHES: list[tuple[int, Any]] = [(10, "host")] * 4 + [(20, UNOPTIMIZED)] * 23


@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_random_networks_give_pytorch_codes(number: int) -> None:
    count, target = BATCHES[number]
    search(count, number, target, shrink=False)  # `make fuzz` looks for the smallest


def test_a_difference_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(1, (8, 4, 8), (Step("relu", (0,), {}),), "eager", "fbgemm", 0)
    check(network, UNOPTIMIZED)
    monkeypatch.setattr("qtorch_relay.frontend.ops.activation.clamp_below_zero", lambda context, value: value)
    with pytest.raises(AssertionError, match=r"outputs differ; first differing layer: .*aten::relu"):
        check(network, UNOPTIMIZED)
