"""A program on a stock RPC server gives what it gives here, and whatever is wrong with a board is said in words."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtorch_relay import target as targets
from qtorch_relay.errors import BoardLostError, InvalidInputError, RemoteError, TargetError
from qtorch_relay.runtime import CompiledModel, remote_session
from qtorch_relay.runtime.bundle import Variant, read_variants
from qtorch_relay.runtime.remote import Boards, choose_boards
from qtorch_relay.runtime.remote_address import Address, parse_address
from qtorch_relay.runtime.remote_model import place, place_compiled
from qtorch_relay.runtime.remote_session import Session, connect
from qtorch_relay.runtime.remote_tracker import Tracker
from tests.rpc_servers import Server, rpc_server, rpc_tracker
from tools.emulated_board import Board
from tools.emulated_board.board import free_port


@pytest.fixture
def session(server: Server) -> Iterator[Session]:
    with connect(server.address) as opened:
        yield opened


@contextmanager
def listener(answer: bytes) -> Iterator[Address]:
    """Yields where something listens that is no RPC server: it says `answer`, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as open_connections:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                open_connections.enter_context(connection)
                if answer:
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield Address("127.0.0.1", listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


def variant_of(model: CompiledModel) -> Variant:
    return Variant(model.interface, model.weights, model.program.library(), model.golden)


def test_outputs_are_those_of_this_process(
    session: Session,
    linear: CompiledModel,
    codes: CompiledModel,
    weight: CompiledModel,
    random_input: Callable[[], Any],
) -> None:
    remote = place_compiled(session, linear)
    for _ in range(3):
        x = random_input()
        found, expected = remote(x), linear(x)
        np.testing.assert_array_equal(found["positive"], expected["positive"])
        np.testing.assert_array_equal(found["all"][0], expected["all"][0])
        assert found["all"][1] is None
    assert (remote.inputs, remote.outputs, remote.engine) == (linear.inputs, linear.outputs, linear.engine)
    # Several programs share a session, and a program may return its own weight.
    x = torch.tensor([3.0, 4.0])
    total, own = place_compiled(session, weight)(x)
    assert (total.tolist(), own.tolist()) == ([4, 6], [1, 2])
    given = (torch.tensor([[1, 2, 3], [250, 0, 9]], dtype=torch.uint8), torch.tensor(5))
    found, expected = place_compiled(session, codes)(*given), codes(*given)
    assert found.is_quantized
    assert torch.equal(found.int_repr(), expected.int_repr())
    np.testing.assert_array_equal(remote(x := random_input())["positive"], linear(x)["positive"])


def test_wrong_inputs_are_refused_here(session: Session, linear: CompiledModel) -> None:
    with pytest.raises(InvalidInputError, match=r"input x is float32 \[2, 9\]; accepted is float32 \[2, 8\]"):
        place_compiled(session, linear)(np.zeros((2, 9), "float32"))


def test_the_board_times_by_its_own_clock(session: Session, parallel: CompiledModel) -> None:
    remote = place_compiled(session, parallel)
    shares: list[float] = []
    times_ms = remote.time_calls([np.ones((64, 32), "float32")], 7, shares.append)
    assert len(times_ms) == 7
    assert all(time_ms > 0 for time_ms in times_ms)
    assert shares[-1] == 1
    assert session.set_num_threads(1) == 1
    np.testing.assert_array_equal(remote.run_flat([np.ones((64, 32), "float32")])[0], np.full((64, 32), 2, "float32"))


def test_the_most_able_program_that_the_board_runs_is_taken(session: Session, linear: CompiledModel) -> None:
    host = variant_of(linear)
    lacking = dataclasses.replace(host.interface.target, name="later", cpu_flags=("avx1024",))
    later = dataclasses.replace(host, interface=dataclasses.replace(host.interface, target=lacking))
    assert place(session, [host, later], "both").target.name == linear.target.name
    with pytest.raises(TargetError, match=r"late.qtr cannot run on board .*: later .* needs the CPU flag avx1024; the"):
        place(session, [later], "late.qtr")
    amx = dataclasses.replace(host.interface.target, name="x86-amx", cpu_flags=("amx_tile",))
    tiles = dataclasses.replace(host, interface=dataclasses.replace(host.interface, target=amx))
    with pytest.raises(TargetError, match=r"needs (the CPU flag amx_tile|Linux's permission to use AMX)"):
        place(session, [tiles], "tiles.qtr")


def test_machine_code_for_another_machine_is_refused(
    session: Session, build_linear: Callable[..., CompiledModel], linear: CompiledModel, random_input: Callable[[], Any]
) -> None:
    other = "x86-avx2" if targets.host_cpu().machine == "aarch64" else "arm-neon"
    foreign = variant_of(build_linear(targets.resolve(other)))
    with pytest.raises(TargetError, match=r"to its machine code for (aarch64|x86_64) the board says"):
        place(session, [foreign], "other.qtr")
    both = place(session, [foreign, variant_of(linear)], "both.qtr")
    np.testing.assert_array_equal(both(x := random_input())["positive"], linear(x)["positive"])


def test_a_library_that_is_none_is_an_error_of_the_board(session: Session, linear: CompiledModel) -> None:
    broken = dataclasses.replace(variant_of(linear), library=b"no library")
    with pytest.raises(TargetError, match="cannot be loaded on board"):
        place(session, [broken], "broken.qtr")
    assert place_compiled(session, linear).run_flat([np.zeros((2, 8), "float32")])  # the session goes on


def test_a_board_that_drops_away_is_named(
    linear: CompiledModel, random_input: Callable[[], Any], tmp_path: Path
) -> None:
    with rpc_server(tmp_path) as server:
        remote = place_compiled(connect(server.address), linear)
        remote(random_input())
        server.kill()
        with pytest.raises(BoardLostError, match=rf"board {server.address} dropped away while .*; look whether it"):
            remote(random_input())
        with pytest.raises(BoardLostError, match="dropped away"):
            remote(random_input())
        with pytest.raises(RemoteError, match=rf"no board answers at {server.address}: Connection refused; start its"):
            connect(server.address)


def test_a_board_that_is_held_is_said_to_be_busy(
    server: Server, session: Session, linear: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = place_compiled(session, linear)
    monkeypatch.setattr(remote_session, "CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(RemoteError, match="does not answer: another client may hold it"):
        connect(server.address)
    assert remote.run_flat([np.zeros((2, 8), "float32")])  # whoever holds it is not disturbed


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_what_is_no_rpc_server_is_told(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_session, "CONNECT_TIMEOUT_S", 0.5)
    with listener(answer) as address:
        with pytest.raises(RemoteError, match="no TVM RPC server"):
            connect(address)
        with pytest.raises(RemoteError, match=r"no TVM tracker|no tracker answers"):
            Tracker(address)


def test_an_unknown_host_is_told() -> None:
    with pytest.raises(RemoteError, match=r"no board answers at no.such.host.invalid:9090"):
        connect(Address("no.such.host.invalid", 9090))
    with pytest.raises(RemoteError, match=r"no tracker answers at 127\.0\.0\.1:"):
        Tracker(Address("127.0.0.1", free_port()))


def test_a_tracker_hands_out_its_boards(linear: CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rpc_tracker(tmp_path) as tracker, rpc_server(tmp_path, tracker=tracker, key="desk") as server:
        boards = Boards(tracker.address, True, "desk", 5.0)
        with pytest.raises(RemoteError, match=rf"the tracker {tracker.address} knows no board with the key 'rpi'; it"):
            Boards(tracker.address, True, "rpi").connect()
        for _ in range(2):  # a board that was given back is given again
            with boards.connect() as session:
                assert session.name == f"board desk at {server.address}"
                place_compiled(session, linear)(np.zeros((2, 8), "float32"))
                with pytest.raises(RemoteError, match=r"all 1 boards with the key 'desk' .* were busy for 0.2 s: "):
                    dataclasses.replace(boards, timeout_s=0.2).connect()
        with pytest.raises(RemoteError, match="it wants another key"):
            connect(server.address)
        with pytest.raises(RemoteError, match="no TVM RPC server; of a tracker's address say --tracker"):
            connect(tracker.address)
        hanging = place_compiled(dataclasses.replace(boards, timeout_s=1.0).connect(), linear)
        os.killpg(server.process.pid, signal.SIGSTOP)
        with pytest.raises(BoardLostError, match=r"gave no answer for 1 s while .*; give it more with --timeout"):
            hanging(np.zeros((2, 8), "float32"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("a:1", "b:2", "k"), "give --rpc for one board, or --tracker"),
        ((None, "b:2", None), "--tracker needs --key"),
        ((None, None, "k"), "--key needs --tracker"),
        (("board", None, None), "--rpc 'board' is not HOST:PORT"),
        (("board:ssh", None, None), "--rpc 'board:ssh' is not HOST:PORT"),
        (("board:70000", None, None), "--rpc 'board:70000' is not HOST:PORT"),
        ((None, ":9190", "k"), "--tracker ':9190' is not HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(RemoteError, match=message):
        choose_boards(*options)


def test_addresses() -> None:
    assert choose_boards(None, None, None) is None
    assert choose_boards("board:9090", None, None) == Boards(Address("board", 9090))
    assert choose_boards("board:9090", None, "rpi") == Boards(Address("board", 9090), key="rpi")
    assert choose_boards(None, "desk:9190", "rpi", 5) == Boards(Address("desk", 9190), True, "rpi", 5)
    assert str(parse_address("[::1]:9090", "--rpc")) == "[::1]:9090"


def test_an_emulated_arm_board_gives_the_same(
    board: Callable[..., Board], build_linear: Callable[..., CompiledModel], linear: CompiledModel, tmp_path: Path
) -> None:
    variants = []
    for name in ("arm-neon", "arm-dotprod"):
        build_linear(targets.resolve(name)).save(tmp_path / f"{name}.qtr")
        variants += read_variants(tmp_path / f"{name}.qtr")
    x = np.random.default_rng(0).integers(-9, 9, (2, 8)).astype("float32")  # sums of integers round nowhere
    with board("cortex-a53").rpc_server() as server, connect(parse_address(server.address, "--rpc")) as session:
        with pytest.raises(
            TargetError, match=r"cannot run .*\(aarch64\): arm-dotprod .* needs the CPU flag asimddp; the"
        ):
            place(session, variants[1:], "dotprod.qtr")
        remote = place(session, variants, "both.qtr")
        assert remote.target.name == "arm-neon"
        for found, expected in zip(remote.run_flat([x]), linear.run_flat([x]), strict=True):
            assert np.count_nonzero(expected)
            np.testing.assert_allclose(found, expected, rtol=1e-6)  # the weight is no integer
