"""Exported programs (torch.export, .pt2): reference graphs with decomposed quantization, as PT2E writes models."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao import quantization as q
from torch.ao.quantization import quantize_fx

import qtorch_relay as qr
from qtorch_relay.capture.engine import quantized_engine
from tests.frontend import flows
from tests.frontend.models import UNOPTIMIZED

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def prepared(kind: type[nn.Module], engine: str, x: torch.Tensor) -> Any:
    model = flows.float_model(kind)
    observed = quantize_fx.prepare_fx(model, q.get_default_qconfig_mapping(engine), (x,))
    observed(x)
    return observed


def same_from(given: Any, model: nn.Module, x: torch.Tensor, engine: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = qr.compile(given, [("x", tuple(x.shape))], UNOPTIMIZED, engine)
    for seed in (1, 2):
        x = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        expected, found = model(x), compiled(x)
        assert torch.equal(found, expected), f"{(found != expected).sum().item()} of {found.numel()} differ"


def test_pytorch_exports_no_packed_params() -> None:
    """Why no exported program has quantized:: ops: PyTorch cannot trace the objects that hold their weights."""
    with quantized_engine("fbgemm"), torch.no_grad():
        x = flows.example_for(flows.Linears, 0)
        model = quantize_fx.convert_fx(prepared(flows.Linears, "fbgemm", x))
        with pytest.raises(AttributeError, match=r"LinearPackedParamsBase .* does not have a field"):
            torch.export.export(model, (x,))


def test_a_saved_program_is_read_by_a_process_that_made_none(tmp_path: Path) -> None:
    """torch registers the ops of such graphs when it makes one, not when it loads one."""
    with quantized_engine("fbgemm"), torch.no_grad():
        x = flows.example_for(flows.Linears, 0)
        model = quantize_fx._convert_to_reference_decomposed_fx(prepared(flows.Linears, "fbgemm", x))
        torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    code = f"from qtorch_relay.capture.files import load_model; load_model({str(tmp_path / 'model.pt2')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("kind", [flows.ConvNetFx, flows.Linears])
def test_exported_reference_graphs(kind: type[nn.Module], saved: bool, tmp_path: Path) -> None:
    with quantized_engine("fbgemm"), torch.no_grad():
        x = flows.example_for(kind, 0)
        model = quantize_fx._convert_to_reference_decomposed_fx(copy.deepcopy(prepared(kind, "fbgemm", x)))
        program = torch.export.export(model, (x,))
        if saved:
            torch.export.save(program, tmp_path / "model.pt2")
        same_from(str(tmp_path / "model.pt2") if saved else program, model, x, "fbgemm")
