"""TVM's runtime library without the compiler: what a board needs, loaded in a fifth of a second.

`import tvm` takes about four seconds, one of them for torch, which tvm_ffi imports if it is installed. A bundle needs
neither: the Relax virtual machine is in libtvm_runtime.so, and tvm_ffi alone can call it. The names of TVM's runtime
functions live in this file.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from qtorch_relay.errors import INDEX_ERROR_FUNCTION, QTorchRelayError, raise_index_error

_RUNTIME_LIBRARIES = ("libtvm_runtime.so", "libtvm_runtime.dylib")
_NOT_INSTALLED = "TVM's runtime library is not installed; install it with: pip install 'apache-tvm>=0.27,<0.28'"
CPU, POOLED_ALLOCATOR = 1, 2
_STDERR = 2
_BOUND = "main with its last arguments"
_SCOPE_MESSAGE = re.compile(rb"executable\.cc:\d+: Warning: Scope (Saving|Loaded):")
_load_lock, _stderr_lock = threading.Lock(), threading.Lock()


@lru_cache(maxsize=1)
def _load() -> ModuleType:
    # By default TVM pins its workers, and the thread that calls it, to the first cores: two callers would share one
    # core, and threads that torch starts later would inherit it. TVM_BIND_THREADS=1 in the environment brings it back.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    # By default an idle worker spins for 300000 yields: a tenth of a second on idle cores and far longer on busy ones,
    # where each yield lets others run first. Those of a thread that has ended spin so too; they were measured to halve
    # the speed of threads that work. 3000 are about a millisecond, more than there is between two layers.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "3000")
    try:
        with _without_torch():
            import tvm_ffi
    except ModuleNotFoundError as error:
        raise QTorchRelayError(f"{error.name} is missing: {_NOT_INSTALLED}") from error
    # Where tvm is imported already this is the library it has loaded.
    ctypes.CDLL(str(_runtime_library()), ctypes.RTLD_GLOBAL)
    tvm_ffi.register_global_func(INDEX_ERROR_FUNCTION, raise_index_error, override=True)
    return tvm_ffi


def tvm_ffi() -> Any:
    """Returns the tvm_ffi module with TVM's runtime functions registered; the compiler is not loaded."""
    with _load_lock:
        return _load()


def load_library(library: bytes) -> Any:
    """Returns the module of a shared library that TVM exported.

    Raises:
        QTorchRelayError: the bytes are no library for this machine, or the temporary folder allows no code.
    """
    load_module = tvm_ffi().load_module
    # Only the owner can enter the folder, so nobody changes the file before it is mapped. Its name is not needed after.
    with tempfile.TemporaryDirectory(prefix="qtorch_relay_") as folder:
        path = Path(folder) / "lib.so"
        path.write_bytes(library)
        try:
            with without_scope_messages():
                return load_module(str(path))
        except (RuntimeError, OSError) as error:
            raise QTorchRelayError(
                f"its library cannot be loaded from {folder}: {error}; "
                "if that folder is mounted noexec, set TMPDIR to another"
            ) from error


@contextmanager
def without_scope_messages() -> Iterator[None]:
    """Holds standard error back while TVM reads or writes an executable, and then passes on what is worth reading.

    TVM 0.27 prints a warning "Scope Saving:" or "Scope Loaded:" for each of an executable's constants, dozens for a
    network, whatever it is told about logging.
    """
    if sys.stderr is None:
        yield  # this process runs without standard error
        return
    with _stderr_lock, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(_STDERR)
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(stderr, _STDERR)
            os.close(stderr)
            held.seek(0)
            lines = [line for line in held if not _SCOPE_MESSAGE.search(line)]
            os.write(_STDERR, b"".join(lines))


def make_entry(
    module: Any, last_arguments: Sequence[Any] = (), instrument: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Returns the function "main" of a new virtual machine for a Relax executable; one thread at a time may call it.

    last_arguments: held by the machine and given after those of each call. Python hands over an argument in about a
    microsecond, and a network has hundreds of weights.
    instrument: called before and after each call of a function: (function, name, before, result, *arguments).
    """
    machine = module["vm_load_executable"]()
    machine["vm_initialization"](CPU, 0, POOLED_ALLOCATOR)
    if instrument is not None:
        machine["set_instrument"](instrument)
    if last_arguments:
        include_return = True
        machine["save_function"]("main", _BOUND, include_return, *last_arguments)
    entry: Callable[..., Any] = machine[_BOUND if last_arguments else "main"]
    return entry


def config_threadpool(num_threads: int, cpus: Sequence[int]) -> int:
    """Sets the calling thread's pool to num_threads workers and returns the number it then uses.

    The pool is made for len(cpus) workers when a thread first needs it, and never grows. Only if TVM_BIND_THREADS is 1
    are the workers kept to these cpus.
    """
    share_all_cpus = -3
    get = tvm_ffi().get_global_func
    get("runtime.config_threadpool")(share_all_cpus, num_threads, [str(cpu) for cpu in cpus])
    return int(get("runtime.NumThreads")())


def _runtime_library() -> Path:
    spec = importlib.util.find_spec("tvm")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    for folder in folders:
        for name in _RUNTIME_LIBRARIES:
            for path in (folder / "lib" / name, folder / name):
                if path.exists():
                    return path
    raise QTorchRelayError(_NOT_INSTALLED)


class _HoldTorchBack:
    """A finder that hides torch from the thread that made it; tvm_ffi takes that for torch not being installed."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for torch in the thread that made this, else leaves the import to others."""
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("torch is not needed to load TVM's runtime", name=name)
        return None


@contextmanager
def _without_torch() -> Iterator[None]:
    # Nothing of tvm_ffi that is used here differs with torch: it only adds faster conversions for CUDA tensors.
    finder = _HoldTorchBack()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
