"""Small quantized networks whose Relay text the tests read."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.ao import quantization

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.demo.digits import DigitsNet, FloatLogits
from qtorch_relay.frontend.importer import ImportedModule, import_graph

ENGINE = "fbgemm"
SHAPE = (4, 1, 8, 8)


def digits_network(engine: str = ENGINE) -> nn.Module:
    """Returns the demo's CNN with seeded weights, quantized post training."""
    warnings.filterwarnings("ignore", module=r"torch(\.|$)")
    with quantized_engine(engine), torch.random.fork_rng():
        torch.manual_seed(0)
        network = DigitsNet().eval()
        names = [[f"{block}.{i}" for i in range(3)] for block in ("stem", "body", "down")]
        fused = quantization.fuse_modules(network, names)
        fused.qconfig = quantization.get_default_qconfig(engine)
        prepared = quantization.prepare(fused)
        prepared(torch.randn(16, *SHAPE[1:]))
        return FloatLogits(quantization.convert(prepared)).eval()


def imported(module: nn.Module, shape: tuple[int, ...] = SHAPE, engine: str = ENGINE) -> ImportedModule:
    """Returns a network's module of qnn ops."""
    return import_graph(capture_model(module, [("x", shape)], engine).graph)


def lstm() -> nn.Module:
    """Returns a dynamically quantized LSTM."""
    with quantized_engine(ENGINE):
        network: Any = quantization.quantize_dynamic(nn.Sequential(nn.LSTM(4, 3)), {nn.LSTM}, dtype=torch.qint8)
    return network
