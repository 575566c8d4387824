"""The comparison of calibration methods: the harder task is one, and the committed table is what its JSON says."""

from __future__ import annotations

import json

import pytest
import torch

from accuracy_reports.calibration_report import ENGINES, RESULTS, Method, compare, main, methods
from accuracy_reports.calibration_tasks import Task, exposure_task, unbalanced_task
from calibration.evaluate import expected_outputs
from qtorch_relay.demo.digits import DigitsNet, load_digits, train


@pytest.fixture(scope="module")
def exposures() -> Task:
    return exposure_task()


def test_min_max_fails_where_activations_are_heavy_tailed(exposures: Task) -> None:
    expected = expected_outputs(exposures.network, exposures.test)
    found = {
        observer: compare(exposures, "fbgemm", Method("static_w8c_a8", observer), expected).accuracy
        for observer in ("minmax", "percentile:99", "entropy")
    }
    plain = expected.answers().accuracy
    assert plain is not None
    assert plain > 0.9
    assert found["minmax"] < 0.6 < found["entropy"] < plain
    assert found["entropy"] < found["percentile:99"] < plain


def test_in_float_the_answers_do_not_hang_on_brightness(exposures: Task) -> None:
    x = exposures.test.inputs[0]
    with torch.no_grad():
        assert torch.equal(exposures.network(x).argmax(1), exposures.network(4 * x).argmax(1))
    amplitudes = x.flatten(1).amax(1)
    assert float(amplitudes.max() / amplitudes.median()) > 20


def test_the_unbalanced_network_is_the_same_function_and_equalization_mends_it() -> None:
    network: DigitsNet = train(load_digits(), lambda items, _: items)
    task = unbalanced_task(network)
    x = task.test.inputs[0]
    with torch.no_grad():
        torch.testing.assert_close(task.network(x)[1], network(x)[1], rtol=1e-4, atol=1e-4)
    expected = expected_outputs(task.network, task.test)
    plain, equalized = (
        compare(task, "fbgemm", Method("static_w8t_a8", "minmax", equalize=is_equalized), expected)
        for is_equalized in (False, True)
    )
    assert equalized.sqnr_db > plain.sqnr_db + 10


def test_the_committed_table_has_every_method() -> None:
    data = json.loads((RESULTS / "calibration.json").read_text())
    text = (RESULTS / "calibration.md").read_text()
    assert {(row["recipe"], row["method"]) for row in data["rows"]} == {(m.recipe, str(m)) for m in methods()}
    assert {row["engine"] for row in data["rows"]} == set(ENGINES)
    sections = {part.splitlines()[0]: part.replace("*", "").splitlines() for part in text.split("\n## ")[1:]}
    for row in data["rows"]:
        start = f"| {row['recipe']} | {row['method']} | "
        [line] = [line for line in sections[row["task"]] if line.startswith(start)]
        cells = line.removeprefix(start).rstrip(" |").split(" | ")
        at = 2 * ENGINES.index(row["engine"])
        assert cells[at : at + 2] == [f"{row['accuracy']:.2%}", f"{row['sqnr_db']:.1f} dB"]


def test_help_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "make calibration" in capsys.readouterr().out
