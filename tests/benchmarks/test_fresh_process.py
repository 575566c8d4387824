"""Figures of programs that are compiled and started in processes of their own."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import fresh_process, start_up
from benchmarks.results import OURS, Compile, Start
from qtorch_relay.capture.engine import quantized_engine


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns a small saved model, its input, and where its bundle is to be."""
    folder = tmp_path_factory.mktemp("model")
    found = {name: folder / name for name in ("model.pt", "model.qtr", "input.npy")}
    with quantized_engine("fbgemm"):
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)).eval(), {nn.Linear})
        torch.jit.save(torch.jit.trace(model, torch.randn(2, 8)), str(found["model.pt"]))
    np.save(found["input.npy"], np.ones((2, 8), np.float32))
    return found


def test_compile_and_start_tell_time_and_memory(files: dict[str, Path]) -> None:
    compiled = Compile(**start_up._run("compile", files["model.pt"], files["model.qtr"], "fbgemm", files["input.npy"]))
    assert compiled.total_s == compiled.from_pytorch_s + compiled.compile_s > 0
    assert 0 < compiled.libraries_mib <= compiled.peak_mib
    started = Start(OURS, **start_up._run("start", OURS, files["model.qtr"], files["input.npy"]))
    assert all(getattr(started, item.name) > 0 for item in fields(Start) if item.name != "program")
    assert started.libraries_mib <= started.resident_mib <= started.peak_mib
    assert started.import_s + started.start_s < started.process_s
    # A bundle needs neither torch nor TVM's compiler, which alone take more than this.
    assert started.peak_mib < 150


def test_memory_of_a_process_is_read() -> None:
    assert 0 < fresh_process.memory_mib("VmRSS") <= fresh_process.memory_mib("VmHWM")
    with pytest.raises(OSError, match="has no VmNothing"):
        fresh_process.memory_mib("VmNothing")
