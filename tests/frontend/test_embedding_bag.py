"""Bags of float embeddings: sums, means and maxima of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qtorch_relay as qr
from qtorch_relay.errors import InvalidInputError, UnsupportedOpError
from tests.frontend.models import UNOPTIMIZED

pytestmark = pytest.mark.filterwarnings("ignore:nothing in this model is int8")


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_equal_pytorchs(mode: str) -> None:
    torch.manual_seed(0)
    model = nn.EmbeddingBag(10, 6, mode=mode).eval()
    index = torch.randint(0, 10, (3, 5))
    compiled = qr.compile(model, [("i", index)], UNOPTIMIZED, kernels=False)
    torch.testing.assert_close(compiled(index), model(index), rtol=0, atol=1e-6)
    with pytest.raises(InvalidInputError, match="index 10 is out of range; accepted are 0 to 9"):
        compiled(torch.full((3, 5), 10))


def test_bags_of_run_time_lengths_are_refused() -> None:
    index, offsets = torch.tensor([1, 2, 3]), torch.tensor([0, 1])
    with pytest.raises(UnsupportedOpError, match="offsets that are known at import"):
        qr.from_pytorch(nn.EmbeddingBag(10, 6).eval(), [("i", index), ("o", offsets)])
