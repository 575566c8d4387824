"""Where a board is: the address of its RPC server, or a tracker that knows the boards of a farm."""

from __future__ import annotations

from dataclasses import dataclass

from qtorch_relay.errors import RemoteError

_PORTS = range(1, 1 << 16)


@dataclass(frozen=True)
class Address:
    """A server's host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, option: str) -> Address:
    """Returns the address that HOST:PORT says; an IPv6 address stands in brackets.

    Raises:
        RemoteError: it is not HOST:PORT; the message names the option.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) not in _PORTS:
        raise RemoteError(f"{option} '{text}' is not HOST:PORT, such as 192.168.1.20:9090")
    return Address(host, int(port))
