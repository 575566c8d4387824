"""Time limits for connections that TVM's runtime opens: it has none, and waits for a vanished board forever.

TVM does not tell its sockets. They are found among this process's open files by the address of the other end.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from qtorch_relay.runtime.remote_address import Address

_OPEN_FILES = Path("/dev/fd")
# A board whose power or network fails sends nothing: Linux asks it three times, 5 s apart, after 10 s of silence.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
_claimed_lock = threading.Lock()
_claimed: set[tuple[object, ...]] = set()


class Connection:
    """The sockets to an address that were opened since this was made, by any thread."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._sockets: list[socket.socket] = []
        self._names: set[tuple[object, ...]] = set()
        self._before: set[tuple[object, ...]] = set()
        for found in _sockets_to(address):
            with found:
                self._before.add(found.getsockname())

    def claim(self, timeout_s: float) -> None:
        """Finds the sockets, and lets reads and writes on them fail after timeout_s seconds without a byte."""
        limit = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        with _claimed_lock:
            for found in _sockets_to(self._address):
                name = found.getsockname()
                if name in self._before or name in _claimed:
                    found.close()
                    continue
                _claimed.add(name)
                self._names.add(name)
                self._sockets.append(found)
        for found in self._sockets:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _KEEPALIVE.items():
                if hasattr(socket, option):
                    found.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def abort(self) -> None:
        """Ends the connection: whoever waits for the other end gets an error at once."""
        for found in self._sockets:
            with suppress(OSError):  # it has ended already
                found.shutdown(socket.SHUT_RDWR)
        self.release()

    def release(self) -> None:
        """Lets go of the sockets; they stay open for whom they belong to."""
        for found in self._sockets:
            found.close()
        with _claimed_lock:
            _claimed.difference_update(self._names)
        self._sockets, self._names = [], set()


def _sockets_to(address: Address) -> Iterator[socket.socket]:
    """Yields a duplicate of each open socket whose other end has this address."""
    if not _OPEN_FILES.is_dir():
        return  # the operating system does not tell them: then a vanished board is waited for
    for entry in os.listdir(_OPEN_FILES):
        found = _socket_of(int(entry))
        if found is None:
            continue
        with suppress(OSError):  # it is not connected
            if found.getpeername()[:2] == (address.host, address.port):
                yield found
                continue
        found.close()


def _socket_of(file: int) -> socket.socket | None:
    try:
        copy = os.dup(file)
    except OSError:  # it was closed since it was listed
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return None
