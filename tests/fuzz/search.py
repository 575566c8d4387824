"""Draws networks until one differs from PyTorch, then looks for the smallest that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.check import check
from tests.fuzz.graph import Network, networks


def search(
    count: int, number: int, target: Any, each: Callable[[], None] = lambda: None, *, shrink: bool = True
) -> None:
    """Raises AssertionError with a network, as code, if one of count networks differs; the smallest found if shrink.

    number: the seed. each is called after every network.
    """
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck))
    @given(networks())
    def run(network: Network) -> None:
        check(network, target)
        each()

    run()
