"""Stock RPC servers and trackers of TVM on this machine, as processes that a test may kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qtorch_relay.errors import RemoteError
from qtorch_relay.runtime.remote_address import Address
from qtorch_relay.runtime.remote_tracker import Tracker
from tools.emulated_board.board import free_port

_START_TIMEOUT_S = 300
_LISTENS = re.compile(rb"bind to ")


@dataclass(frozen=True)
class Server:
    """A running process that listens at an address."""

    address: Address
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Ends it and all it started at once, as if the board had lost its power."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def rpc_server(folder: Path, *, tracker: Server | None = None, key: str = "") -> Iterator[Server]:
    """Yields a running `python -m tvm.exec.rpc_server`, which the tracker knows; folder: for its log."""
    registered = [] if tracker is None else ["--tracker", str(tracker.address)]
    with _running("rpc_server", folder, *registered, "--key", key) as server:
        if tracker is not None:
            _wait_until_known(tracker.address, key, server.address)
        yield server


def _wait_until_known(tracker: Address, key: str, server: Address) -> None:
    """A server listens first, and then tells the tracker."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    known: list[str] = []
    with Tracker(tracker) as connection:
        while str(server) not in known:
            assert time.monotonic() < deadline, f"the tracker knows {known}"
            time.sleep(0.1)
            with suppress(RemoteError):  # it knows none yet
                known = connection.boards(key)


@contextmanager
def rpc_tracker(folder: Path) -> Iterator[Server]:
    """Yields a running `python -m tvm.exec.rpc_tracker`."""
    with _running("rpc_tracker", folder) as server:
        yield server


@contextmanager
def _running(module: str, folder: Path, *options: str) -> Iterator[Server]:
    port = free_port()
    log = folder / f"{module}-{port}.log"
    command = [sys.executable, "-m", f"tvm.exec.{module}", "--host", "127.0.0.1"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--port-end", str(port + 1), *options],
            stdout=file,
            stderr=file,
            cwd=folder,
            start_new_session=True,
        )
    server = Server(Address("127.0.0.1", port), process)
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _LISTENS.search(log.read_bytes()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        server.kill()
