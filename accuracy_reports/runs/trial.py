"""Runs model files once on zeros, so that what does not fit is told before a run starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from accuracy_reports.record import FLOAT
from accuracy_reports.runs.logits import LogitsForm, dequantized_from, find_logits
from accuracy_reports.runs.programs import run_padded, tensors_of, torch_classifier
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.peers import frozen_runner
from qtorch_relay.qparams import PerTensor
from qtorch_relay.runtime.interface import Interface


def logits_of_model(path: Path, engine: str | None, shape: tuple[int, ...]) -> LogitsForm:
    """Returns where an int8 model that PyTorch runs on images of a shape [n, C, H, W] has its logits.

    Raises:
        InvalidInputError: it does not run on them, or gives no logits.
    """
    zeros = np.zeros(shape, np.float32)
    _, run = frozen_runner(path, engine, optimize_numerics=False)
    try:
        tensors = tensors_of(run([torch.from_numpy(zeros)]))
    except RuntimeError as error:
        raise _refused(path, shape, error) from error
    index = find_logits([tuple(tensor.shape) for tensor in tensors], shape[0])
    tensor = tensors[index]
    if tensor.is_quantized:
        return LogitsForm(index, tensor.shape[1], tensor.q_scale(), tensor.q_zero_point(), True)
    captured = capture_model(str(path), [("x", (shape, "float32"))], engine)
    values = run_reference(captured, [zeros]).values
    return _form(index, tensor.shape[1], dequantized_from(captured.graph, values, index))


def logits_of_bundle(program: Interface, batch: int) -> LogitsForm:
    """Returns where a bundle's program has its logits. Raises: InvalidInputError if it gives none."""
    outputs = program.tensors_at(batch)[len(program.inputs) :]
    index = find_logits([spec.fixed_shape for spec in outputs], batch)
    spec = outputs[index]
    qparams = spec.qparams if isinstance(spec.qparams, PerTensor) else None
    return _form(index, spec.fixed_shape[1], qparams, is_quantized=qparams is not None)


def check_images_fit(path: Path, program: Interface, shape: tuple[int, ...]) -> None:
    """Raises InvalidInputError unless a bundle's program takes images of a shape [n, C, H, W]."""
    if len(program.inputs) != 1 or program.inputs[0].sizes_in(shape) is None:
        raise InvalidInputError(
            f"{path} takes {'; '.join(map(str, program.inputs))}, the images are {list(shape)}; choose their size with "
            "--preprocessing or --crop, and --batch as it was compiled"
        )


def check_float_model(path: Path, form: LogitsForm, shape: tuple[int, ...]) -> None:
    """Raises InvalidInputError unless a float model runs on images of a shape, and has as many classes."""
    try:
        program = torch_classifier(FLOAT, path, None, form)
        logits, _ = run_padded(program, np.zeros(shape, np.float32), shape[0], lambda: 0.0)
    except RuntimeError as error:
        raise _refused(path, shape, error) from error
    if logits.floats.shape != (shape[0], form.classes):
        raise InvalidInputError(
            f"{path} gives logits {list(logits.floats.shape)}, the int8 model {[shape[0], form.classes]}; "
            "give the float model that it was made of"
        )


def _refused(path: Path, shape: tuple[int, ...], error: RuntimeError) -> InvalidInputError:
    reason = [line for line in str(error).splitlines() if line.strip()][-1]
    return InvalidInputError(
        f"{path} does not run on images {list(shape)}: {reason}; give other images with "
        "--data, or choose their size with --crop"
    )


def _form(index: int, classes: int, qparams: PerTensor | None, *, is_quantized: bool = False) -> LogitsForm:
    if qparams is None:
        return LogitsForm(index, classes, None, None, is_quantized)
    return LogitsForm(index, classes, qparams.scale, qparams.zero_point, is_quantized)
