"""Shares the chunks of a run among workers that may die: processes of a Ray cluster, boards of a farm.

No chunk is lost: that of a worker that dies goes back to the others. None counts twice: a chunk is given to one worker
at a time, and what a worker that was given up might still answer is not taken.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

from accuracy_reports.runs.ending import Ending, WorkerLostError

THREAD_NAME = "for a worker"
# A worker that fails so often in a row, with longer and longer pauses, is not hired again.
MAX_FAILURES = 4
FIRST_PAUSE_S = 0.5
# A chunk on which so many different workers died is not given to another.
MAX_DEATHS_OF_A_CHUNK = 3
# What a worker does between two things that the end of a run interrupts takes less.
_END_TIMEOUT_S = 60.0

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Worker(Protocol[R_co]):
    """One place where chunks are evaluated. name: for messages."""

    name: str

    def evaluate(self, chunk: int) -> R_co:
        """Returns a chunk's result. Raises: WorkerLostError if this worker is of no more use."""
        ...

    def close(self) -> None:
        """Lets go of the place; never raises."""
        ...


# Starts a worker, or raises WorkerLostError if there is none now; what it and the worker wait for, the run's end ends.
Hire: TypeAlias = Callable[[Ending], Worker[R]]


def share_chunks(
    chunks: Sequence[int],
    hires: Sequence[Hire[R]],
    say: Callable[[str], None] = lambda text: None,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[R]:
    """Yields the result of every chunk, in any order.

    hires: one for each worker at a time; called again when its worker was lost, as a board that restarts comes back.
    say: told who was lost and why.

    Raises:
        WorkerLostError: no worker is left, or one chunk kills workers; all results there were have been yielded.
        QTorchRelayError: what else a worker raises, which would go wrong everywhere.
    """
    desk: _Desk[R] = _Desk(chunks, len(hires), say, pause)
    threads = [
        threading.Thread(target=desk.work, args=item, name=f"{THREAD_NAME} {item[0]}", daemon=True)
        for item in enumerate(hires)
    ]
    for thread in threads:
        thread.start()
    try:
        yield from desk.results()
    finally:
        desk.stop()
        for thread in threads:
            thread.join(_END_TIMEOUT_S)


class _Desk(Generic[R]):
    """What is to be done, what is done, and who still works; all of it under one lock."""

    def __init__(
        self, chunks: Sequence[int], workers: int, say: Callable[[str], None], pause: Callable[[float], None]
    ) -> None:
        self._todo = deque(chunks)
        self._open = len(self._todo)  # not yet done, in _todo or at a worker
        self._done: deque[R] = deque()
        self._places = set(range(workers))  # where work is still done
        self._deaths: dict[int, set[int]] = defaultdict(set)  # of each chunk, in which places
        self._problem: BaseException | None = None
        self._reasons: list[str] = []
        self._stopped = False
        self._ending = Ending()
        self._say, self._pause = say, pause
        self._changed = threading.Condition()

    def results(self) -> Iterator[R]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._done or self._problem or not self._open or not self._places)
                if self._done:
                    result = self._done.popleft()
                elif self._problem is not None:
                    raise self._problem
                elif not self._open:
                    return
                else:
                    raise WorkerLostError(self._nobody_left())
            yield result

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._ending.end()

    def work(self, place: int, hire: Hire[R]) -> None:
        """Hires a worker and gives it chunks until there is nothing to do; then another if that one is lost."""
        failures = 0
        try:
            while failures < MAX_FAILURES and self._wait_for_work(place):
                done, reason = self._employ(place, hire)
                failures = 1 if done else failures + 1
                if reason is None:
                    return
                self._lost(reason)
                if failures < MAX_FAILURES:
                    self._pause(FIRST_PAUSE_S * 2 ** (failures - 1))
        except BaseException as error:  # handed to who iterates: a thread has nobody to raise it to
            with self._changed:
                self._problem = self._problem or error
        finally:
            with self._changed:
                self._places.discard(place)
                self._changed.notify_all()

    def _employ(self, place: int, hire: Hire[R]) -> tuple[int, str | None]:
        """Returns how many chunks a worker did, and why it was lost; None if there is nothing left to do."""
        done = 0
        try:
            worker = hire(self._ending)
        except WorkerLostError as error:
            return done, str(error)
        try:
            while (chunk := self._take(place)) is not None:
                try:
                    result = worker.evaluate(chunk)
                except WorkerLostError as error:
                    self._give_back(chunk, place, error)
                    return done, str(error)
                done += 1
                self._finish(result)
        finally:
            worker.close()
        return done, None

    def _wait_for_work(self, place: int) -> bool:
        """Waits until a chunk is to be done; returns False if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._next(place) is not None or self._over)
            return not self._over

    def _take(self, place: int) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._next(place) is not None or self._over)
            chunk = None if self._over else self._next(place)
            if chunk is not None:
                self._todo.remove(chunk)
            return chunk

    def _next(self, place: int) -> int | None:
        """Returns the first chunk to do: of those on which a worker of this place died, only if all others' did too."""
        return next((c for c in self._todo if place not in self._deaths[c] or self._deaths[c] >= self._places), None)

    @property
    def _over(self) -> bool:
        return self._stopped or self._problem is not None or not self._open

    def _finish(self, result: R) -> None:
        with self._changed:
            self._done.append(result)
            self._open -= 1
            self._changed.notify_all()

    def _give_back(self, chunk: int, place: int, error: WorkerLostError) -> None:
        with self._changed:
            deaths = self._deaths[chunk]
            deaths.add(place)
            if len(deaths) >= MAX_DEATHS_OF_A_CHUNK:
                self._problem = WorkerLostError(
                    f"{len(deaths)} workers were lost on chunk {chunk}, so it is not given to another: {error}"
                )
            self._todo.append(chunk)  # behind the others: if it is the chunk that kills, they are done before
            self._changed.notify_all()

    def _lost(self, reason: str) -> None:
        with self._changed:
            if self._over:
                return
            self._reasons.append(reason)
        self._say(reason)

    def _nobody_left(self) -> str:
        reasons = "; ".join(dict.fromkeys(self._reasons))
        count = f"{self._open} chunk{'s are' if self._open > 1 else ' is'}"
        return (
            f"no worker is left, {count} not done: {reasons}; what is done is kept: run the same command again to go on"
        )
