"""The demo's networks as files, for commands that start from files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.demo.digits import load_digits, quantize, train
from qtorch_relay.demo.programs import save_model


def write_digits(folder: Path, engine: str) -> tuple[Path, Path]:
    """Returns the files of the quantized and of the float network in a folder; trains them unless they are there.

    Raises:
        QTorchRelayError: scikit-learn, which holds the images, is not installed.
    """
    int8_model, float_model = folder / f"digits-{engine}.pt", folder / "digits-float.pt"
    if int8_model.exists() and float_model.exists():
        return int8_model, float_model
    digits = load_digits()
    with quantized_engine(engine):
        network = train(digits, _silently)
        save_model(network, float_model)
        with torch.inference_mode():
            save_model(quantize(network, digits, engine, _silently), int8_model, engine)
    return int8_model, float_model


def _silently(items: Iterable[Any], _: str) -> Iterable[Any]:
    return items
