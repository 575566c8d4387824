"""The demo: accurate, exact, and it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert (tmp_path / "digits.pt").exists()
    load(tmp_path / "digits.qtr").self_test()


@pytest.mark.parametrize(("differing", "floats", "exact"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_a_single_differing_output_is_not_exact(differing: int, floats: int, exact: bool) -> None:
    ours = Row("qtorch_relay", 1.0, 1.0, differing, floats)
    assert DemoResult("fbgemm", "generic", 1, 1, 10, (ours,), ()).is_exact is exact
