"""A TorchScript file run by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.files import load_model


def torch_program(
    model: Path, engine: str, arrays: Sequence[npt.NDArray[Any]], num_threads: int
) -> tuple[torch.nn.Module, list[torch.Tensor], Callable[[], Any]]:
    """Returns a model as it was saved, its inputs, and a function that runs it on them.

    PyTorch is set to a number of threads; the function runs the frozen model with the kernels of an engine, which is
    set only meanwhile.
    """
    torch.set_num_threads(num_threads)
    tensors = [torch.from_numpy(array) for array in arrays]
    module, run = frozen_runner(model, engine)
    return module, tensors, lambda: run(tensors)


def frozen_runner(
    model: Path, engine: str | None, *, optimize_numerics: bool = True
) -> tuple[torch.nn.Module, Callable[[Sequence[torch.Tensor]], Any]]:
    """Returns a model as it was saved, and a function that runs it, frozen, with the kernels of an engine.

    A .pt2 file runs as torch.export left it.

    optimize_numerics: False keeps the floats of the model as it was saved: no batch norm is folded.
    """
    with quantized_engine(engine), torch.inference_mode():
        # Loading packs the weights for the engine that is set; freezing is what a user in need of speed does.
        loaded = load_model(model)
        if isinstance(loaded, torch.export.ExportedProgram):
            module = frozen = loaded.module()
        else:
            module = loaded.eval()
            frozen = torch.jit.freeze(module, optimize_numerics=optimize_numerics)

    def run(tensors: Sequence[torch.Tensor]) -> Any:
        with quantized_engine(engine), torch.inference_mode():
            return frozen(*tensors)

    return module, run
