"""Commands on a board over the network: the same results as here, two latencies, and errors in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accuracy_reports.record import OURS, read_record
from tests.accuracy_reports.runs.small_runs import ENGINE, write_arrays, write_models
from tests.command import Run, runner
from tests.rpc_servers import Server
from tools.emulated_board.board import free_port

INPUT = ("--input", "x:1,3,16,16", "--engine", ENGINE)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a small int8 network."""
    return write_models(tmp_path_factory.mktemp("model"), 10)[0]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype("float32"))
    return path


def test_run_gives_what_it_gives_here(run: Run, model: Path, image: Path, server: Server, tmp_path: Path) -> None:
    bundle, here, there = (tmp_path / name for name in ("model.qtr", "here.npy", "there.npy"))
    assert run("compile", model, *INPUT, "-o", bundle).status == 0
    assert run("run", bundle, "--data", image, "-o", here).status == 0
    answer = run("run", bundle, "--data", image, "-o", there, "--rpc", server.address, "--repeat", 3, "--json")
    assert answer.status == 0
    told = answer.json()
    assert told["board"] == f"board {server.address}"
    assert 0 < told["latency_ms"] < told["round_trip_ms"]
    np.testing.assert_array_equal(np.load(there), np.load(here))
    assert f"on board {server.address}, " in run("run", bundle, "--data", image, "--rpc", server.address).out


def test_bench_tells_the_boards_time_and_the_networks(run: Run, model: Path, server: Server) -> None:
    targets = "arm-neon,generic"
    answer = run("bench", model, *INPUT, "--target", targets, "--rpc", server.address, "--rounds", 5, "--json")
    assert answer.status == 0
    told = answer.json()
    assert told["target"] in targets
    assert 0 < told["latency_ms"]["qtorch_relay"] < told["round_trip_ms"]
    assert (told["rounds"], told["board"]) == (5, f"board {server.address}")
    answer = run("bench", model, *INPUT, "--rpc", server.address, "--layers")
    assert (answer.status, "--layers measures on this machine only" in answer.err) == (2, True)


def test_compare_runs_our_layers_there(run: Run, model: Path, server: Server) -> None:
    answer = run("compare", model, *INPUT, "--rpc", server.address, "--json")
    assert answer.status == 0
    assert answer.json()["differing"] == 0
    assert len(answer.json()["layers"]) > 3


def test_accuracy_counts_on_the_board(run: Run, model: Path, server: Server, tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "images.npz", 20, 10)
    folder = tmp_path / "run"
    options = ("--data", arrays, "-o", folder, "--engine", ENGINE, "--rpc", server.address)
    assert run("accuracy", model, *options).status == 0
    ours = read_record(folder / "record.json").program(OURS)
    assert ours is not None
    assert ours.differing_codes is not None
    assert (ours.images, ours.differing_codes.count, ours.differing_codes.of) == (20, 0, 200)
    answer = run("accuracy", model, *options, "--ray", "auto")
    assert (answer.status, "give --ray for a cluster, or --rpc" in answer.err) == (2, True)


@pytest.mark.parametrize("command", ["run", "bench", "compare", "accuracy"])
def test_that_nobody_listens_is_said(run: Run, command: str, model: Path, image: Path, tmp_path: Path) -> None:
    options = {
        "run": (*INPUT, "--data", image, "-o", tmp_path / "y.npy"),
        "accuracy": ("--data", write_arrays(tmp_path / "images.npz", 20, 10), "-o", tmp_path / "run"),
    }
    address = f"127.0.0.1:{free_port()}"
    answer = run(command, model, *options.get(command, INPUT), "--rpc", address)
    assert answer.status == 2
    assert f"no board answers at {address}: Connection refused; start its server with" in answer.err
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(
    ("address", "message"), [("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"), ("head", "not HOST:PORT")]
)
def test_that_there_is_no_cluster_is_said(run: Run, address: str, message: str, model: Path, tmp_path: Path) -> None:
    arrays = write_arrays(tmp_path / "images.npz", 8, 10)
    answer = run("accuracy", model, "--data", arrays, "--no-peers", "-o", tmp_path / "run", "--ray", address)
    assert answer.status == 2
    assert message in answer.err
