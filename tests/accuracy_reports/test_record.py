from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from accuracy_reports import record as schema
from accuracy_reports.environment import commit_of, describe_environment
from accuracy_reports.record import OURS, Program, RecordError, Share, parse_record, read_record, to_json, write_record
from tests.accuracy_reports.records import record


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(record(), path)
    assert read_record(path) == record()
    assert to_json(read_record(path)) == path.read_bytes()


def test_an_interval_is_wilsons() -> None:
    share = Share.of_count(8, 10)  # 0.4902 to 0.9433 in Wilson's paper's formula, as statsmodels gives it
    assert (round(share.low, 4), round(share.high, 4)) == (0.4902, 0.9433)
    assert Share.of_count(10, 10).high == 1.0
    assert Share.of_count(0, 10).low == 0.0
    assert Share.of_count(0, 0).value == 0.0
    # the interval of half of n is symmetric and shrinks with the root of n
    wide, narrow = Share.of_count(50, 100), Share.of_count(5000, 10000)
    assert math.isclose(wide.low + wide.high, 1)
    assert 9.5 < (wide.high - wide.low) / (narrow.high - narrow.low) < 10.5


def _with(path: list[Any], value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with(["format_version"], 2), "has format version 2, this qtorch_relay reads version 1"),
        (_with(["format"], "a bundle"), "is not an accuracy record: format"),
        (_with(["programs", 0, "top1", "count"], 361), "programs.0.top1: Value error, 361 of 360"),
        (_with(["programs", 0, "top1", "count"], "356"), "programs.0.top1.count: Input should be a valid integer"),
        (_with(["programs", 0, "top1", "of"], 100), "programs.0"),
        (_with(["programs", 0, "latency_ms"], -1.0), "greater than or equal to 0"),
        (_with(["programs", 1, "name"], "PyTorch float"), "programs of one name"),
        (_with(["programs", 0, "speed"], 1), "programs.0.speed: Unexpected keyword argument"),
        (_with(["layers", "layers", 0, "theirs", "histogram"], [1] * 255), "at least 256 items"),
        (_with(["layers", "layers", 0, "scale"], 0.0), "greater than 0"),
        (_with(["model", "name"], "x" * 1001), "at most 1000 characters"),
        (_with(["environment", "versions"], {str(i): "1" for i in range(101)}), "at most 100 items"),
        (_with(["dataset", "sha256"], "zz"), "dataset.sha256"),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    data = json.loads(to_json(record()))
    change(data)
    path = tmp_path / "record.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError) as refused:
        read_record(path)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": NaN}', b"[" * 100_000])
def test_what_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(RecordError):
        parse_record(text)


def test_a_missing_and_a_huge_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*none.json: No such file"):
        read_record(tmp_path / "none.json")
    with pytest.raises(RecordError, match="cannot read"):
        read_record(tmp_path)
    path = tmp_path / "record.json"
    write_record(record(), path)
    monkeypatch.setattr(schema, "MAX_SIZE_BYTES", 1000)
    with pytest.raises(RecordError, match="a record has at most"):
        read_record(path)


def test_a_record_is_checked_when_it_is_built() -> None:
    with pytest.raises(ValidationError, match="a share is of 10"):
        Program(OURS, 20, top1=Share.of_count(1, 10))
    with pytest.raises(ValidationError, match="a problem and numbers"):
        Program(OURS, 20, problem="it is not installed")
    with pytest.raises(ValidationError, match="finite"):
        replace(record().programs[0], latency_ms=math.inf)


def test_a_program_with_a_problem_has_no_numbers() -> None:
    assert record().program(OURS) is not None
    assert record().program("ONNX Runtime QDQ") is None
    assert record().program("none") is None


def test_the_environment_is_told(tmp_path: Path) -> None:
    found = describe_environment("qtorch-relay accuracy", num_threads=2)
    assert found.num_threads == 2
    assert found.versions["torch"]
    assert found.date.endswith("Z")
    assert commit_of(tmp_path) is None
