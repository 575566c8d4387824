"""Threads: several callers at once, the number of threads, forks."""

from __future__ import annotations

import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtorch_relay.errors import InvalidInputError
from qtorch_relay.runtime import CompiledModel, ffi, get_num_threads, set_num_threads, threads

CALLS = 400
TASKS = Path("/proc/self/task")
X = np.ones((64, 32), "float32")


@pytest.fixture(autouse=True)
def restore_num_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_num_threads", None)


def pool_size() -> int:
    return int(ffi.tvm_ffi().get_global_func("runtime.NumThreads")())


@pytest.mark.parametrize("num_threads", [1, 2])
def test_many_threads_call_one_model(parallel: CompiledModel, num_threads: int, two_cpus: None) -> None:
    set_num_threads(num_threads)
    inputs = [np.full((64, 32), i, "float32") for i in range(CALLS)]
    start = threading.Barrier(4)

    def call(share: range) -> list[Any]:
        start.wait()
        return [parallel(inputs[i]) for i in share]

    shares = [range(i, CALLS, 4) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, shares))
    for share, outputs in zip(shares, results, strict=True):
        for i, output in zip(share, outputs, strict=True):
            assert (output == 2 * i).all()


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test ask for two threads on any machine."""
    if len(os.sched_getaffinity(0)) < 2:
        monkeypatch.setattr(threads, "_allowed_cpus", lambda: [0, 0])


def test_number_of_threads_can_shrink_and_grow(parallel: CompiledModel, two_cpus: None) -> None:
    for wanted in (1, 2, 1, 2):
        set_num_threads(wanted)
        parallel(X)
        assert (get_num_threads(), pool_size()) == (wanted, wanted)


def test_calls_leave_the_affinity_of_their_thread_alone(parallel: CompiledModel, two_cpus: None) -> None:
    before = os.sched_getaffinity(0)

    def work() -> set[int]:
        parallel(X)
        return os.sched_getaffinity(0)

    for wanted in (2, 1):
        set_num_threads(wanted)
        with ThreadPoolExecutor(1) as pool:
            assert work() == pool.submit(work).result() == before


def test_another_thread_follows_the_number_but_cannot_grow(parallel: CompiledModel, two_cpus: None) -> None:

    def work() -> list[int]:
        sizes = []
        for wanted in (1, 2):
            set_num_threads(wanted)
            parallel(X)
            sizes.append(pool_size())
        return sizes

    with (
        ThreadPoolExecutor(1) as pool,
        pytest.warns(RuntimeWarning, match="uses 1 of the 2 threads asked for: .* made smaller at the thread's first"),
    ):
        assert pool.submit(work).result() == [1, 1]


@pytest.mark.skipif(not TASKS.exists(), reason="counts threads as Linux tells them")
def test_workers_end_with_their_thread(parallel: CompiledModel, two_cpus: None) -> None:
    set_num_threads(2)
    parallel(X)
    before = len(list(TASKS.iterdir()))
    for _ in range(5):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(parallel, X).result()
    deadline = time.monotonic() + 60
    while len(list(TASKS.iterdir())) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(TASKS.iterdir())) <= before


@pytest.mark.parametrize("wrong", [0, -1, 10_000, 1.5, "2", True, None])
def test_wrong_numbers_of_threads_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"number of threads .*; accepted is an integer from 1 to"):
        set_num_threads(wrong)


def test_default_is_at_least_one() -> None:
    assert 1 <= get_num_threads() <= (os.cpu_count() or 1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_runs_on_one_thread_instead_of_waiting(parallel: CompiledModel, two_cpus: None) -> None:
    set_num_threads(2)
    want = parallel(X)
    child = os.fork()
    if child == 0:
        # The child must not return into pytest, whatever happens.
        status = 1
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                same = (parallel(X) == want).all()
            status = 0 if same and any("forked" in str(w.message) for w in caught) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
