"""The export to ONNX for peers: what the exporter of PyTorch lacks, and how it fails."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.nn import quantized
from torch.ao.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.peers import PeerUnavailableError, export_for_peers, export_onnx, onnx_programs

onnx = pytest.importorskip("onnx")


class Chunks(nn.Module):
    """Splits quantized channels in unequal parts and puts them together in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.together = quantized.FloatFunctional()
        self.together.scale, self.together.zero_point = 0.1, 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *rest = torch.quantize_per_tensor(x, 0.1, 3, torch.quint8).chunk(3, dim=1)
        return self.together.cat([*rest, first], dim=1).dequantize()


class Chunk(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(x.chunk(2, dim=1)[::-1], dim=1)


class Sorts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sort(torch.quantize_per_tensor(x, 0.1, 3, torch.quint8))[0].dequantize()


def run_everywhere(module: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    calls, missing = onnx_programs(export_for_peers(module, [x]), [x.numpy()], 1)
    assert not {name for name, why in missing.items() if "not installed" not in why}
    return {name: call()[0] for name, call in calls.items()}


@pytest.mark.parametrize("module", [Chunks(), Chunk()], ids=["quantized", "float"])
def test_chunks_are_split(module: nn.Module) -> None:
    x = torch.randn(2, 7, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = module(x).numpy()
    for name, output in run_everywhere(module, x).items():
        np.testing.assert_allclose(output, expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("qconfig", [default_dynamic_qconfig, per_channel_dynamic_qconfig], ids=["tensor", "channel"])
@pytest.mark.parametrize("traced", [False, True], ids=["module", "traced"])
def test_dynamic_linear_layers_keep_their_weights(qconfig: object, traced: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16)
    with quantized_engine("fbgemm"):
        model = quantize_dynamic(nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 8)).eval(), {nn.Linear: qconfig})
        expected = model(x)
        module = torch.jit.trace(model, x) if traced else model
        exported = export_onnx(module, [x])
    ops = Counter(node.op_type for node in onnx.load_from_string(exported).graph.node)
    assert ops["DynamicQuantizeLinear"] == ops["MatMulInteger"] == 2
    # PyTorch's range of activations has 128 codes, ONNX's 256: they differ by a step or so.
    for name, output in run_everywhere(module, x).items():
        np.testing.assert_allclose(output, expected, atol=0.03, err_msg=name)


def test_a_failing_export_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        PeerUnavailableError, match=r"the export to ONNX fails: .* onnx::TopK to be a quantized tensor$"
    ):
        export_onnx(Sorts(), [torch.randn(2, 3)])
    assert "graph(" not in capfd.readouterr().out
