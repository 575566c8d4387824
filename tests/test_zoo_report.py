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
    row = ZooRow("resnet18", "fbgemm", "kernels", 34, 1000, differing, "layer1 (quantized::add)" if differing else "")
    monkeypatch.setattr(zoo_report, "compare_zoo_model", lambda model, engine, paths: iter([row]))
    assert zoo_report.main(["--models", "resnet18", "--engines", "fbgemm"]) == status
    assert f"| resnet18 | fbgemm | kernels | 34 | 1000 | {differing} |" in capsys.readouterr().out
    assert zoo_report.main(["--models", "resnet18", "--engines", "fbgemm", "--json"]) == status
    assert json.loads(capsys.readouterr().out)[0]["differing"] == differing
