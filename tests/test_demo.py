"""The demo: accurate, exact, and it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qtorch_relay.capture.notes import read_notes
from qtorch_relay.demo import BUNDLE_FILE, FLOAT_FILE, IMAGE_FILE, INT8_FILE, KEPT
from qtorch_relay.demo.digits import torch_threads, trained
from qtorch_relay.demo.measure import DemoResult, Row
from qtorch_relay.runtime import load

MAIN = "import sys; from qtorch_relay.cli import main; sys.argv[0] = 'qtorch-relay'; main()"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", MAIN, "demo", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_the_demo_is_accurate_and_exact(engine: str, tmp_path: Path) -> None:
    done = demo("--engine", engine, "--json", "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {row["program"]: row for row in result["rows"]}
    assert set(rows) == {"PyTorch float", "PyTorch int8", "qtorch_relay", "ONNX Runtime QDQ"}
    assert all(row["accuracy"] >= 0.97 for row in rows.values())
    assert (rows["qtorch_relay"]["differing"], rows["qtorch_relay"]["differing_floats"]) == (0, 0)
    assert (result["images"], result["codes"]) == (360, 3600)
    assert "training" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == set(KEPT)
    load(tmp_path / BUNDLE_FILE).self_test()
    notes = read_notes(tmp_path / INT8_FILE)
    assert notes is not None
    assert (notes.engine, notes.input_infos) == (engine, [("x", ((1, 1, 8, 8), "float32"))])
    assert read_notes(tmp_path / FLOAT_FILE) is None
    assert np.load(tmp_path / IMAGE_FILE).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(("differing", "floats", "exact"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_a_single_differing_output_is_not_exact(differing: int, floats: int, exact: bool) -> None:
    ours = Row("qtorch_relay", 1.0, 1.0, differing, floats)
    assert DemoResult("fbgemm", "generic", 1, 1, 10, (ours,), ()).is_exact is exact


def test_the_network_does_not_depend_on_the_number_of_threads() -> None:
    with torch_threads(1):
        alone = trained().state_dict()
    with torch_threads(2):
        shared = trained().state_dict()
        assert torch.get_num_threads() == 2
    assert all(torch.equal(value, shared[name]) for name, value in alone.items())
