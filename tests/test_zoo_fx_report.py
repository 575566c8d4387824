"""`make zoo-fx`'s page: rows, what is kept, exit status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from accuracy_reports import zoo_fx_report
from accuracy_reports.zoo import FLOAT_NETWORKS
from accuracy_reports.zoo_fx_page import FxRow, read_rows, write_page

ROW = FxRow(False, "swin_t", 224, "fbgemm", "kernels", 90, 1000, 0, 500, 7, 1.5, ("aten::softmax",), 12, 3, 9, 0.02, ())


class Compared:
    """Stands in for the comparisons, which take minutes each, and notes what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, ...] = ()) -> None:
        self.asked: list[tuple[bool, str, str]] = []
        for is_float, name in ((False, "compare_fx_model"), (True, "compare_float_model")):

            def compare(model: str, engine: str, path: str, size: int, is_float: bool = is_float) -> FxRow:
                self.asked.append((is_float, model, engine))
                return replace(ROW, is_float=is_float, model=model, engine=engine, path=path, size=size, wrong=wrong)

            monkeypatch.setattr(zoo_fx_report, name, compare)


@pytest.mark.parametrize(("wrong", "status"), [((), 0), (("features.1 (aten::softmax.int)",), 1)])
def test_what_is_beyond_rounding_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: tuple[str, ...], status: int
) -> None:
    Compared(monkeypatch, wrong)
    output = tmp_path / "page.json"
    assert zoo_fx_report.main(["--models", "swin_t", "--engines", "fbgemm", "--output", str(output)]) == status
    page = output.with_suffix(".md").read_text()
    assert "| swin_t | 224 | fbgemm, kernels | 90 | 1000: 0 | 500: 7 | 1.5, aten::softmax | 3 | 2.0e-02 of" in page
    assert ("- swin_t, fbgemm, kernels: wrong: features.1 (aten::softmax.int)" in page) == bool(wrong)
    assert list(read_rows(output).values()) == [replace(ROW, wrong=wrong)]


def test_a_run_goes_on_where_it_was_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "page.json"
    write_page(output, [replace(ROW, model="alexnet"), ROW])
    compared = Compared(monkeypatch)
    arguments = ["--models", "swin_t", "vit_b_16", "--engines", "fbgemm", "qnnpack", "--output", str(output)]
    assert zoo_fx_report.main([*arguments, "--keep"]) == 0
    left = [("swin_t", "qnnpack"), ("vit_b_16", "fbgemm"), ("vit_b_16", "qnnpack")]
    assert compared.asked == [(False, *case) for case in left]
    assert [row.model for row in read_rows(output).values()][:2] == ["alexnet", "swin_t"]
    assert zoo_fx_report.main(arguments) == 0
    assert len(compared.asked) == len(left) + 4


def test_float_networks_are_those_of_the_float_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compared = Compared(monkeypatch)
    assert zoo_fx_report.main(["--float", "--output", str(tmp_path / "page.json")]) == 0
    assert compared.asked == [(True, model, "fbgemm") for model in FLOAT_NETWORKS]
    assert "## As they are, in float" in (tmp_path / "page.md").read_text()
