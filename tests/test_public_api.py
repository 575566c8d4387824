"""The public API as users call it, on a model with a dict of float and quantized outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization

import qtorch_relay as qr
from qtorch_relay.errors import PortablePathWarning

INPUTS = [("x", (2, 3, 16, 16))]


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = nn.functional.adaptive_avg_pool2d(self.relu(self.conv(self.quant(x))), 1).flatten(1)
        return {"logits": self.dequant(self.fc(features)), "features": features}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    torch.backends.quantized.engine = "fbgemm"
    module = Classifier().eval()
    module.qconfig = quantization.get_default_qconfig("fbgemm")
    quantization.fuse_modules(module, [["conv", "relu"]], inplace=True)
    prepared = quantization.prepare(module)
    prepared(torch.randn(8, 3, 16, 16))
    return quantization.convert(prepared)


@pytest.fixture(scope="module")
def imported(model: nn.Module) -> tuple[Any, dict[str, Any]]:
    return qr.from_pytorch(model, INPUTS, engine="fbgemm")


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert list(ours) == list(theirs)
    assert torch.equal(ours["logits"], theirs["logits"])
    assert torch.equal(ours["features"].int_repr(), theirs["features"].int_repr())
    assert ours["features"].q_scale() == theirs["features"].q_scale()
    assert ours["features"].q_zero_point() == theirs["features"].q_zero_point()


def test_import_is_light() -> None:
    code = "import sys, qtorch_relay; print([m for m in ('torch', 'tvm') if m in sys.modules], dir(qtorch_relay))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("[] ")
    for name in ("from_pytorch", "compile", "load", "set_num_threads", "targets", "supported_ops", "qnn"):
        assert name in found


def test_main_takes_the_inputs_then_the_weights(imported: tuple[Any, dict[str, Any]]) -> None:
    mod, params = imported
    assert [param.name for param in mod["main"].params] == ["x", *params]
    assert params["conv_weight"].numpy().dtype == np.int8


def test_module_and_its_canonical_form_compile_alike(model: nn.Module, imported: tuple[Any, dict[str, Any]]) -> None:
    mod, params = imported
    x = torch.randn(2, 3, 16, 16)
    for form in (mod, qr.qnn.transform.CanonicalizeOps()(mod)):
        assert_same(qr.compile((form, params))(x), model(x))


def test_numpy_in_numpy_out(model: nn.Module, imported: tuple[Any, dict[str, Any]]) -> None:
    x = torch.randn(2, 3, 16, 16)
    found = qr.compile(imported)(x.numpy())
    assert isinstance(found["logits"], np.ndarray)
    np.testing.assert_array_equal(found["features"], model(x)["features"].int_repr().numpy())


@pytest.mark.parametrize("kernels", [True, False])
def test_nan_and_infinities_are_quantized_as_pytorch_does(
    model: nn.Module, imported: tuple[Any, dict[str, Any]], kernels: bool
) -> None:
    x = torch.randn(2, 3, 16, 16)
    x[0, 0, 0, 0], x[0, 1, 2, 3], x[1, 2, 3, 3], x[1, 0, 5, 5] = float("nan"), float("inf"), -float("inf"), 3e38
    assert_same(qr.compile(imported, kernels=kernels)(x), model(x))


def test_a_saved_bundle_gives_the_same(model: nn.Module, imported: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    x = torch.randn(2, 3, 16, 16)
    qr.compile(imported).save(tmp_path / "model.qtr")
    assert_same(qr.load(tmp_path / "model.qtr")(x), model(x))


def test_a_target_without_kernels_is_said(imported: tuple[Any, dict[str, Any]]) -> None:
    with pytest.warns(PortablePathWarning, match="no int8 kernels for generic yet: the portable path"):
        compiled = qr.compile(imported, target="generic")
    assert compiled.report["path"] == "portable"


def test_supported_ops_and_targets_are_tables() -> None:
    rows = {row["op"]: row for row in qr.supported_ops()}
    assert rows["quantized::conv2d.new"]["lowering"].startswith("qnn.conv2d")
    assert {"host", "generic"} - {row["name"] for row in qr.targets()} <= {"host"}
