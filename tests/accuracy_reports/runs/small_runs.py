"""Accuracy runs that take seconds: a small classifier, small pictures, and what counts of a record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao import quantization

from accuracy_reports.record import Record
from accuracy_reports.runs.coordinator import Schedule, here, run
from accuracy_reports.runs.prepare import Request, prepare
from accuracy_reports.runs.setup import Data
from calibration.data import Preprocessing
from qtorch_relay.capture.engine import quantized_engine

ENGINE = "fbgemm"
CLASSES = 10
SMALL = Preprocessing(resize=18, crop=16)


class SmallNet(nn.Module):
    """A convolution and a linear layer, between stubs; gives float logits, as torchvision's networks do."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(16 * 7 * 7, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.quant(x)))
        return self.dequant(self.linear(torch.flatten(x, 1)))


def write_models(folder: Path, classes: int) -> tuple[Path, Path]:
    """Writes the int8 network and the float one it was made of."""
    with quantized_engine(ENGINE), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = SmallNet(classes).eval()
        images = torch.randn(8, 3, 16, 16)
        torch.jit.trace(network, images[:1]).save(str(folder / "float.pt"))
        network.qconfig = quantization.get_default_qconfig(ENGINE)
        prepared = quantization.prepare(network)
        prepared(images)
        torch.jit.trace(quantization.convert(prepared), images[:1]).save(str(folder / "int8.pt"))
    return folder / "int8.pt", folder / "float.pt"


def write_arrays(path: Path, count: int, classes: int) -> Path:
    """Writes images as SmallNet reads them, and labels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 3, 16, 16)).astype(np.float32)
    np.savez(path, images=images, labels=rng.integers(0, classes, count))
    return path


def request(models: tuple[Path, Path], data: Data | Path, **settings: Any) -> Request:
    """Returns a request for a run of these models."""
    given = data if isinstance(data, Data) else Data(str(data))
    return replace(Request(given, models[0], float_model=models[1], engine=ENGINE, chunk=8), **settings)


def evaluate(asked: Request, folder: Path, schedule: Schedule = here) -> Record:
    """Runs a request in a folder, which is made."""
    folder.mkdir(exist_ok=True)
    setup, header = prepare(asked, folder, silently)
    return run(setup, header, folder, schedule)


def what_counts(record: Record) -> tuple[Any, ...]:
    """Returns what two runs on the same images must agree in: everything but times and places."""
    programs = [replace(program, latency_ms=None, images_per_s=None) for program in record.programs]
    return record.dataset, programs, record.broken, record.changed


@contextmanager
def silently(_: str) -> Iterator[None]:
    yield
