from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accuracy_reports.gate import Check, Thresholds, ThresholdsError, compare_records, read_thresholds
from accuracy_reports.pages.html import render_checks
from accuracy_reports.record import FLOAT, INT8, OURS, Program, Record
from tests.accuracy_reports.records import layer, program, record

DEFAULTS = read_thresholds(None)


def failed(old: Record, new: Record, limits: Thresholds = DEFAULTS) -> list[Check]:
    checks = compare_records(old, new, limits)
    assert [check.passes for check in checks] == sorted(check.passes for check in checks)
    return [check for check in checks if not check.passes]


def with_program(name: str, **changes: Any) -> Record:
    return record(programs=tuple(replace(row, **changes) if row.name == name else row for row in record().programs))


def with_layer(index: int, **changes: Any) -> Record:
    found = record()
    assert found.layers is not None
    layers = list(found.layers.layers)
    layers[index] = replace(layers[index], **changes)
    return replace(found, layers=replace(found.layers, layers=tuple(layers)))


def test_a_run_passes_against_itself() -> None:
    checks = compare_records(record(), record(), DEFAULTS)
    assert {check.limit_name for check in checks} == {
        "accuracy.top1_drop_points",
        "accuracy.top5_drop_points",
        "accuracy.agreement_drop_points",
        "codes.differing",
        "codes.differing_in_layers",
        "layers.sqnr_drop_db",
        "latency.slower_than_int8_percent",
    }
    assert failed(record(), record()) == []


def test_lost_accuracy_is_told_with_its_limit() -> None:
    worse = program(OURS, 350)  # 5 of 360 fewer: 1.39 points, limit 0.5
    (check, *_) = failed(record(), with_program(OURS, top1=worse.top1))
    assert check.what == "top-1, qtorch_relay"
    assert check.sentence() == (
        "top-1, qtorch_relay: 98.61% before, 97.22% now; worse by 1.389 points, 0.8889 more than allowed: "
        "the limit is 0.5 points (accuracy.top1_drop_points)"
    )
    assert failed(with_program(OURS, top1=worse.top1), record()) == []  # better is fine


def test_one_differing_code_is_past_the_limit() -> None:
    worse = program(OURS, 355, codes=1)
    (check,) = failed(record(), with_program(OURS, differing_codes=worse.differing_codes))
    assert (check.limit_name, check.change, check.new) == ("codes.differing", 1, "1 of 3,600")


def test_floats_are_judged_where_a_model_gives_no_codes() -> None:
    floats = {"differing_codes": None, "differing_floats": program(OURS, 355, codes=3).differing_codes}
    (check,) = failed(record(), with_program(OURS, **floats))
    assert (check.what, check.unit, check.new) == ("output floats that differ", "floats", "3 of 3,600")


def test_a_layer_that_lost_is_named() -> None:
    worse = layer(2).total
    assert worse is not None
    (check,) = failed(record(), with_layer(2, total=replace(worse, sqnr_db=20.0)))
    assert check.what == "SQNR of layer2.conv (quantized::conv2d_relu)"
    assert check.change == pytest.approx(18.0)  # 38 dB in the record
    gone = record(layers=None)
    assert {check.new for check in failed(record(), gone)} == {"no such layer"}


def test_a_layer_whose_codes_differ_is_past_the_limit() -> None:
    (check,) = failed(record(), with_layer(1, compiler=layer(1, differing=7).compiler))
    assert (check.limit_name, check.new) == ("codes.differing_in_layers", "7 of 500")


def test_latency_is_judged_beside_pytorch_in_the_same_run() -> None:
    busy = record(
        programs=(program(INT8, 355, latency_ms=0.75), program(FLOAT, 356), program(OURS, 355, latency_ms=0.3))
    )
    assert failed(record(), busy) == []  # three times slower, both
    (check,) = failed(record(), with_program(OURS, latency_ms=0.2))
    assert check.limit_name == "latency.slower_than_int8_percent"
    assert check.change == pytest.approx(100.0)


def test_a_program_that_is_gone_cannot_be_checked() -> None:
    gone = tuple(row for row in record().programs if row.name != OURS)
    found = failed(record(), record(programs=(*gone, Program(OURS, 0, problem="it crashed"))))
    assert all(check.change is None for check in found)
    assert "cannot be checked" in found[0].sentence()


def test_runs_on_other_images_are_not_compared() -> None:
    other = replace(record(), dataset=replace(record().dataset, sha256="1" * 64))
    with pytest.raises(ThresholdsError, match="the runs saw different images"):
        compare_records(record(), other, DEFAULTS)
    unnamed = replace(record(), dataset=replace(record().dataset, sha256=None, images=5))
    with pytest.raises(ThresholdsError, match="5 images"):
        compare_records(record(), unnamed, DEFAULTS)


def test_what_a_file_leaves_out_is_not_checked(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("[accuracy]\ntop1_drop_points = 2\n")
    limits = read_thresholds(path)
    assert {check.limit_name for check in compare_records(record(), record(), limits)} == {"accuracy.top1_drop_points"}
    assert failed(record(), with_program(OURS, top1=program(OURS, 350).top1), limits) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy = ", "is not TOML"),
        ("[accuracy]\ntop1 = 1", r"accuracy.top1: .*; accepted are accuracy.top1_drop_points, .*latency.slower_than"),
        ("[speed]\nx = 1", "speed"),
        ("[codes]\ndiffering = -1", "greater than or equal to 0"),
        ("[codes]\ndiffering = nan", "finite"),
        ("[codes]\ndiffering = 'none'", "valid number"),
    ],
)
def test_wrong_limits_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(ThresholdsError, match=message) as refused:
        read_thresholds(path)
    assert str(path) in str(refused.value)


def test_missing_limits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ThresholdsError, match="cannot read"):
        read_thresholds(tmp_path / "none.toml")


def test_the_comparison_is_drawn_with_failures_first() -> None:
    new = with_program(OURS, top1=program(OURS, 350).top1)
    page = render_checks(record(), new, compare_records(record(), new, DEFAULTS))
    assert page.index("past the limit") < page.index(">within<")
    assert re.search(r"<b>1 past their limit</b>", page)
    assert "<b>CNN</b>" not in page
