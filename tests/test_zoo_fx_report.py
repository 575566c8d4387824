"""`make zoo-fx`'s table: rows, exit status."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from accuracy_reports import zoo_fx_report
from accuracy_reports.zoo import FLOAT_NETWORKS
from accuracy_reports.zoo_fx_report import FxRow

ROW = FxRow("swin_t", 224, "fbgemm", "kernels", 90, 1000, 0, 500, 7, 1.5, ("aten::softmax",), 12, 3, 9, 0.02, ())


@pytest.mark.parametrize(("wrong", "status"), [((), 0), (("features.1 (aten::softmax.int)",), 1)])
def test_what_is_beyond_rounding_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...], status: int
) -> None:
    monkeypatch.setattr(zoo_fx_report, "compare_fx_model", lambda *arguments: replace(ROW, wrong=wrong))
    assert zoo_fx_report.main(["--models", "swin_t"]) == status
    printed = capsys.readouterr().out
    assert "| swin_t | 224 | fbgemm, kernels | 90 | 1000: 0 | 500: 7 | 1.5, aten::softmax | 3 | 2.0e-02 of" in printed
    assert ("- swin_t, fbgemm, kernels: wrong: features.1 (aten::softmax.int)" in printed) == bool(wrong)
    assert zoo_fx_report.main(["--models", "swin_t", "--json"]) == status
    assert json.loads(capsys.readouterr().out)[0]["moved_codes"] == 3


def test_float_networks_are_those_of_the_float_report(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def compare(model: str, *arguments: object) -> FxRow:
        seen.append(model)
        return replace(ROW, model=model)

    monkeypatch.setattr(zoo_fx_report, "compare_float_model", compare)
    assert zoo_fx_report.main(["--float"]) == 0
    assert tuple(seen) == FLOAT_NETWORKS
