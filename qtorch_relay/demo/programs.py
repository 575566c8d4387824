"""The programs the demo compares: each takes one image and gives its logits."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qtorch_relay.capture.notes import MEMBER, NotedInput, Notes
from qtorch_relay.demo.digits import INPUT_SHAPE, FloatLogits
from qtorch_relay.output_files import atomic_write
from qtorch_relay.peers import Logits, Program, export_onnx, onnxruntime_session
from qtorch_relay.runtime import CompiledModel

INPUT_INFOS = [("x", (INPUT_SHAPE, "float32"))]


def float_program(network: nn.Module) -> Program:
    """Returns the float network, traced."""
    traced = _trace(network)
    return Program("PyTorch float", _identity, traced, lambda out: Logits(out[1].numpy(), None))


def int8_program(model_file: Path) -> Program:
    """Returns the quantized model file run by PyTorch; its engine must be set in torch."""
    model = torch.jit.load(str(model_file))
    return Program("PyTorch int8", _identity, model, lambda out: Logits(out[1].numpy(), out[0].int_repr().numpy()))


def compiled_program(model: CompiledModel) -> Program:
    """Returns our compiled model."""
    return Program("qtorch_relay", _to_numpy, model, lambda out: Logits(out[1], out[0]))


def onnx_program(quantized: nn.Module, scale: float, zero_point: int, num_threads: int) -> Program:
    """Returns the quantized network exported as ONNX with QuantizeLinear and DequantizeLinear, run by ONNX Runtime.

    scale, zero_point: of the logits, to read their codes out of the floats ONNX gives.
    Raises: PeerUnavailableError as export_onnx and onnxruntime_session do.
    """
    run = onnxruntime_session(export_onnx(FloatLogits(quantized), [torch.zeros(INPUT_SHAPE)]), num_threads)

    def read(out: list[npt.NDArray[np.float32]]) -> Logits:
        return Logits(out[0], np.rint(out[0] / scale).astype(np.int64) + zero_point)

    return Program("ONNX Runtime QDQ", _to_numpy, lambda array: run([array]), read)


def save_model(network: nn.Module, path: Path, engine: str | None = None) -> None:
    """Writes the network as TorchScript, whole or not at all.

    engine: of an int8 network, noted in the file with the input, so that commands need not be told; None = no notes.
    """
    notes = {} if engine is None else {MEMBER: Notes(engine, (NotedInput("x", INPUT_SHAPE, "float32"),)).to_text()}
    with atomic_write(path) as file:
        torch.jit.save(_trace(network), file, _extra_files=notes)


def _trace(network: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced: torch.jit.ScriptModule = torch.jit.trace(network, torch.zeros(INPUT_SHAPE))
    return traced


def _identity(image: torch.Tensor) -> torch.Tensor:
    return image


def _to_numpy(image: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = image.numpy()
    return array
