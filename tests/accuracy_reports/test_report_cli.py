from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from accuracy_reports.record import OURS, Record, write_record
from qtorch_relay.cli import main
from tests.accuracy_reports.records import program, record

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["qtorch-relay", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def write(found: Record, folder: Path) -> Path:
    folder.mkdir()
    write_record(found, folder / "record.json")
    return folder


def worse() -> Record:
    rows = tuple(program(OURS, 340, latency_ms=0.1) if row.name == OURS else row for row in record().programs)
    return replace(record(), programs=rows)


def test_a_run_is_drawn_beside_its_record_or_where_asked(run: Run, tmp_path: Path) -> None:
    folder = write(record(), tmp_path / "run")
    assert run(folder)[0] == 0
    page = (folder / "report.html").read_text()
    status, out, _ = run(folder / "record.json", "-o", tmp_path / "a.html", "--json")
    assert status == 0
    assert json.loads(out)["size_bytes"] == (tmp_path / "a.html").stat().st_size
    assert (tmp_path / "a.html").read_text() == page


def test_a_second_run_past_a_limit_ends_with_status_1(run: Run, tmp_path: Path) -> None:
    old, new = write(record(), tmp_path / "old"), write(worse(), tmp_path / "new")
    assert run(old, old)[0] == 0
    status, out, _ = run(old, new, "-o", tmp_path / "gate.html")
    assert status == 1
    assert "top-1, qtorch_relay: 98.61% before, 94.44% now; worse by 4.167 points" in out
    assert "94.44" in (tmp_path / "gate.html").read_text()
    status, out, _ = run(old, new, "--json")
    failed = [check["limit_name"] for check in json.loads(out)["checks"] if not check["passes"]]
    assert (status, failed) == (1, ["accuracy.top1_drop_points", "accuracy.top5_drop_points"])
    limits = tmp_path / "limits.toml"
    limits.write_text("[accuracy]\ntop1_drop_points = 5\n")
    assert run(old, new, "--thresholds", limits)[0] == 0


def test_what_cannot_be_drawn_is_one_sentence_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    folder = write(record(), tmp_path / "run")
    damaged = tmp_path / "damaged.json"
    damaged.write_text((folder / "record.json").read_text()[:-100])
    cases = [
        ((damaged, "-o", tmp_path / "x.html"), "is not JSON"),
        ((tmp_path / "none.json",), "No such file"),
        ((folder, "-o", tmp_path / "none" / "x.html"), "does not exist"),
        ((folder, folder, folder), "3 records are given"),
        ((folder, "--thresholds", damaged), "compares two runs"),
        ((folder, folder, "--thresholds", damaged), "is not TOML"),
    ]
    for arguments, message in cases:
        status, _, err = run(*arguments)
        assert status == 2
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "x.html").exists()
