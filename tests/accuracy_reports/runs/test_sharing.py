"""Chunks are shared among workers that die: none is lost, none comes twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator
from itertools import islice

import pytest

from accuracy_reports.runs.ending import Ending, WorkerLostError
from accuracy_reports.runs.sharing import MAX_DEATHS_OF_A_CHUNK, MAX_FAILURES, share_chunks
from qtorch_relay.errors import InvalidInputError

CHUNKS = range(40)


class Square:
    """Answers chunk ** 2; dies as it is told."""

    def __init__(self, ending: Ending, dies: Callable[[int], bool] = lambda chunk: False) -> None:
        self.name = "square"
        self._dies = dies

    def evaluate(self, chunk: int) -> int:
        if self._dies(chunk):
            raise WorkerLostError(f"{self.name} died")
        return chunk**2

    def close(self) -> None:
        """Has nothing to let go of."""


def no_pause(seconds: float) -> None:
    """Waits for nothing."""


def squares(chunks: range = CHUNKS) -> list[int]:
    return [chunk**2 for chunk in chunks]


@pytest.mark.parametrize("workers", [1, 2, 7, 60])
def test_every_chunk_comes_once(workers: int) -> None:
    assert sorted(share_chunks(CHUNKS, [Square] * workers)) == squares()


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(share_chunks([], [Square])) == []


@pytest.mark.parametrize("seed", range(20))
def test_workers_that_die_at_random_lose_nothing(seed: int) -> None:
    rng = random.Random(seed)
    died: set[int] = set()

    def dies(chunk: int) -> bool:
        if chunk in died or rng.random() > 0.3:
            return False
        died.add(chunk)
        return True

    said: list[str] = []
    found = list(share_chunks(CHUNKS, [lambda _: Square(_, dies)] * 3 + [Square], said.append, no_pause))
    assert sorted(found) == squares()
    assert len(said) <= len(died)


def test_the_last_chunk_goes_to_a_worker_that_waits() -> None:
    other_is_idle = threading.Event()
    held = threading.Event()

    class Dying(Square):
        def evaluate(self, chunk: int) -> int:
            held.set()
            assert other_is_idle.wait(10)
            raise WorkerLostError("the board lost its power")

    class Patient(Square):
        def evaluate(self, chunk: int) -> int:
            assert held.wait(10)
            other_is_idle.set()  # the one chunk left is at the worker that dies
            return super().evaluate(chunk)

    dying = iter([Dying(Ending())])

    def hire_once(_: Ending) -> Square:
        worker = next(dying, None)
        if worker is None:
            raise WorkerLostError("it does not come back")
        return worker

    assert sorted(share_chunks(range(2), [hire_once, Patient], pause=no_pause)) == [0, 1]


def test_a_worker_that_comes_back_is_hired_again() -> None:
    hired = []

    def hire(_: Ending) -> Square:
        hired.append(1)
        if len(hired) % 2:
            raise WorkerLostError("it restarts")
        return Square(_, lambda chunk: chunk == len(hired))

    assert sorted(share_chunks(range(10), [hire], pause=no_pause)) == squares(range(10))
    assert len(hired) > 2


def test_when_no_worker_is_left_what_is_done_has_come() -> None:
    found: list[int] = []

    def late(chunk: int) -> bool:
        return chunk >= 5

    def hire(_: Ending) -> Square:
        return Square(_, late)

    results = share_chunks(range(8), [hire], pause=no_pause)
    with pytest.raises(WorkerLostError, match=r"no worker is left, 3 chunks are not done: .*run the same command"):
        found.extend(results)
    assert found == squares(range(5))


def test_a_worker_that_always_fails_is_given_up() -> None:
    calls: list[int] = []

    def hire(_: Ending) -> Square:
        calls.append(1)
        raise WorkerLostError("nobody answers")

    with pytest.raises(WorkerLostError, match="no worker is left, 40 chunks are not done: nobody answers; what is"):
        list(share_chunks(CHUNKS, [hire], pause=no_pause))
    assert len(calls) == MAX_FAILURES
    assert sorted(share_chunks(CHUNKS, [hire, Square], pause=no_pause)) == squares()


def test_a_chunk_that_kills_is_not_given_to_all() -> None:
    deaths = []

    def kills(chunk: int) -> bool:
        deaths.extend([1] if chunk == 7 else [])
        return chunk == 7

    with pytest.raises(WorkerLostError, match="3 workers were lost on chunk 7"):
        list(share_chunks(CHUNKS, [lambda _: Square(_, kills)] * 9, pause=no_pause))
    assert len(deaths) == MAX_DEATHS_OF_A_CHUNK


def test_the_last_two_workers_do_not_wait_for_each_other() -> None:
    with pytest.raises(WorkerLostError, match="no worker is left, 1 chunk is not done: square died"):
        list(share_chunks(CHUNKS, [lambda _: Square(_, lambda chunk: chunk == 7)] * 2, pause=no_pause))


def test_an_error_that_is_nobodys_death_ends_the_run() -> None:
    class Broken(Square):
        def evaluate(self, chunk: int) -> int:
            raise InvalidInputError("the model takes 3 channels")

    with pytest.raises(InvalidInputError, match="3 channels"):
        list(share_chunks(CHUNKS, [Broken, Broken]))


def test_workers_are_let_go_when_the_run_is_left() -> None:
    at_work: set[Square] = set()
    threads_before = threading.active_count()

    class Counted(Square):
        def __init__(self, ending: Ending) -> None:
            super().__init__(ending)
            at_work.add(self)

        def close(self) -> None:
            at_work.discard(self)

    results = share_chunks(range(100_000), [Counted, Counted])
    assert len(list(islice(results, 3))) == 3
    assert at_work
    assert isinstance(results, Generator)
    results.close()
    assert not at_work
    assert threading.active_count() == threads_before


def test_the_end_interrupts_what_workers_wait_for() -> None:
    """When the last chunk is done a place may still wait for a worker, and a run that is left has chunks at work."""

    class Waiting(Square):
        def __init__(self, ending: Ending) -> None:
            never = threading.Event()
            with ending.interrupted_by(never.set):
                assert never.wait(60)
                raise WorkerLostError("it was interrupted")

    class Working(Square):
        def __init__(self, ending: Ending) -> None:
            super().__init__(ending)
            self._ending = ending

        def evaluate(self, chunk: int) -> int:
            if chunk == 0:
                return 0
            never = threading.Event()
            with self._ending.interrupted_by(never.set):
                assert never.wait(60)
                raise WorkerLostError("it was interrupted")

    threads_before, start = threading.active_count(), time.monotonic()
    assert sorted(share_chunks(range(5), [Square, Waiting])) == squares(range(5))
    results = share_chunks(range(5), [Working, Working, Waiting])
    assert next(iter(results)) == 0
    assert isinstance(results, Generator)
    results.close()
    assert threading.active_count() == threads_before
    assert time.monotonic() - start < 50
    ended = Ending()
    ended.end()
    with pytest.raises(WorkerLostError, match="the run is over"), ended.interrupted_by(never_called):
        raise AssertionError("the block of an ended run is not entered")


def never_called() -> None:
    raise AssertionError("the run ended before")
