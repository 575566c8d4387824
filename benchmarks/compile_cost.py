"""What a user waits for with one network: import, compile, memory, and the start of a saved bundle in a fresh process.

Run: python -m benchmarks.compile_cost [--model resnet50] [--engine fbgemm]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from accuracy_reports.zoo import IMAGE_SIZES

MIB = 1024


def _timed_start(bundle: str) -> dict[str, float]:
    """Returns seconds of loading a bundle and of its first inference; runs in a process of its own."""
    import numpy as np

    import qtorch_relay as qr

    start = time.perf_counter()
    compiled = qr.load(bundle)
    loaded = time.perf_counter()
    compiled(*[np.zeros(spec.shape, spec.dtype) for spec in compiled.inputs])
    return {"load_s": loaded - start, "first_inference_s": time.perf_counter() - loaded}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def _timed_compile(path: str, shape: Sequence[int], engine: str, bundle: str) -> dict[str, float]:
    """Returns seconds of import and compile, and MiB of peak memory before and after; in a process of its own."""
    import torch

    import qtorch_relay as qr

    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    torch.backends.quantized.engine = engine
    input_infos = [("x", tuple(shape))]
    _ = qr.from_pytorch, qr.compile  # what is imported on first use is not counted
    before = _peak_mib()
    start = time.perf_counter()
    imported = qr.from_pytorch(path, input_infos, engine=engine)
    middle = time.perf_counter()
    compiled = qr.compile(imported)
    end = time.perf_counter()
    peak = _peak_mib()
    compiled.save(bundle)
    return {
        "from_pytorch_s": middle - start,
        "compile_s": end - middle,
        "save_s": time.perf_counter() - end,
        "libraries_mib": before,
        "peak_mib": peak,
        "bundle_mb": Path(bundle).stat().st_size / 1e6,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one row per figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_cost", description=__doc__)
    parser.add_argument("--model", choices=tuple(IMAGE_SIZES), default="resnet50")
    parser.add_argument("--engine", default="fbgemm")
    parser.add_argument("--stage", choices=("compile", "start"), help=argparse.SUPPRESS)
    parser.add_argument("--paths", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage == "compile":
        shape = [int(extent) for extent in options.paths[2].split(",")]
        print(json.dumps(_timed_compile(options.paths[0], shape, options.engine, options.paths[1])))
        return 0
    if options.stage == "start":
        print(json.dumps(_timed_start(options.paths[0])))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model, bundle = str(Path(folder) / "model.pt"), str(Path(folder) / "model.qtr")
        shape = _save_model(options.model, options.engine, model)
        figures = _in_process(options, "compile", model, bundle, ",".join(map(str, shape)))
        figures |= _in_process(options, "start", bundle)
    print(f"| {options.model}, {options.engine} | |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:.2f} |")
    return 0


def _in_process(options: argparse.Namespace, stage: str, *paths: str) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.compile_cost", "--stage", stage]
    command += ["--model", options.model, "--engine", options.engine, "--paths", *paths]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def _save_model(name: str, engine: str, path: str) -> tuple[int, ...]:
    """Saves a seeded network's trace and returns its input shape."""
    import torch

    from accuracy_reports.zoo import quantized_model, random_images

    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    network = quantized_model(name, engine)
    image = random_images(1, network.input_shape[-1])
    torch.jit.save(torch.jit.trace(network.module, image, check_trace=False), path)
    return network.input_shape


if __name__ == "__main__":
    sys.exit(main())
