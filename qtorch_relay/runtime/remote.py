"""Boards over the network: which one to take, as a command's options say it, and a session on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qtorch_relay.errors import RemoteError
from qtorch_relay.runtime.remote_address import Address, parse_address
from qtorch_relay.runtime.remote_session import DEFAULT_TIMEOUT_S, Session, connect, connect_by_tracker
from qtorch_relay.runtime.remote_tracker import Tracker


@dataclass(frozen=True)
class Boards:
    """A board whose server listens at an address, or, with a tracker, any that it has with a key.

    timeout_s: how long one answer may take, and how long to wait for a free board.
    """

    address: Address
    is_tracker: bool = False
    key: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S

    def connect(self, give_up: Callable[[], bool] = lambda: False) -> Session:
        """Returns a session on a board. give_up: asked while it waits for a free one.

        Raises:
            RemoteError: there is none, or none is free.
        """
        if self.is_tracker:
            return connect_by_tracker(self.address, self.key, self.timeout_s, give_up)
        return connect(self.address, self.key, self.timeout_s)

    def count(self) -> int:
        """Returns how many boards there are, free or busy.

        Raises:
            RemoteError: there is no such tracker, or it knows no board with the key.
        """
        if not self.is_tracker:
            return 1
        with Tracker(self.address) as tracker:
            return len(tracker.boards(self.key))

    def __str__(self) -> str:
        return (
            f"boards with the key '{self.key}' at the tracker {self.address}" if self.is_tracker else str(self.address)
        )


def choose_boards(
    rpc: str | None, tracker: str | None, key: str | None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Boards | None:
    """Returns what the options --rpc, --tracker and --key say; None if none is given.

    Raises:
        RemoteError: they do not go together, or an address is not HOST:PORT.
    """
    if rpc is not None and tracker is not None:
        raise RemoteError("give --rpc for one board, or --tracker and --key for one of a farm, not both")
    if tracker is not None:
        if not key:
            raise RemoteError("--tracker needs --key: the key with which the boards' servers were started")
        return Boards(parse_address(tracker, "--tracker"), True, key, timeout_s)
    if rpc is not None:
        return Boards(parse_address(rpc, "--rpc"), False, key or "", timeout_s)
    if key is not None:
        raise RemoteError("--key needs --tracker HOST:PORT, or --rpc HOST:PORT of a server that was started with it")
    return None
