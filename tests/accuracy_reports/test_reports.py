"""The committed results are what `make reports` makes and what the product promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from accuracy_reports import reports
from accuracy_reports.pages.html import render
from accuracy_reports.pages.index import COLUMNS, OTHER_PAGES, columns_of, row_of, write_index
from accuracy_reports.record import OURS, Dataset, Layers, Share, read_record, write_record
from accuracy_reports.reports import RESULTS, shortcomings
from accuracy_reports.runs.coordinator import RECORD, REPORT
from accuracy_reports.zoo import IMAGE_SIZES
from tests.accuracy_reports.records import layer, record

NAMES = ("digits", *IMAGE_SIZES)
REDRAW = "the pages are drawn differently now: run python -m accuracy_reports.reports"


@pytest.mark.parametrize("name", NAMES)
def test_committed_results_hold_what_is_promised(name: str) -> None:
    found = read_record(RESULTS / name / RECORD)
    assert shortcomings(name, found) == []
    assert found.layers is not None
    assert found.layers.float_model is not None
    # TorchScript makes one concatenation of two that follow each other, in float: inception_v3 has four of these
    assert {layer.op for layer in found.layers.layers if layer.missing is not None} <= {"quantized::cat"}
    assert (RESULTS / name / REPORT).read_text() == render(found), REDRAW


def test_the_committed_index_is_of_the_committed_records(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD).write_bytes((RESULTS / name / RECORD).read_bytes())
    for other in OTHER_PAGES:
        if other in (RESULTS / "README.md").read_text():
            (tmp_path / other).touch()
    write_index(tmp_path)
    for name in ("index.html", "README.md"):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text(), REDRAW


def test_results_stay_small() -> None:
    sizes = {path: path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()}
    assert max(size for path, size in sizes.items() if path.suffix == ".html") < 1.5e6
    assert sum(sizes.values()) < 12e6


def test_what_falls_short_is_said() -> None:
    assert shortcomings("digits", record()) == []
    rows = record().programs
    changed = [replace(row, differing_codes=Share.of_count(1, 3600)) if row.name == OURS else row for row in rows]
    assert shortcomings("digits", record(programs=tuple(changed))) == [
        "digits: output codes differ from PyTorch int8's"
    ]
    weak = [replace(row, top1=Share.of_count(340, 360)) if row.top1 is not None else row for row in rows]
    assert "the float network has 94.44%" in shortcomings("digits", record(programs=tuple(weak)))[0]
    assert shortcomings("resnet18", record(programs=tuple(weak))) == []
    assert shortcomings("digits", record(layers=None)) == ["digits: its layers are not compared"]
    layers = replace(record().layers or Layers(1, None, ()), layers=(layer(0, differing=2),))
    assert shortcomings("digits", record(layers=layers)) == ["digits: codes of a layer differ from PyTorch int8's"]


def test_published_figures_stand_beside_runs_on_imagenet_only() -> None:
    seeded = row_of("resnet18", record())
    assert seeded.published == "-"
    imagenet = record(dataset=Dataset("ImageNet", 361, tuple(map(str, range(1000)))))
    assert row_of("resnet18", imagenet).published == "69.45 / 69.54"
    assert row_of("digits", imagenet).published == "-"
    assert set(columns_of([seeded])) == set(COLUMNS) - {"published"}


def test_latencies_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    write_record(record(), tmp_path / "digits" / RECORD)
    assert reports.main(["--models", "digits", "--output", str(tmp_path), "--latencies", "none"]) == 0
    found = read_record(tmp_path / "digits" / RECORD)
    assert all(row.latency_ms is None and row.images_per_s is None for row in found.programs)
    assert "Latency" not in (tmp_path / "digits" / REPORT).read_text()
    assert "speed" not in (tmp_path / "README.md").read_text()


def test_records_that_are_there_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "digits").mkdir()
    write_record(record(), tmp_path / "digits" / RECORD)
    assert reports.main(["--models", "digits", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "digits" / REPORT).read_text() == render(record())
    assert "98.89" in (tmp_path / "index.html").read_text()
    assert "every code and every answer" in capsys.readouterr().out
