"""The table makes the same codes again, and is refused where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from calibration.batches import ArrayBatches
from calibration.quantize import Options, quantize, quantize_with_table
from calibration.recipes import scheme_of
from calibration.table import CalibrationTable, read_table, write_table
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import CalibrationError
from tests.calibration.networks import Stubbed, images, mobile

DATA = ArrayBatches((images(),), batch_size=16)


def made_table() -> CalibrationTable:
    return quantize(mobile(), scheme_of("static_w8c_a8", "fbgemm", "percentile:99.9"), DATA).table


@pytest.mark.parametrize("observer", ["histogram", "percentile:99.99", "entropy", "mse"])
@pytest.mark.parametrize(
    ("mode", "engine"), [("fx", "fbgemm"), ("eager", "qnnpack"), ("eager", "onednn"), ("fx", "x86")]
)
def test_a_table_read_back_gives_identical_codes(mode: str, engine: str, observer: str, tmp_path: Path) -> None:
    model: nn.Module = Stubbed(mobile()).eval()
    made = quantize(model, scheme_of("static_w8c_a8", engine, observer, "mse"), DATA, Options(mode, True, True))
    write_table(made.table, tmp_path / "table.json")
    table = read_table(tmp_path / "table.json")
    assert table == made.table  # every float to the bit
    again = quantize_with_table(model, table)
    assert again.table == made.table
    with quantized_engine(engine):
        assert torch.equal(made.model(images(seed=7)), again.model(images(seed=7)))


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    write_table(made_table(), tmp_path / "table.json")
    data = json.loads((tmp_path / "table.json").read_text())
    assert (data["format"], data["version"]) == ("qtorch_relay calibration table", 1)
    assert (data["recipe"], data["engine"], data["observer"]) == ("static_w8c_a8", "fbgemm", "percentile:99.9")
    assert data["samples"] == 48
    first = data["tensors"][0]
    assert first["name"] == "x"
    assert set(first) == {
        *("name", "also", "scale", "zero_point", "quant_min", "quant_max", "dtype", "scheme", "least", "greatest"),
    }
    assert data["inputs"] == [{"name": "x", "shape": [1, 3, 8, 8], "dtype": "float32"}]


def test_other_weights_are_refused(tmp_path: Path) -> None:
    table, model = made_table(), mobile()
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    with pytest.raises(CalibrationError, match="the table was made for other weights"):
        quantize_with_table(model, table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "version 2; this program reads version 1"),
        (lambda d: d.update(format="something"), "is no calibration table"),
        (lambda d: d.pop("tensors"), "is damaged: its fields are not those of a table: tensors"),
        (lambda d: d.update(extra=1), "not those of a table: extra"),
        (lambda d: d["tensors"][0].update(scale=-1.0), "is damaged: x: scale -1.0 and zero point"),
        (lambda d: d["tensors"][0].update(zero_point=999), "zero point 999"),
        (lambda d: d["tensors"][0].update(dtype="object"), "object, per_tensor_affine is not supported"),
        (lambda d: d["tensors"][0].pop("scale"), "is damaged: 'scale'"),
        (lambda d: d["weights"][0].update(scales=["x"]), "is damaged: could not convert"),
        (lambda d: d["inputs"][0].update(dtype="__class__"), "is no input"),
        (lambda d: d["inputs"][0].update(shape=[1 << 40]), "is no input"),
    ],
)
def test_a_damaged_table_is_refused(change, message: str, tmp_path: Path) -> None:
    data = made_table().to_json()
    data = json.loads(json.dumps(data))
    change(data)
    file = tmp_path / "table.json"
    file.write_text(json.dumps(data))
    with pytest.raises(CalibrationError) as caught:
        read_table(file)
    assert message in str(caught.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    with pytest.raises(CalibrationError, match="cannot be read: No such file"):
        read_table(file)
    file.write_bytes(b"\x80\x04")
    with pytest.raises(CalibrationError, match="is not JSON"):
        read_table(file)
    file.write_text("[" * 100_000)
    with pytest.raises(CalibrationError, match="is not JSON"):
        read_table(file)


def test_scales_that_are_not_the_weights_are_refused() -> None:
    from dataclasses import replace

    table = made_table()
    other = replace(table.weights[0], scales=(1.0, *table.weights[0].scales[1:]))
    with pytest.raises(CalibrationError, match=r"weight scales are not those of expand\.0"):
        quantize_with_table(mobile(), replace(table, weights=(other, *table.weights[1:])))
    with pytest.raises(CalibrationError, match="layers that the model lacks: nowhere"):
        quantize_with_table(mobile(), replace(table, in_float=("nowhere",)))
    with pytest.raises(CalibrationError, match=r"there are no ranges for expand\.0"):
        quantize_with_table(mobile(), replace(table, tensors=(table.tensors[0], *table.tensors[2:])))
    with pytest.raises(CalibrationError, match="trains the weights"):
        quantize_with_table(mobile(), replace(table, trained=True))
