"""Accuracy runs on a Ray cluster and on a farm of boards count what a run here counts, whoever dies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from accuracy_reports.record import Record
from accuracy_reports.runs import ray_cluster
from accuracy_reports.runs.boards import on_boards
from accuracy_reports.runs.chunks import ChunkResult
from accuracy_reports.runs.coordinator import Schedule
from accuracy_reports.runs.ending import WorkerLostError
from accuracy_reports.runs.prepare import prepare
from accuracy_reports.runs.ray_cluster import RayWorker, on_ray
from accuracy_reports.runs.setup import Setup
from accuracy_reports.runs.sharing import THREAD_NAME
from calibration.data import DatasetError
from qtorch_relay.runtime.remote import Boards
from tests.accuracy_reports.runs.small_runs import CLASSES, evaluate, request, silently, what_counts, write_arrays
from tests.rpc_servers import Server, rpc_server, rpc_tracker
from tools.emulated_board import Board

IMAGES, CHUNKS = 197, 25
KEY = "desk"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("data") / "images.npz", IMAGES, CLASSES)


@pytest.fixture(scope="module")
def here(models: tuple[Path, Path], arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """What a run in this process counts."""
    return evaluate(request(models, arrays, peers=False), tmp_path_factory.mktemp("runs") / "here")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine with two CPUs."""
    ray = pytest.importorskip("ray")
    store_bytes = 100 << 20
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, object_store_memory=store_bytes, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with rpc_tracker(tmp_path_factory.mktemp("tracker")) as running:
        yield running


def after(count: int, schedule: Schedule, act: Callable[[], None]) -> Schedule:
    """Returns the schedule, with something that happens when so many chunks are done."""

    def disturbed(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        for number, result in enumerate(schedule(setup, chunks), 1):
            yield result
            if number == count:
                act()

    return disturbed


def remember_names(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """Lets the workers of a cluster tell their names as they start."""
    start = RayWorker.__init__

    def init(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        names.append(self.name)

    monkeypatch.setattr(RayWorker, "__init__", init)


def test_a_cluster_that_loses_a_worker_counts_the_same(
    cluster: None,
    models: tuple[Path, Path],
    arrays: Path,
    here: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[str] = []
    remember_names(monkeypatch, names)
    lost: list[str] = []

    def kill_one() -> None:
        os.kill(int(names[0].split()[1]), signal.SIGKILL)

    schedule = after(3, on_ray(ray_cluster.AUTO, lost.append), kill_one)
    record = evaluate(request(models, arrays, peers=False), tmp_path / "run", schedule)
    assert what_counts(record) == what_counts(here)
    assert len(lost) == 1
    assert f"{names[0]} was lost" in lost[0]
    assert len(names) >= 2  # both worked, and the lost one was replaced if there was still something to do


def test_what_is_wrong_everywhere_ends_a_run_on_a_cluster(
    cluster: None, models: tuple[Path, Path], tmp_path: Path
) -> None:
    arrays = write_arrays(tmp_path / "images.npz", 20, CLASSES)
    folder = tmp_path / "run"
    folder.mkdir()
    setup, _ = prepare(request(models, arrays, peers=False), folder, silently)
    arrays.unlink()
    with pytest.raises(DatasetError, match=r"images\.npz"):
        list(on_ray(ray_cluster.AUTO, print)(setup, [0, 1]))


def test_a_farm_that_loses_a_board_counts_the_same(
    models: tuple[Path, Path], arrays: Path, here: Record, tracker: Server, tmp_path: Path
) -> None:
    lost: list[str] = []
    boards = Boards(tracker.address, True, KEY, 60.0)
    with rpc_server(tmp_path, tracker=tracker, key=KEY) as one, rpc_server(tmp_path, tracker=tracker, key=KEY):
        schedule = after(4, on_boards(boards, lost.append), one.kill)
        record = evaluate(request(models, arrays, peers=False, elsewhere=True), tmp_path / "run", schedule)
    assert what_counts(record) == what_counts(here)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]
    assert any(str(one.address) in reason for reason in lost)


def test_a_run_without_boards_left_goes_on_when_they_are_back(
    models: tuple[Path, Path], arrays: Path, here: Record, tracker: Server, tmp_path: Path
) -> None:
    asked = request(models, arrays, peers=False, elsewhere=True)
    boards = Boards(tracker.address, True, KEY, 60.0)
    done: list[int] = []

    def counting(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        for result in on_boards(boards, print)(setup, chunks):
            done.append(result.chunk)
            yield result

    with (
        rpc_server(tmp_path, tracker=tracker, key=KEY) as only,
        pytest.raises(WorkerLostError, match=r"no worker is left, \d+ chunks are not done: .*run the same command"),
    ):
        evaluate(asked, tmp_path / "run", after(5, counting, only.kill))
    assert 5 <= len(done) < CHUNKS
    with rpc_server(tmp_path, tracker=tracker, key=KEY):
        record = evaluate(asked, tmp_path / "run", counting)
    assert what_counts(record) == what_counts(here)
    assert sorted(done) == list(range(CHUNKS))


@pytest.mark.skipif("QTORCH_RELAY_FARM" not in os.environ, reason="takes minutes; `make farm-arm` runs it")
def test_two_emulated_boards_of_which_one_dies_count_the_same(
    board: Callable[..., Board], models: tuple[Path, Path], arrays: Path, here: Record, tracker: Server, tmp_path: Path
) -> None:
    lost: list[str] = []
    boards = Boards(tracker.address, True, "arm", 120.0)
    asked = request(models, arrays, peers=False, target="arm-neon", elsewhere=True)
    farm = {"tracker": str(tracker.address), "key": "arm"}
    with board("cortex-a53").rpc_server(**farm) as one, board("cortex-a76").rpc_server(**farm):
        schedule = after(6, on_boards(boards, lost.append), one.kill)
        record = evaluate(asked, tmp_path / "run", schedule)
    assert what_counts(record) == what_counts(here)
    assert any(one.address in reason for reason in lost)
