"""A session on a stock `python -m tvm.exec.rpc_server`: what is asked of a board, and what its failures mean.

TVM's RPC has no authentication and no encryption, and lets every client run code: for networks one trusts.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BoardLostError, RemoteError
from qtorch_relay.runtime import ffi
from qtorch_relay.runtime.remote_address import Address
from qtorch_relay.runtime.remote_socket import Connection
from qtorch_relay.runtime.remote_tracker import Tracker

CONNECT_TIMEOUT_S = 10.0
DEFAULT_TIMEOUT_S = 300.0
# TVM's number for a device of a session: its own, plus one for each session before it and 1, times this.
_SESSION_MASK = 128
_SHARE_ALL_CORES = 1
_REMOTE_ERROR = "Error caught from RPC call"
_TIMED_OUT = "Resource temporarily unavailable"
# In TVM's errors for a connection that fails, and what it means.
_OTHER_TVM = "it is of another line of TVM; install apache-tvm 0.27 there"
_REFUSALS = (
    (
        "cannot find server that matches key",
        "it wants another key: say it with --key, or, if a tracker knows it, take --tracker and --key instead of --rpc",
    ),
    ("is not TVM RPC server", "what listens there is no TVM RPC server"),
    ("SendAll", "what listens there is no TVM RPC server; of a tracker's address say --tracker"),
    ("RecvAll", "what listens there is no TVM RPC server; of a tracker's address say --tracker"),
    ("protocol version mismatch", _OTHER_TVM),
    # It has agreed to a session and then speaks another language.
    ("pending_request_bytes_", _OTHER_TVM),
    ("Channel closes before", _OTHER_TVM),
    ("Unknown event", _OTHER_TVM),
)


class Session:
    """A connection to a board. One thread at a time may use it.

    name: the board, for messages.
    """

    def __init__(self, module: Any, connection: Connection, name: str, timeout_s: float) -> None:
        self.name = name
        self._module = module
        self._connection = connection
        self._timeout_s = timeout_s
        self._lost: str | None = None
        self._end = weakref.finalize(self, _end, module, connection)
        get = ffi.tvm_ffi().get_global_func
        device_type = ffi.CPU + _SESSION_MASK * (get("rpc.SessTableIndex")(module) + 1)
        self._device = ffi.tvm_ffi().Device(device_type, 0)
        self._allocate, self._put, self._get, self._time, self._load = map(
            get,
            (
                "runtime.TVMTensorAllocWithScope",
                "runtime.TVMTensorCopyFromBytes",
                "runtime.TVMTensorCopyToBytes",
                "runtime.RPCTimeEvaluator",
                "rpc.LoadRemoteModule",
            ),
        )
        self._device_type = device_type

    def call(self, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Returns what a function of the board returns. doing: what that is, for messages.

        Raises:
            RemoteError: the board reports an error.
            BoardLostError: the connection failed; every later call fails too.
        """
        if self._lost is not None:
            raise BoardLostError(self._lost)
        try:
            return function(*arguments)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, OSError) as error:
            text = str(error)
            if _REMOTE_ERROR in text or isinstance(error, TypeError | AttributeError | IndexError):
                raise RemoteError(f"{self.name} failed {doing}: {_last_line(text)}") from error
            self._lost = self._why_lost(doing, text)
            # Whatever else is asked over it, as when handles are freed, must not wait too.
            self._connection.abort()
            self._end.detach()
            raise BoardLostError(self._lost) from error

    def function(self, name: str) -> Callable[..., Any]:
        """Returns a function of the board's TVM runtime."""
        return self.method(self._module, name)

    def method(self, module: Any, name: str) -> Callable[..., Any]:
        """Returns a function of a module that is loaded on the board."""
        found: Callable[..., Any] = self.call(f"looking up {name}", module.__getitem__, name)
        return found

    def load_library(self, library: bytes, name: str) -> Any:
        """Uploads a shared library and returns its module there."""
        self.call("taking the program", self.function("tvm.rpc.server.upload"), name, library)
        return self.call("loading the program", self._load, self._module, name)

    def remove(self, name: str) -> None:
        """Deletes an uploaded file."""
        self.call("deleting the program's file", self.function("tvm.rpc.server.remove"), name)

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        """Returns a tensor in the board's memory that holds an array."""
        shape, dtype = ffi.tvm_ffi().Shape(array.shape), ffi.tvm_ffi().dtype(str(array.dtype))
        tensor = self.call("allocating memory", self._allocate, shape, dtype, self._device, None)
        self.write(tensor, array)
        return tensor

    def write(self, tensor: Any, array: npt.NDArray[Any]) -> None:
        """Copies an array to a tensor of the board."""
        if array.size:
            source = np.ascontiguousarray(array)
            address = ctypes.c_void_p(source.ctypes.data)
            self.call("taking data", self._put, tensor, address, source.nbytes)

    def read(self, tensor: Any) -> npt.NDArray[Any]:
        """Returns a tensor of the board as an array."""
        array = np.empty(tuple(tensor.shape), str(tensor.dtype))
        if array.size:
            self.call("sending data", self._get, tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
        return array

    def time(self, module: Any, name: str, runs: int) -> list[float]:
        """Returns how long each call of a module's function takes in ms, by the board's own clock, after one more."""
        one_call_each, no_least_ms, no_pause, keep_cache = 1, 0, 0, 0
        evaluate = self.call(
            "making its stop watch", self._time,
            module, name, self._device_type, 0, one_call_each, runs, no_least_ms, 100, no_pause, 1, keep_cache, "",
        )  # fmt: skip
        seconds = self.call("measuring", evaluate)
        return [value * 1e3 for value in struct.unpack(f"@{runs}d", seconds)]

    def set_num_threads(self, num_threads: int | None) -> int:
        """Sets the number of threads there, if one is given, and returns the number it then uses."""
        if num_threads is not None:
            configure = self.function("runtime.config_threadpool")
            self.call("setting its threads", configure, _SHARE_ALL_CORES, num_threads)
        return int(self.call("counting its threads", self.function("runtime.NumThreads")))

    def close(self) -> None:
        """Ends the session; the board is free for others. So does whoever forgets the session."""
        self._lost = self._lost or f"the session on {self.name} is closed"
        self._end()

    def abort(self) -> None:
        """Makes what another thread asks of the board fail at once; nothing more can be asked."""
        self._connection.abort()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _why_lost(self, doing: str, text: str) -> str:
        if _TIMED_OUT in text:
            return (
                f"{self.name} gave no answer for {self._timeout_s:g} s while {doing}; "
                "give it more with --timeout, or look whether it hangs"
            )
        return (
            f"{self.name} dropped away while {doing} ({_last_line(text)}); look whether it and its server still run, "
            "then try again"
        )


def connect(address: Address, key: str = "", timeout_s: float = DEFAULT_TIMEOUT_S) -> Session:
    """Returns a session on a board whose server listens at an address.

    key: what the server was started with; timeout_s: how long one answer may take.

    Raises:
        RemoteError: nobody listens there, it is busy, no RPC server, or of another TVM.
    """
    try:
        # A stock server takes a connection that says nothing for a client that went away.
        with socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S) as probe:
            found = Address(*probe.getpeername()[:2])
    except OSError as error:
        raise RemoteError(
            f"no board answers at {address}: {error.strerror or error}; "
            "start its server with: python -m tvm.exec.rpc_server"
        ) from error
    return _open(found, key, f"board {address}", timeout_s)


def connect_by_tracker(
    address: Address,
    key: str,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    give_up: Callable[[], bool] = lambda: False,
) -> Session:
    """Returns a session on a board that a tracker has free.

    timeout_s: how long one answer, and a free board, may take. give_up: asked while it waits for one.

    Raises:
        RemoteError: there is no such tracker, no board with the key, or none was free.
    """
    with Tracker(address) as tracker:
        grant = tracker.request(key, timeout_s, give_up)
    family_and_more = socket.getaddrinfo(grant.address.host, grant.address.port, type=socket.SOCK_STREAM)[0]
    found = Address(*family_and_more[4][:2])
    return _open(found, grant.key, f"board {key} at {grant.address}", timeout_s)


def _open(address: Address, key: str, name: str, timeout_s: float) -> Session:
    """Opens the session in a thread of its own: a server that serves another client answers when that one is done."""
    connect_remote = ffi.tvm_ffi().get_global_func("rpc.Connect")
    connection = Connection(address)
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(connect_remote(address.host, address.port, key, False))
        except (RuntimeError, ValueError, OSError) as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(min(CONNECT_TIMEOUT_S, timeout_s))
    if not outcome:
        connection.claim(timeout_s)
        connection.abort()
        raise RemoteError(
            f"{name} does not answer: another client may hold it, or what listens there is no TVM RPC server"
        )
    [found] = outcome
    if isinstance(found, Exception):
        text = str(found)
        why = next((meaning for sign, meaning in _REFUSALS if sign in text), _last_line(text))
        raise RemoteError(f"cannot open a session on {name}: {why}") from found
    connection.claim(timeout_s)
    return Session(found, connection, name, timeout_s)


def _end(module: Any, connection: Connection) -> None:
    with suppress(RuntimeError, OSError):  # the board has dropped away
        module["CloseRPCConnection"]()
    connection.release()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
