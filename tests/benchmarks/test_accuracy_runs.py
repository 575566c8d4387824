"""The measurement of accuracy runs: it runs, and a resumed run does the other half."""

from __future__ import annotations

from pathlib import Path

from accuracy_reports.runs.journal import JOURNAL
from accuracy_reports.runs.prepare import Request
from accuracy_reports.runs.setup import Data
from benchmarks.accuracy_runs import ENGINE, keep_half, measure, write_images
from tests.accuracy_reports.runs.small_runs import write_models


def test_a_resumed_run_does_what_is_left(tmp_path: Path) -> None:
    data = write_images(tmp_path, 16, 50)
    request = Request(Data(str(data)), write_models(tmp_path, 1000)[0], engine=ENGINE, chunk=10)
    begun = measure(request, tmp_path)
    keep_half(tmp_path / JOURNAL)
    resumed = measure(request, tmp_path)
    assert (begun.images, resumed.images) == (50, 20)
    assert 0 < begun.calls_s < begun.seconds
    assert "50 images in" in str(begun)
