"""The comparison of networks on boards: what it counts, and its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtorch_relay.qparams import PerTensor, QuantizedTensor
from tools.emulated_board import BoardError
from tools.zoo_arm.__main__ import main, to_markdown
from tools.zoo_arm.compare import Counts, Row

ROW = Row("resnet18", "fbgemm", "cortex-a53", "arm-neon", 34, 1000, 0, 10, 0, 11_000_000, 11_600_000, 50_000_000, 30)


def test_codes_and_floats_are_counted_apart() -> None:
    counts = Counts()
    codes = np.array([1, 2, 3], "uint8")
    counts.add(QuantizedTensor(codes, PerTensor(0.1, 0, "uint8")), np.array([1, 2, 4], "uint8"))
    counts.add(np.array([1, np.nan], "float32"), np.array([1, np.nan], "float32"))
    counts.add(np.array([1, 2], "float32"), np.array([1, np.nan], "float32"))
    assert (counts.codes, counts.differing, counts.floats, counts.floats_differing) == (3, 1, 4, 1)
    with pytest.raises(BoardError, match=r"PyTorch gives uint8 \(3,\), the board int8 \(3,\)"):
        counts.add(QuantizedTensor(codes, PerTensor(0.1, 0, "uint8")), codes.astype("int8"))


def test_tables_tell_differences_sizes_and_what_is_not_measured() -> None:
    wrong = replace(ROW, cpu="max", target="arm-i8mm", differing=7, floats_differing=2)
    through_rpc = replace(ROW, engine="qnnpack", layers=0, rpc_elements=1010, rpc_differing=3)
    lines = to_markdown([ROW, wrong, through_rpc]).splitlines()
    assert lines[0] == "| model | engine | layers | elements | cortex-a53 (arm-neon) | max (arm-i8mm) | through RPC |"
    assert lines[2:4] == [
        "| resnet18 | fbgemm | 34 | 1010 | 0 | 9 |  |",
        "| resnet18 | qnnpack | outputs | 1010 | 0 |  | 3 |",
    ]
    assert "| 34 at 64 pixels |" in to_markdown([replace(ROW, layers_pixels=64)])
    assert (ROW.wrong, wrong.wrong, through_rpc.wrong) == (0, 9, 3)
    assert lines[-2:] == [
        "| resnet18 | arm-neon | 30 | 11.00 | 11.60 | 0.60 | 50.00 |",
        "| resnet18 | arm-i8mm | 30 | 11.00 | 11.60 | 0.60 | 50.00 |",
    ]


def test_unknown_networks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--models", "alexnet", "--output", str(tmp_path / "x.json")])
    assert "invalid choice: 'alexnet'" in capsys.readouterr().err
