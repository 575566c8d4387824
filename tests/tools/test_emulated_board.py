"""The emulated board: what it is, what it refuses, and TVM's RPC server on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.emulated_board import Board, BoardError, install
from tools.emulated_board.board import PROJECT

DESCRIBE = """
import json, platform, subprocess, sys
from qtorch_relay.target import host_cpu
from qtorch_relay.runtime import ffi
ffi.tvm_ffi()
child = subprocess.run([sys.executable, "-c", "import platform; print(platform.machine())"], stdout=subprocess.PIPE)
cpu = host_cpu()
imported = sorted({"torch", "tvm"} & set(sys.modules))
print(json.dumps([cpu.machine, sorted(cpu.flags), child.stdout.decode().strip(), imported]))
"""


@pytest.mark.parametrize(
    ("cpu", "has", "lacks"),
    [
        ("cortex-a53", {"asimd"}, {"asimddp", "i8mm"}),
        ("cortex-a76", {"asimd", "asimddp"}, {"i8mm"}),
        ("max", {"asimd", "asimddp", "i8mm"}, set()),
    ],
)
def test_each_cpu_has_its_flags_and_starts_programs(
    board: Callable[..., Board], cpu: str, has: set[str], lacks: set[str]
) -> None:
    done = board(cpu).run(["-c", DESCRIBE])
    assert done.returncode == 0, done.stderr
    machine, flags, child_machine, modules = json.loads(done.stdout)
    assert machine == child_machine == "aarch64"
    assert has <= set(flags)
    assert not lacks & set(flags)
    assert modules == []


def test_rpc_server_serves_and_dies(board: Callable[..., Board]) -> None:
    from tvm import rpc

    with board("cortex-a76").rpc_server() as server:
        session = rpc.connect(server.host, server.port)
        assert session.get_function("runtime.NumThreads")() >= 1
        server.kill()
        with pytest.raises(Exception, match=r"(?i)rpc|socket|connection|channel"):
            session.get_function("runtime.NumThreads")()
    assert server.process.returncode is not None


def test_a_server_ends_with_the_command_that_is_terminated(board: Callable[..., Board]) -> None:
    board("cortex-a76")
    command = [sys.executable, "-m", "tools.emulated_board", "rpc-server", "--cpu", "cortex-a76"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        port = int(said.partition(" listens at 127.0.0.1:")[2].split(";")[0])
        process.terminate()
        assert process.wait(60) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_unknown_extra_is_refused() -> None:
    with pytest.raises(BoardError, match=r"unknown: tensorflow; can be installed .* torch, onnxruntime"):
        install(["tensorflow"])


def test_missing_emulator_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardError, match=r"needs qemu-aarch64; .* apt install qemu-user"):
        install()


def test_failed_download_is_told_and_leaves_no_half_board(
    board: Callable[..., Board], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    broken = tools / "apt-get"
    broken.write_text("#!/bin/sh\necho 'no network here' >&2\nexit 100\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("QTORCH_RELAY_BOARD", str(tmp_path / "home"))
    with pytest.raises(BoardError, match=r"no network here"):
        install()
    assert not (tmp_path / "home" / "root").exists()


def test_command_line_runs_python_on_the_board(board: Callable[..., Board]) -> None:
    command = [sys.executable, "-m", "tools.emulated_board", "python", "--cpu", board("max").cpu]
    done = subprocess.run(
        [*command, "-c", "import platform; print(platform.machine())"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "aarch64\n"), done.stderr
