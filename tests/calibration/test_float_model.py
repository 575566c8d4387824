"""What is accepted as a float model; nothing of a stranger's file is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from calibration.float_model import open_float_model
from qtorch_relay.demo.digits import DigitsNet
from qtorch_relay.errors import CalibrationError, QTorchRelayError
from tests.calibration.networks import Mobile, mobile

HERE = "tests.calibration.test_float_model"


def needs_an_argument(size: int) -> nn.Module:
    return nn.Linear(size, size)


def no_module() -> int:
    return 3


def scripted() -> torch.jit.ScriptModule:
    return torch.jit.script(nn.Linear(2, 2))


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear}, torch.qint8)


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "run")


def raising() -> nn.Module:
    raise ValueError("no weights here")


def test_a_function() -> None:
    model = open_float_model("tests.calibration.networks:mobile")
    assert type(model).__name__ == "Mobile"
    assert not model.training


def test_a_state_dict_for_a_function(tmp_path: Path) -> None:
    file, other = tmp_path / "weights.pt", mobile()
    other.classifier.bias[:] = torch.arange(10.0)
    for contents in (other.state_dict(), {"state_dict": other.state_dict(), "epoch": 3}):
        torch.save(contents, file)
        found = open_float_model("tests.calibration.networks:mobile", file)
        assert torch.equal(found.classifier.bias, torch.arange(10.0))


def test_a_file_of_torchs_own_layers(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    torch.save(model, file)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(open_float_model(str(file))(x), model(x))


def test_a_strangers_file_runs_nothing(tmp_path: Path) -> None:
    file, trace = tmp_path / "model.pt", tmp_path / "trace"
    torch.save(Evil(trace), file)
    with pytest.raises(QTorchRelayError, match="which could run anything, so it is not unpickled; accepted are"):
        open_float_model(str(file))
    with pytest.raises(QTorchRelayError, match="could run anything"):
        open_float_model("tests.calibration.networks:mobile", file)
    assert not trace.exists()
    torch.save(Mobile(), file)
    with pytest.raises(QTorchRelayError, match=r"pickled tests\.calibration\.networks\.Mobile"):
        open_float_model(str(file))


def refuse(source: object, weights: Path | None = None) -> str:
    with pytest.raises(QTorchRelayError) as caught:
        open_float_model(str(source), weights)
    return str(caught.value)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    script, exported, weights = tmp_path / "script.pt", tmp_path / "exported.pt2", tmp_path / "weights.pt"
    torch.jit.save(torch.jit.trace(mobile(), torch.zeros(1, 3, 8, 8)), script)
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), exported)
    torch.save(mobile().state_dict(), weights)
    found = refuse(script)
    assert "is TorchScript, which torch.fx and eager mode cannot quantize" in found
    assert "package.module:function" in found
    assert "is an exported program" in refuse(exported)
    assert "holds weights without the module they belong to; give package.module:function" in refuse(weights)
    assert "no such file, and not package.module:function either" in refuse(tmp_path / "absent.pt")
    assert "is not a file" in refuse(tmp_path)
    (tmp_path / "noise.pt").write_bytes(b"noise")
    assert "is no file of torch.save, or damaged" in refuse(tmp_path / "noise.pt")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "is no file of torch.save, or damaged" in refuse(weights)


def test_functions_that_give_something_else(tmp_path: Path) -> None:
    assert "there is no module nowhere" in refuse("nowhere.at_all:function")
    assert f"{HERE} has no function absent" in refuse(f"{HERE}:absent")
    assert "is called without arguments, but: missing a required argument: 'size'" in refuse(
        f"{HERE}:needs_an_argument"
    )
    assert "raises ValueError: no weights here (" in refuse(f"{HERE}:raising")
    assert "gives a int, not an nn.Module" in refuse(f"{HERE}:no_module")
    assert "returns TorchScript" in refuse(f"{HERE}:scripted")
    assert "is quantized already" in refuse(f"{HERE}:quantized")
    torch.save(DigitsNet().state_dict(), tmp_path / "weights.pt")
    assert "does not fit the model" in refuse("tests.calibration.networks:mobile", tmp_path / "weights.pt")
    torch.save([1, 2], tmp_path / "weights.pt")
    assert "holds no state dict" in refuse("tests.calibration.networks:mobile", tmp_path / "weights.pt")


def test_an_error_of_ours_is_told_apart() -> None:
    assert issubclass(CalibrationError, QTorchRelayError)
