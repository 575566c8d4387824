from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from accuracy_reports.record import read_record
from qtorch_relay.cli import main
from tests.accuracy_reports.layers.nets import images, make, plant


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["qtorch-relay", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def save(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, images(3), check_trace=False).save(str(path))
    return path


def test_compare_names_the_layer_with_the_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    floats, int8 = make("eager")
    model = save(plant(int8, "mix.0", "weight"), tmp_path / "int8.pt")
    float_model, record = save(floats, tmp_path / "float.pt"), tmp_path / "record.json"
    options = ("--input", "x:2,3,12,12", "--engine", "fbgemm", "--float", float_model, "--images", 2, "-o", record)
    assert run(monkeypatch, model, *options, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert "Quantization: mix.0 (quantized::conv2d_relu) loses most by itself" in " ".join(
        data["three_ways"]["findings"]
    )
    found = read_record(record)
    assert found.layers is not None
    assert found.layers.images == 4
    assert found.layers.float_model == "float.pt"
    assert [layer.name for layer in found.layers.layers] == [layer["name"] for layer in data["three_ways"]["layers"]]


def test_a_record_without_a_float_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = save(make("eager")[1], tmp_path / "int8.pt")
    record = tmp_path / "record.json"
    assert run(monkeypatch, model, "--input", "x:2,3,12,12", "-o", record) == 2
    assert "--float" in capsys.readouterr().err
    assert run(monkeypatch, model, "--input", "x:2,3,12,12", "--float", tmp_path / "none.pt", "-o", record) == 2
    assert "none.pt" in capsys.readouterr().err
    assert run(monkeypatch, model, "--input", "x:2,3,12,12", "--float", model, "-o", record) == 2
    assert "int8.pt is quantized: it has quantized::conv2d" in capsys.readouterr().err
    assert not record.exists()
