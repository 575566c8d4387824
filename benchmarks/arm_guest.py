"""Runs a network on the emulated board, marking where an inference begins and ends; see arm_instructions.

Usage: arm_guest.py PROGRAM FILE INPUT.npy RUNS, PROGRAM: ours, pytorch or onnxruntime. getsid is the mark that
count_instructions.c knows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def ours(path: str, array: Any) -> Callable[[], Any]:
    """Returns what runs a bundle."""
    from qtorch_relay.runtime import load, set_num_threads

    set_num_threads(1)
    model = load(path)
    return lambda: model.run_flat([array])


def pytorch(path: str, array: Any) -> Callable[[], Any]:
    """Returns what runs a TorchScript file with QNNPACK."""
    import torch

    torch.set_num_threads(1)
    torch.backends.quantized.engine = "qnnpack"
    model, x = torch.jit.load(path), torch.from_numpy(array)

    def run() -> Any:
        with torch.inference_mode():
            return model(x)

    return run


def onnxruntime(path: str, array: Any) -> Callable[[], Any]:
    """Returns what runs an ONNX file on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: array})


def main() -> None:
    program, path, array_path, runs = sys.argv[1:]
    run = {"ours": ours, "pytorch": pytorch, "onnxruntime": onnxruntime}[program](path, np.load(array_path))
    # the first inference prepares what the others use
    run()
    for _ in range(int(runs)):
        os.getsid(0)
        run()
    os.getsid(0)


if __name__ == "__main__":
    main()
