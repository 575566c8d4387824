"""Tells those who work for a run that it is over: whatever they wait for then ends at once.

A thread that still waits inside of TVM or Ray when Python exits would take the process down with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qtorch_relay.errors import QTorchRelayError


class WorkerLostError(QTorchRelayError):
    """A worker died, or cannot be had: what it was doing is to be done by another."""


class Ending:
    """The end of a run, seen from its workers' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._actions: dict[object, Callable[[], None]] = {}

    def is_over(self) -> bool:
        """Says whether the run is over."""
        return self._over

    def end(self) -> None:
        """Ends the run: what is done inside of `interrupted_by` is interrupted."""
        with self._lock:
            self._over = True
            actions = list(self._actions.values())
        for action in actions:
            action()

    @contextmanager
    def interrupted_by(self, action: Callable[[], None]) -> Iterator[None]:
        """Lets the end of the run call an action, from another thread, that makes the block raise WorkerLostError.

        Raises:
            WorkerLostError: the run is over already.
        """
        token = object()
        with self._lock:
            if self._over:
                raise WorkerLostError("the run is over")
            self._actions[token] = action
        try:
            yield
        finally:
            with self._lock:
                del self._actions[token]
