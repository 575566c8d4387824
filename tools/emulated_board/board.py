"""A set-up board with a chosen CPU: runs its Python, programs built for it, and TVM's RPC server."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.emulated_board.install import BoardError, install, installed_python

PROJECT = Path(__file__).parents[2]
_START_TIMEOUT_S = 300
_STOP_TIMEOUT_S = 10
# A board does not inherit what the host's programs were told.
_KEPT_ENVIRONMENT = ("HOME", "PATH", "TMPDIR", "LANG", "TVM_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class RpcServer:
    """A running RPC server: where it listens, and the process to kill if the board is to die."""

    host: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"

    def kill(self) -> None:
        """Stops the server and all it started at once, as if the board had lost its power."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(_STOP_TIMEOUT_S)


@dataclass(frozen=True)
class Board:
    """A board.

    cpu: qemu's name: cortex-a53, cortex-a72 (NEON), cortex-a76, neoverse-n1 (dotprod), max (everything).
    extras: programs beside TVM's runtime: "torch", "onnxruntime".
    project: on the Python path; an unpacked wheel, or this source tree.
    """

    cpu: str = "max"
    extras: tuple[str, ...] = ()
    project: Path = PROJECT
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", install(self.extras))

    @property
    def root(self) -> Path:
        """The folder with the board's file system."""
        return self.home / "root"

    def emulator(self) -> list[str]:
        """Returns the command before that of a program built for the board."""
        return ["qemu-aarch64", "-cpu", self.cpu, "-L", str(self.root)]

    def python(self) -> Path:
        """Returns a program that is the board's Python, for a shell as for what Python itself starts.

        The kernel cannot start the board's own python3 from within the board; this script can be started anywhere.
        """
        binary = self.root / "usr" / "bin" / installed_python(self.home)
        path = self.home / f"python-{self.cpu}"
        command = shlex.join([*self.emulator(), "-0", str(path), "-E", f"PYTHONHOME={self.root / 'usr'}", str(binary)])
        text = f'#!/bin/sh\nexec {command} "$@"\n'
        if not path.exists() or path.read_text() != text:
            new = path.with_name(f".{path.name}.{os.getpid()}")
            new.write_text(text)
            new.chmod(0o755)
            new.rename(path)
        return path

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Returns the environment of the board's Python."""
        packages = [self.project, self.home / "site", *(self.home / name for name in self.extras)]
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        board = {
            "PYTHONPATH": os.pathsep.join(map(str, packages)),
            "PYTHONPYCACHEPREFIX": str(self.home / "pycache"),  # the board's own: its Python may be another than this
            "PYTHONUNBUFFERED": "1",
        }
        return {**kept, **board, **(more or {})}

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 600,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs the board's Python with these arguments and returns its status and what it printed."""
        return self._run([self.python(), *arguments], environment, timeout_s, cwd)

    def run_program(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 600,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program that was built for aarch64."""
        return self._run([*self.emulator(), *command], environment, timeout_s, cwd)

    @contextmanager
    def rpc_server(
        self, port: int = 0, *, host: str = "127.0.0.1", tracker: str | None = None, key: str | None = None
    ) -> Iterator[RpcServer]:
        """Starts a stock tvm.exec.rpc_server and yields it once it listens; stops it when the block ends.

        Args:
            port: where it listens; 0 takes a free one.
            host: its address.
            tracker: HOST:PORT of a tracker to register with, under key.
            key: what kind of board it is to the tracker.

        Raises:
            BoardError: it did not start; the message has its last lines.
        """
        port = port or free_port(host)
        command = [str(self.python()), "-m", "tvm.exec.rpc_server", "--host", host]
        command += ["--port", str(port), "--port-end", str(port + 1)]
        if tracker is not None:
            command += ["--tracker", tracker, "--key", key or self.cpu]
        # A folder of its own: Python imports from where it is started, and home has a folder for each extra.
        logs = self.home / "rpc"
        logs.mkdir(exist_ok=True)
        log = logs / f"{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=self.environment(), start_new_session=True, cwd=logs
            )
        server = RpcServer(host, port, process, log)
        try:
            _wait_until_listening(server)
            yield server
        finally:
            server.kill()
            log.unlink(missing_ok=True)

    def _run(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None,
        timeout_s: float,
        cwd: Path | None,
    ) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        try:
            return subprocess.run(
                words,
                env=self.environment(environment),
                cwd=cwd,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BoardError(f"on the emulated board, {shlex.join(words)[:300]} took over {timeout_s:.0f} s") from error

    def execute(self, arguments: Sequence[str]) -> None:
        """Replaces this process by the board's Python."""
        sys.stdout.flush()
        python = str(self.python())
        os.execve(python, [python, *arguments], self.environment())


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port of an address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait_until_listening(server: RpcServer) -> None:
    """Waits until the server says that it listens; a connection made to find out would be taken for a client's."""
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end:
        text = server.log.read_text(errors="replace")
        if f"bind to {server.host}:{server.port}" in text:
            return
        if server.process.poll() is not None:
            raise BoardError(f"the RPC server of the emulated board ended:\n{text[-1500:]}")
        time.sleep(0.1)
    raise BoardError(
        f"the RPC server of the emulated board does not listen after {_START_TIMEOUT_S} s:\n{text[-1500:]}"
    )
