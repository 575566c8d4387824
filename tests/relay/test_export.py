"""`qtorch-relay export-relay`: what it writes, and that it writes nothing where it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.text import imported_text
from tests.command import Run, runner
from tests.relay.programs import ENGINE, digits_network, imported, lstm

FILES = ["build_with_relay.py", "model.params", "model.relay"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.pt"
    with quantized_engine(ENGINE):
        torch.jit.save(torch.jit.trace(digits_network(), torch.zeros(4, 1, 8, 8)), path)
    return path


COMMAND = ("export-relay", "--engine", ENGINE)
INPUT = ("--input", "x:4,1,8,8")


@pytest.mark.parametrize("exact", [False, True])
def test_a_folder_is_written(exact: bool, model: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "out"
    answer = run(*COMMAND, model, *INPUT, "-o", folder, "--json", *(["--exact"] if exact else []))
    assert answer.status == 0
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert answer.json()["files"] == {name: (folder / name).stat().st_size for name in FILES}
    text, params = imported_text(imported(torch.jit.load(model)), Options(exact=exact))
    assert (folder / "model.relay").read_text() == text
    assert (folder / "model.params").read_bytes() == params
    script = (folder / "build_with_relay.py").read_text()
    compile(script, "build_with_relay.py", "exec")
    assert 'rounding="TONEAREST", compute_dtype="float32"' in script


def test_a_folder_that_is_there_keeps_its_other_files(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(*COMMAND, model, *INPUT, "-o", tmp_path, "--rounding", "UPWARD").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [*FILES, "notes.txt"]
    assert 'rounding="UPWARD", compute_dtype="float32"' in (tmp_path / "model.relay").read_text()


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("out", ("--rounding", "nearest"), "rounding is 'nearest'; accepted are UPWARD and TONEAREST"),
        ("out", ("--compute-dtype", "int32"), "compute_dtype is 'int32'; accepted are float32, float64 and int64"),
        ("out", ("--requantize", "relay"), "requantize is 'relay'; accepted are plain and qnn"),
        ("out", ("--requantize", "qnn", "--exact"), "requantize 'qnn' costs codes, and exact text may cost none"),
        ("file", (), "it is no folder"),
        ("no/where", (), "does not exist; make it first"),
    ],
)
def test_what_cannot_be_done_writes_nothing(
    place: str, options: tuple[str, ...], message: str, model: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "file").write_text("")
    answer = run(*COMMAND, model, *INPUT, "-o", tmp_path / place, *options)
    assert answer.status == 2
    assert message in answer.err
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_lstm_writes_nothing(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "lstm.pt"
    torch.jit.save(torch.jit.trace(lstm(), torch.zeros(2, 1, 4)), path)
    answer = run(*COMMAND, path, "--input", "x:2,1,4", "-o", tmp_path / "out")
    assert answer.status == 2
    assert "LSTM and its cell, int8" in answer.err
    assert list(tmp_path.iterdir()) == [path]
