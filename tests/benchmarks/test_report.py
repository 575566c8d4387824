"""The results of `make bench`: written and read, held to the bars, told in the README."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.bars import NETWORKS, bars
from benchmarks.layers import markdown
from benchmarks.results import OURS, Compile, Concurrency, Results, Row, Start, read, write
from qtorch_relay.runtime.layer_times import LayerTime, LayerTimes

STORED = sorted(report.RESULTS.glob("x86-*.json"))


def row(model: str, ours_ms: float, batch: int = 1, num_threads: int = 1) -> Row:
    latency_ms = {
        OURS: ours_ms,
        "PyTorch fbgemm": 3.0,
        "PyTorch float": 9.0,
        "ONNX Runtime": 2.0,
        "OpenVINO float": 1.0,
    }
    return Row(model, batch, num_threads, latency_ms, {"OpenVINO": "refused"}, 200_000_000, 235.0)


@pytest.fixture
def results() -> Results:
    return Results(
        cpu="some CPU",
        cpus=2,
        system="Linux",
        target="x86-avx512vnni",
        date="2026-11-22",
        command="python -m benchmarks",
        rounds=30,
        versions={"torch": "2.13"},
        rows=(row("resnet50", 1.0), row("resnet50", 0.6, num_threads=2), row("mobilenet_v2", 1.6)),
        starts=(
            Start(OURS, 0.2, 0.1, 0.01, 0.4, 30.0, 90.0, 120.0),
            Start("ONNX Runtime", 0.1, 0.2, 0.01, 0.4, 40.0, 80.0, 130.0),
        ),
        compile=Compile(1.0, 6.0, 0.2, 400.0, 600.0, 26.0),
        concurrency=(Concurrency("resnet18", {1: 100.0, 2: 190.0}),),
    )


def test_results_are_read_as_they_were_written(results: Results, tmp_path: Path) -> None:
    write(results, tmp_path / "new" / "results.json")
    assert read(tmp_path / "new" / "results.json") == results
    empty = replace(results, rows=(), starts=(), compile=None, concurrency=())
    write(empty, tmp_path / "results.json")
    assert read(tmp_path / "results.json") == empty


def test_a_row_takes_the_place_of_the_one_about_the_same(results: Results) -> None:
    assert results.with_row(row("resnet50", 5.0)).rows[0].latency_ms[OURS] == 5.0
    assert len(results.with_row(row("resnet50", 5.0)).rows) == 3
    assert results.with_row(row("resnet50", 5.0, batch=8)).rows[-1].batch == 8


def test_float_programs_are_no_peers(results: Results) -> None:
    assert (results.rows[0].best_peer, results.rows[0].times_as_fast) == ("ONNX Runtime", 2.0)
    assert results.rows[0].share_of_peak == pytest.approx(200 / 235)


def test_bars_are_met_or_not_or_not_measured(results: Results) -> None:
    others = tuple(row(model, 0.5, num_threads=n) for model in NETWORKS for n in (1, 2))
    every = replace(results, rows=(*results.rows, *(o for o in others if o.key not in {r.key for r in results.rows})))
    verdicts = {bar.what: bar.verdict for bar in bars(every)}
    assert verdicts == {
        "every network, 1 thread": "met",
        "every network, 2 threads": "met",
        "geometric mean, 1 and 2 threads": "met",
        "mobilenet_v2, mobilenet_v3_large, shufflenet_v2_x1_0, 1 thread": "not met",
        "resnet18, resnet50, 1 thread": "not met",
        "resnet50, 2 threads against 1": "not met",
        "batch 8, every network": "not measured",
        "every network against PyTorch float": "met",
        "compile resnet50, with its import": "not met",
        "peak memory of compiling resnet50": "met",
        "resident memory of resnet50 while it runs": "not met",
        "peak memory of resnet50": "met",
        "load resnet50 and run it once": "met",
        "the same, with interpreter and imports, resnet50": "met",
    }
    assert bars(results)[0].verdict == "not measured"  # not all of the networks
    nothing = replace(results, rows=(), starts=(), compile=None)
    assert {bar.verdict for bar in bars(nothing)} == {"not measured"}


def test_section_takes_the_place_of_the_old_one(results: Results) -> None:
    readme = "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n"
    new = report.update(readme, results)
    assert new.startswith("before\n<!-- bench -->\n| network |")
    assert new.endswith("<!-- /bench -->\nafter\n")
    assert "| resnet50 | 3.00 / 3.00 | 2.00 / 2.00 | - / - | 1.00 / 0.60 | 2.00 / 3.33 |" in new
    assert "| mobilenet_v2 | 3.00 | 2.00 | - | 1.60 | 1.25 |" in new
    assert "- resnet50, 2 threads against 1: at least 1.8 times as fast is not met" in new
    assert "old" not in new
    assert report.update(new, results) == new
    with pytest.raises(ValueError, match="no <!-- bench -->"):
        report.update("nothing", results)


def test_page_says_everything(results: Results) -> None:
    text = report.page(results)
    assert "some CPU, 2 CPUs" in text
    assert "| mobilenet_v2 | 1 | 1 | 9.00 | 3.00 (fbgemm) | 2.00 | - | 1.60 | 1.25 (ONNX Runtime) | 53% |" in text
    assert "- mobilenet_v2, OpenVINO: refused" in text


def test_layers_are_told_by_kernel_and_in_order(results: Results) -> None:
    layers = (
        LayerTime("3 -> 8", "conv2d_u8__x86", 10.0, 1_000_000, 0.43),
        LayerTime("add: 2x2", None, 5.0, 0, None),
        LayerTime("8 -> 8", "conv2d_u8__x86", 30.0, 3_000_000, 0.43),
    )
    text = markdown(results, {"resnet18": LayerTimes(layers, 44.0, 235.0)})
    assert "A call takes 0.044 ms, 39% of the peak." in text
    assert "| conv2d_u8 | 2 | 40.0 | 88.9% | 4.00 | 43% |" in text
    assert "| add: 2x2 | generic code | 5.0 | 11.1% | 0.00 |  |" in text


def test_plot_is_written(results: Results, tmp_path: Path) -> None:
    report.plot(results, tmp_path / "picture.svg")
    assert "mobilenet_v2, batch 1" in (tmp_path / "picture.svg").read_text()


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_readme_and_page_agree_with_the_stored_results(path: Path) -> None:
    readme, results = report.README.read_text(), read(path)
    assert report.update(readme, results) == readme, f"python -m benchmarks.report writes what {path.name} says"
    assert report.PAGE.read_text() == report.page(results)
