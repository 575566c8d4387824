"""Times programs that take turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from qtorch_relay.errors import QTorchRelayError

TURNS = 5
WARM_UP_CALLS = 3
WARM_UP_S = 0.5  # slow programs have fewer, at least one
# Worker threads spin for a tenth of a second after their work is done; they must not spin into the next one's turn.
REST_S = 0.3


class PeerUnavailableError(QTorchRelayError):
    """A peer is not installed, or cannot take the model."""


def interleave(
    calls: Mapping[str, Callable[[], Any]], rounds: int, each: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Returns the latencies of each program in milliseconds, at least rounds of them.

    Each program has several turns of several calls, the first ones of a turn unmeasured; the programs take turns in
    order.
    each is called after every turn.
    """
    latencies_ms: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in [*calls.items()] * TURNS:
        time.sleep(REST_S)
        turn = time.perf_counter()
        for _ in range(WARM_UP_CALLS):
            call()
            if time.perf_counter() - turn > WARM_UP_S:
                break
        for _ in range(-(-rounds // TURNS)):
            start = time.perf_counter()
            call()
            latencies_ms[name].append((time.perf_counter() - start) * 1e3)
        each()
    return latencies_ms
