"""The demo's network, trained once."""

from __future__ import annotations

import pytest
from torch import nn

from calibration.batches import ArrayBatches
from qtorch_relay.demo.digits import Digits, load_digits, train


@pytest.fixture(scope="session")
def digits() -> Digits:
    return load_digits()


@pytest.fixture(scope="session")
def network(digits: Digits) -> nn.Module:
    return train(digits, lambda items, _: items)


@pytest.fixture(scope="session")
def training(digits: Digits) -> ArrayBatches:
    return ArrayBatches((digits.train_images[:256],), digits.train_labels[:256])


@pytest.fixture(scope="session")
def test(digits: Digits) -> ArrayBatches:
    return ArrayBatches((digits.test_images,), digits.test_labels, 60)
