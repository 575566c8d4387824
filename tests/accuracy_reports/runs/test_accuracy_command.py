"""`qtorch-relay accuracy` and `merge`: what they print, write and refuse; counting is tested in test_runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from accuracy_reports.record import FLOAT, INT8, ONNX_RUNTIME, OURS, read_record
from tests.accuracy_reports.runs.small_runs import CLASSES, ENGINE, write_arrays
from tests.command import Run, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture
def files(models: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """An int8 model, its float model, images."""
    return (*models, write_arrays(tmp_path / "images.npz", 20, CLASSES))


def test_the_digits_are_the_default_and_right(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("accuracy")
    assert done.status == 0, done.err
    assert "360 images, 0 broken" in done.out
    record = read_record(tmp_path / "accuracy-digits" / "record.json")
    top1 = {program.name: program.top1.value for program in record.programs}
    assert list(top1) == [FLOAT, INT8, OURS, ONNX_RUNTIME]
    assert top1[FLOAT] >= 0.97
    assert abs(top1[FLOAT] - top1[INT8]) <= 0.01
    ours = record.program(OURS)
    assert (ours.agreement.count, ours.differing_codes.count, ours.differing_codes.of) == (360, 0, 3600)
    assert record.layers.images == 4
    assert record.environment.command == "qtorch-relay accuracy"
    assert "<!doctype html>" in (tmp_path / "accuracy-digits" / "report.html").read_text().lower()


def test_shards_and_merge(run: Run, tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    common = ("accuracy", files[0], "--float", files[1], "--data", files[2], "--engine", ENGINE, "--layers", 0)
    common = (*common, "--no-peers", "--chunk", 4)
    for i in (1, 2):
        done = run(*common, "-o", tmp_path / f"part{i}", "--shard", f"{i}/2")
        assert done.status == 0, done.err
    done = run("merge", tmp_path / "part1", tmp_path / "part2", "-o", tmp_path / "whole", "--json")
    assert done.status == 0, done.err
    assert done.json()["dataset"]["images"] == 20
    assert read_record(tmp_path / "whole" / "record.json").program(OURS).images == 20
    assert read_record(tmp_path / "part1" / "record.json").program(OURS).images == 12
    done = run("merge", tmp_path / "part1", "-o", tmp_path / "other")
    assert (done.status, done.err) == (2, "error: shard 2/2 is missing; run it with --shard, or give its folder\n")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("jinja2", ("accuracy",)),
        ("jinja2", ("merge", "a", "-o", "b")),
        ("PIL", ("calibrate", "a:b", "-o", "c.pt")),
    ],
)
def test_what_is_not_installed_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, missing: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert f"{missing} is not installed; pip install 'qtorch-relay[accuracy]'" in done.err


def test_a_run_is_begun_anew_only_when_all_is_right(run: Run, tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    common = ("accuracy", files[0], "--data", files[2], "--engine", ENGINE, "--layers", 0, "--no-peers")
    common = (*common, "-o", tmp_path / "run")
    assert run(*common).status == 0
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert run(*common, "--images", 10).status == 2
    assert run(*common, "--images", 100, "--restart").status == 2
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before
    done = run(*common, "--images", 10, "--restart")
    assert done.status == 0, done.err
    assert "10 images" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threads", "4096"), "number of threads 4096; accepted is an integer from 1"),
        (("--shard", "3/2"), "--shard is '3/2'; accepted is I/N"),
        (("--preprocessing", "lenet"), "preprocessing 'lenet' is unknown"),
        (("--crop", "32"), "float32 images are preprocessed already"),
        (("--images", "21"), "21 images are asked for; accepted are 1 to 20"),
        (("--classes", "x"), "--classes means nothing for these images"),
        (("--float", "missing.pt"), "missing.pt cannot be read"),
        (("-o", "missing/run"), "the folder missing does not exist"),
        (("-o", "images.npz"), "it is a file"),
    ],
)
def test_refusals(
    run: Run,
    tmp_path: Path,
    files: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("accuracy", files[0], "--data", files[2], "--engine", ENGINE, *arguments)
    assert done.status == 2, done.err
    assert message in done.err
    assert done.err.count("error:") == 1
    assert not any(tmp_path.glob("accuracy-*"))
    assert done.out == ""
