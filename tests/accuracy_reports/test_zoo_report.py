"""`make zoo`'s table: rows, exit status."""

from __future__ import annotations

import json

import pytest

from accuracy_reports import zoo_report
from accuracy_reports.zoo_report import ZooRow


@pytest.mark.parametrize(("differing", "status"), [(0, 0), (3, 1)])
def test_a_difference_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], differing: int, status: int
) -> None:
    where = "layer1 (quantized::add)" if differing else ""
    rows = [
        ZooRow("resnet18", "fbgemm", "kernels", 34, 1000, differing, where),
        ZooRow("resnet18", "fbgemm", "portable", 34, 1000, 0, ""),
    ]
    monkeypatch.setattr(zoo_report, "compare_zoo_model", lambda model, engine, paths: iter(rows))
    assert zoo_report.main(["--models", "resnet18", "--engines", "fbgemm"]) == status
    printed = capsys.readouterr().out
    assert f"| resnet18 | 34 | 1000 | {differing} / 0 |" in printed
    assert ("- resnet18, fbgemm, kernels: first in layer1 (quantized::add)" in printed) == bool(differing)
    assert zoo_report.main(["--models", "resnet18", "--engines", "fbgemm", "--json"]) == status
    assert json.loads(capsys.readouterr().out)[0]["differing"] == differing
