"""What `benchmarks.start_up` runs in a process of its own, which imports what a user's would and nothing else.

python -m benchmarks.fresh_process STARTED compile MODEL.pt BUNDLE ENGINE INPUT.npy
python -m benchmarks.fresh_process STARTED start PROGRAM FILE INPUT.npy
STARTED is when the process was, by time.monotonic(). Prints figures as a line of JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = 20
KIB_IN_MIB = 1024

Run = Callable[[Any], Any]
Load = Callable[[str], Run]


def memory_mib(field: str) -> float:
    """Returns a field of this process's memory: VmRSS (resident now), VmHWM (at most).

    Unlike getrusage's figure, VmHWM does not begin with what the parent process had.
    """
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {field}")
    return int(found[1]) / KIB_IN_MIB


def import_ours() -> Load:
    """Imports qtorch_relay, TVM's runtime library with it, and returns what loads a bundle."""
    import qtorch_relay
    from qtorch_relay.runtime import ffi

    ffi.tvm_ffi()
    return qtorch_relay.load


def import_onnxruntime() -> Load:
    """Imports ONNX Runtime and returns what makes a session."""
    import onnxruntime

    def load(path: str) -> Run:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        return lambda array: session.run(None, {given.name: array})

    return load


def import_openvino() -> Load:
    """Imports OpenVINO and returns what compiles a model."""
    import numpy as np
    import openvino

    def load(path: str) -> Run:
        core = openvino.Core()
        request = core.compile_model(core.read_model(path), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        return lambda array: [np.array(value) for value in request([array]).values()]

    return load


def import_torch() -> Load:
    """Imports PyTorch and returns what loads a TorchScript file."""
    import torch

    def load(path: str) -> Run:
        module = torch.jit.freeze(torch.jit.load(path).eval())
        return lambda array: module(torch.from_numpy(array))

    return load


PROGRAMS: dict[str, tuple[Callable[[], Load], str]] = {
    "qtorch_relay": (import_ours, "model.qtr"),
    "ONNX Runtime": (import_onnxruntime, "model.onnx"),
    "OpenVINO": (import_openvino, "model.onnx"),
    "PyTorch": (import_torch, "model.pt"),
}


def start(started: float, program: str, path: str, example: str) -> dict[str, float]:
    """Starts a program and returns the figures of results.Start."""
    before = time.perf_counter()
    import numpy as np

    load = PROGRAMS[program][0]()
    imported = time.perf_counter()
    libraries_mib = memory_mib("VmRSS")
    array = np.load(example)
    loading = time.perf_counter()
    run = load(path)
    loaded = time.perf_counter()
    run(array)
    done, process_s = time.perf_counter(), time.monotonic() - started
    for _ in range(CALLS):
        run(array)
    return {
        "import_s": imported - before,
        "load_s": loaded - loading,
        "first_run_s": done - loaded,
        "process_s": process_s,
        "libraries_mib": libraries_mib,
        "resident_mib": memory_mib("VmRSS"),
        "peak_mib": memory_mib("VmHWM"),
    }


def compile_model(path: str, bundle: str, engine: str, example: str) -> dict[str, float]:
    """Compiles a model and returns the figures of results.Compile."""
    import numpy as np
    import torch

    import qtorch_relay as qr

    torch.backends.quantized.engine = engine
    _ = qr.from_pytorch, qr.compile  # what is imported on first use is not counted
    libraries_mib = memory_mib("VmRSS")
    begun = time.perf_counter()
    imported = qr.from_pytorch(path, [("x", np.load(example).shape)], engine=engine)
    middle = time.perf_counter()
    compiled = qr.compile(imported)
    end = time.perf_counter()
    peak_mib = memory_mib("VmHWM")
    compiled.save(bundle)
    return {
        "from_pytorch_s": middle - begun,
        "compile_s": end - middle,
        "save_s": time.perf_counter() - end,
        "libraries_mib": libraries_mib,
        "peak_mib": peak_mib,
        "bundle_mb": Path(bundle).stat().st_size / 1e6,
    }


def main() -> None:
    """Prints the figures of what the arguments ask for."""
    started, stage, *arguments = sys.argv[1:]
    figures = start(float(started), *arguments) if stage == "start" else compile_model(*arguments)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
