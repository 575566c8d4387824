"""Times of a program's calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qtorch_relay.errors import InvalidInputError
from qtorch_relay.runtime import CompiledModel


def test_every_call_is_timed_in_order(linear: CompiledModel, random_input: Callable[[], Any]) -> None:
    calls = linear.call_times([random_input()], runs=3)
    assert [(call.function, call.shapes) for call in calls] == [
        ("matmul", ((2, 8), (8, 4), (2, 4))),
        ("relu", ((2, 4), (2, 4))),
    ]
    assert all(call.latency_us > 0 for call in calls)


def test_inputs_are_checked_and_the_model_still_runs(linear: CompiledModel, random_input: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInputError, match="input x is float32"):
        linear.call_times([np.zeros((3, 3), "float32")])
    x = random_input()
    before = linear(x)["positive"]
    linear.call_times([x], runs=1)
    assert (linear(x)["positive"] == before).all()
