"""A small classifier, compiled for ARM boards and this host, with what PyTorch gives for an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import qtorch_relay as qr
from qtorch_relay.capture.engine import quantized_engine
from tools.emulated_board import Board

ENGINE = "qnnpack"
SHAPE = (1, 3, 20, 20)
CPUS = {"cortex-a53": "arm-neon", "cortex-a76": "arm-dotprod", "max": "arm-i8mm"}


@dataclass(frozen=True)
class Classifier:
    """Bundles of one network, an image, and PyTorch's output for it.

    every: with programs for each of CPUS' targets and this host; dotprod: for arm-dotprod alone.
    """

    every: Path
    dotprod: Path
    image: npt.NDArray[np.float32]
    expected: npt.NDArray[np.float32]

    def image_file(self, folder: Path) -> Path:
        """Writes the image as .npy and returns where."""
        path = folder / "image.npy"
        np.save(path, self.image)
        return path

    def best(self) -> list[int]:
        """Returns PyTorch's five best classes."""
        return np.argsort(-self.expected[0], kind="stable")[:5].tolist()


class Network(torch.nn.Module):
    """Convolutions of every kind that boards have kernels for, and a linear layer with twelve classes."""

    def __init__(self) -> None:
        super().__init__()
        self.quantize, self.dequantize = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 16, 3, padding=1, groups=16),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 24, 1),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(24, 12),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        return self.dequantize(self.layers(self.quantize(x)))


@pytest.fixture(scope="session")
def classifier(board: Callable[..., Board], tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Returns the classifier, where there are boards to run it."""
    folder = tmp_path_factory.mktemp("classifier")
    generator = torch.Generator().manual_seed(5)
    images = torch.randn((4, *SHAPE[1:]), generator=generator)
    with quantized_engine(ENGINE), torch.no_grad():
        network: Any = _quantized(images)
        expected = network(images[:1]).numpy()
        compiled = qr.compile(network, [("x", SHAPE)], target=[*CPUS.values(), "host"], engine=ENGINE)
        alone = qr.compile(network, [("x", SHAPE)], target="arm-dotprod", engine=ENGINE)
    compiled.save(folder / "every.qtr")
    alone.save(folder / "dotprod.qtr")
    return Classifier(folder / "every.qtr", folder / "dotprod.qtr", images[:1].numpy(), expected)


def _quantized(images: torch.Tensor) -> torch.nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(6)
        network = Network().eval()
        network.qconfig = torch.ao.quantization.get_default_qconfig(ENGINE)
        torch.ao.quantization.prepare(network, inplace=True)
        network(images)
        return torch.ao.quantization.convert(network)
