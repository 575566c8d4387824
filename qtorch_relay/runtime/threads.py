"""The number of threads, one for the process, although TVM keeps a pool for every thread that calls it."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from qtorch_relay.errors import InvalidInputError
from qtorch_relay.runtime import ffi

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_num_threads: int | None = None


class _ThreadState(threading.local):
    """What this thread's pool was set to; pool_lost: it was made before a fork, so its workers do not exist here."""

    configured: int | None = None
    pool_lost: bool = False


_state = _ThreadState()


def set_num_threads(n: int) -> None:
    """Sets how many threads a call of a CompiledModel uses, in every thread of this process.

    Raises:
        InvalidInputError: n is not an integer from 1 to the number of CPUs this process may use.
    """
    cpus = len(_allowed_cpus())
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= cpus:
        raise InvalidInputError(
            f"number of threads {n!r}; accepted is an integer from 1 to {cpus}, the CPUs this process may use"
        )
    global _num_threads
    _num_threads = n


def get_num_threads() -> int:
    """Returns the number of threads a call uses; unless set, one for each physical core this process may use."""
    return _physical_cores() if _num_threads is None else _num_threads


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets calls in the block use one thread, here and in every thread of this process."""
    global _num_threads
    before, _num_threads = _num_threads, 1
    try:
        prepare_thread()
        yield
    finally:
        _num_threads = before
        prepare_thread()


def prepare_thread() -> None:
    """Makes the calling thread's pool what `set_num_threads` asked for; cheap when nothing changed."""
    wanted = get_num_threads()
    if _state.configured == wanted:
        return
    cpus = _allowed_cpus()
    # A pool's size is fixed when its thread first needs it. The main thread's may be asked for more later, so it gets
    # one worker per CPU (idle ones sleep). Other threads get what is asked now: a server with many threads would
    # otherwise keep a pool of all CPUs for each.
    size = len(cpus) if threading.current_thread() is threading.main_thread() else wanted
    # A pool without workers would wait for them forever; with one thread TVM runs the work in the caller.
    asked = 1 if _state.pool_lost else wanted
    used = ffi.config_threadpool(asked, [cpus[i % len(cpus)] for i in range(size)])
    if used != wanted:
        why = (
            "it was made before this process was forked"
            if _state.pool_lost
            else "it was made smaller at the thread's first call"
        )
        warnings.warn(
            f"this thread uses {used} of the {wanted} threads asked for: TVM's thread pool cannot grow, and {why}; "
            "run the model in a new thread instead",
            RuntimeWarning,
            stacklevel=3,
        )
    _state.configured = wanted


def _allowed_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@lru_cache(maxsize=1)
def _physical_cores() -> int:
    cores = set()
    for cpu in _allowed_cpus():
        path = Path(_SIBLINGS.format(cpu))
        cores.add(path.read_text() if path.exists() else str(cpu))
    return len(cores)


def _after_fork() -> None:
    _state.pool_lost = _state.pool_lost or _state.configured is not None
    _state.configured = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
