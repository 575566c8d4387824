"""A TVM tracker: the desk at which the boards of a farm queue for work. Its protocol: [size int32] [JSON], both ways.

Source: tvm/rpc/tracker.py and base.py of TVM 0.27, whose client would import the whole compiler.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qtorch_relay.errors import RemoteError
from qtorch_relay.runtime.remote_address import Address

_MAGIC = 0x2F271
_SUCCESS, _REQUEST, _SUMMARY = 0, 4, 6
_MAX_MESSAGE_BYTES = 16 << 20
_CONNECT_TIMEOUT_S = 10.0
_LOOK_AGAIN_S = 0.2


@dataclass(frozen=True)
class Grant:
    """A board that the tracker gives to one client: the key to say there is good for one connection."""

    address: Address
    key: str


class Tracker:
    """A connection to a tracker.

    Raises:
        RemoteError: nobody listens there, or it is no tracker.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        try:
            self._socket = socket.create_connection((address.host, address.port), _CONNECT_TIMEOUT_S)
        except OSError as error:
            raise RemoteError(
                f"no tracker answers at {address}: {error.strerror or error}; "
                "start one there with: python -m tvm.exec.rpc_tracker"
            ) from error
        try:
            self._socket.sendall(struct.pack("<i", _MAGIC))
            [magic] = struct.unpack("<i", self._receive(4))
        except (OSError, RemoteError) as error:
            self.close()
            raise self._no_tracker() from error
        if magic != _MAGIC:
            self.close()
            raise self._no_tracker()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def boards(self, key: str) -> list[str]:
        """Returns the addresses of all boards with a key, free or busy.

        Raises:
            RemoteError: there is none; the message lists the keys there are.
        """
        self._send([_SUMMARY])
        servers = self._answer()["server_info"]
        found = [server for server in servers if server["key"] == f"server:{key}"]
        if not found:
            known = sorted({str(server["key"]).removeprefix("server:") for server in servers})
            raise RemoteError(
                f"the tracker {self._address} knows no board with the key '{key}'; "
                + (f"it knows {', '.join(known)}" if known else "no board has registered there")
            )
        return [":".join(map(str, server["addr"])) for server in found]

    def request(self, key: str, timeout_s: float, give_up: Callable[[], bool] = lambda: False) -> Grant:
        """Returns a board with a key as soon as one is free. give_up: asked while it waits.

        Raises:
            RemoteError: none is within timeout_s seconds, or it is to give up.
        """
        boards = self.boards(key)
        self._send([_REQUEST, key, "", 1])
        deadline = time.monotonic() + timeout_s
        while not select.select([self._socket], [], [], _LOOK_AGAIN_S)[0]:
            if give_up() or time.monotonic() > deadline:
                raise RemoteError(
                    f"all {len(boards)} boards with the key '{key}' at the tracker {self._address} were busy for "
                    f"{timeout_s:g} s: {', '.join(boards)}"
                )
        host, port, match = self._answer()
        return Grant(Address(str(host), int(port)), str(match))

    def _send(self, message: Sequence[Any]) -> None:
        data = json.dumps(message).encode()
        try:
            self._socket.sendall(struct.pack("<i", len(data)) + data)
        except OSError as error:
            raise RemoteError(f"the connection to the tracker {self._address} failed: {error}") from error

    def _answer(self) -> Any:
        try:
            [size] = struct.unpack("<i", self._receive(4))
            if not 0 <= size <= _MAX_MESSAGE_BYTES:
                raise self._no_tracker()
            answer = json.loads(self._receive(size))
            code, value = answer
        except (OSError, ValueError, TypeError) as error:
            raise RemoteError(f"the connection to the tracker {self._address} failed: {error}") from error
        if code != _SUCCESS:
            raise RemoteError(f"the tracker {self._address} refuses: {answer}")
        return value

    def _receive(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            if not part:
                raise RemoteError(f"the tracker {self._address} closed the connection")
            parts += part
        return bytes(parts)

    def _no_tracker(self) -> RemoteError:
        return RemoteError(f"what listens at {self._address} is no TVM tracker; for a board's own server give --rpc")
