"""Writes an int8 model as TorchScript that says which engine it is for and what it takes."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from calibration.flows import Example
from calibration.fusion import first_line
from calibration.table import inputs_of
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.notes import MEMBER, Notes
from qtorch_relay.errors import CalibrationError
from qtorch_relay.output_files import atomic_write


def save_int8(model: nn.Module, example: Example, engine: str, path: Path) -> None:
    """Writes an int8 model as TorchScript, traced for one sample, whole or not at all.

    `qtorch-relay compile` finds engine and inputs in the file.

    Raises:
        CalibrationError: the model cannot be traced.
        OutputPathError: the file cannot be written.
    """
    one = tuple(tensor[:1] for tensor in example)
    buffer = io.BytesIO()
    with quantized_engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit says that it is deprecated, and what a trace does not see
        try:
            traced = torch.jit.trace(model.eval(), one, strict=False)
        except Exception as error:  # a model's forward may raise anything
            raise CalibrationError(
                f"the int8 model cannot be traced: {type(error).__name__}: {first_line(error)}"
            ) from error
        torch.jit.save(traced, buffer, _extra_files={MEMBER: Notes(engine, inputs_of(one)).to_text()})
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
