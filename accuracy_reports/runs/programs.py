"""The programs whose accuracy is compared: PyTorch in float and int8, ours, and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from accuracy_reports.record import FLOAT, INT8, ONNX_RUNTIME, OURS
from accuracy_reports.runs.logits import LogitsForm
from accuracy_reports.runs.setup import Setup
from qtorch_relay.peers import Logits, Program, frozen_runner, onnxruntime_session
from qtorch_relay.runtime import load, set_num_threads
from qtorch_relay.runtime.model import Model


def open_programs(setup: Setup, open_ours: Callable[[Path], Model] = load) -> list[Program]:
    """Returns the programs of a setup, PyTorch int8 before those that are compared with it.

    open_ours: makes our program of the bundle; by default in this process.

    Raises:
        QTorchRelayError: a file is damaged or gone, or ONNX Runtime refuses the model it took before.
    """
    torch.set_num_threads(setup.threads)
    programs = []
    if setup.float_model is not None:
        programs.append(torch_classifier(FLOAT, setup.float_model, None, setup.logits))
    if setup.int8_model is not None:
        programs.append(torch_classifier(INT8, setup.int8_model, setup.engine, setup.logits))
    set_num_threads(setup.threads)
    programs.append(our_classifier(open_ours(setup.bundle), setup.logits))
    if setup.onnx_model is not None:
        run = onnxruntime_session(setup.onnx_model.read_bytes(), setup.threads)
        programs.append(
            Program(ONNX_RUNTIME, _as_it_is, lambda x: run([x]), lambda out: setup.logits.of_floats(out[0]))
        )
    return programs


def our_classifier(model: Model, form: LogitsForm, name: str = OURS) -> Program:
    """Returns a compiled model, here or on another machine, as a program."""
    return Program(name, _as_it_is, lambda x: model.run_flat([x]), lambda out: form.of_array(out[form.index]))


def torch_classifier(name: str, path: Path, engine: str | None, form: LogitsForm) -> Program:
    """Returns a TorchScript file as a program; engine: None for a float model, of which only the first logits count."""
    _, run = frozen_runner(path, engine, optimize_numerics=False)
    is_float = name == FLOAT

    def read(output: Any) -> Logits:
        found = tensors_of(output)
        tensor = found[0 if is_float and len(found) == 1 else form.index]
        if is_float:
            return Logits((tensor.dequantize() if tensor.is_quantized else tensor).numpy(), None)
        return form.of_codes(tensor.int_repr().numpy()) if tensor.is_quantized else form.of_floats(tensor.numpy())

    return Program(name, _to_torch, lambda x: run([x]), read)


def tensors_of(output: Any) -> list[torch.Tensor]:
    """Returns the tensors of a nested output, in the order of a compiled model's flat outputs."""
    if isinstance(output, torch.Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output
    return [tensor for item in items if item is not None for tensor in tensors_of(item)]


def run_padded(
    program: Program, images: npt.NDArray[np.float32], batch: int, clock: Callable[[], float]
) -> tuple[Logits, list[float]]:
    """Returns the logits of images [n, C, H, W] and the latency of each call in milliseconds.

    batch: images of a call. The last call is filled up with its last image, which leaves the least and the greatest
    value as they are, by which some models quantize a batch when they run.
    """
    found, latencies_ms = [], []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        missing = batch - len(part)
        given = program.convert(np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing else part)
        before = clock()
        output = program.call(given)
        latencies_ms.append((clock() - before) * 1e3)
        found.append(program.read(output))
    codes = [logits.codes for logits in found if logits.codes is not None]
    floats = np.concatenate([logits.floats for logits in found])[: len(images)]
    return Logits(floats, np.concatenate(codes)[: len(images)] if codes else None), latencies_ms


def _as_it_is(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return images


def _to_torch(images: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(images)
