"""What a user waits for and how much memory it takes: compiling, and the start of a saved model, in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks import fresh_process
from benchmarks.network import quantized_network, random_input
from benchmarks.results import ENGINES, Compile, Start
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.peers import PeerUnavailableError, export_onnx

PROCESSES = 7


def steps() -> int:
    """Returns how many times `measure` calls each."""
    return 1 + PROCESSES * len(fresh_process.PROGRAMS)


def measure(model: str, each: Callable[[], None]) -> tuple[Compile, tuple[Start, ...]]:
    """Returns what compiling a network takes, and the starts of the programs that take it, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        files = _save(model, Path(folder))
        compiled = _run("compile", files["model.pt"], files["model.qtr"], ENGINES[0], files["input.npy"])
        each()
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(PROCESSES):
            for program, (_, name) in fresh_process.PROGRAMS.items():
                if files[name].exists():
                    found.setdefault(program, []).append(_run("start", program, files[name], files["input.npy"]))
                each()
    names = [item.name for item in fields(Start) if item.name != "program"]
    starts = [
        Start(program, **{name: round(median(sample[name] for sample in samples), 5) for name in names})
        for program, samples in found.items()
    ]
    return Compile(**compiled), tuple(starts)


def _run(*arguments: object) -> dict[str, float]:
    # Processes of one machine share the monotonic clock.
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fresh_process", str(time.monotonic())]
    done = subprocess.run([*command, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _save(model: str, folder: Path) -> dict[str, Path]:
    """Writes a network in the forms that programs load, and its input."""
    files: dict[str, Path] = {name: folder / name for name in ("model.pt", "model.qtr", "model.onnx", "input.npy")}
    network, example = quantized_network(model, ENGINES[0]), random_input(model, 1)
    with warnings.catch_warnings(), quantized_engine(ENGINES[0]), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, example, check_trace=False), str(files["model.pt"]))
    np.save(files["input.npy"], example.numpy())
    with suppress(PeerUnavailableError):  # then nothing is started from it
        files["model.onnx"].write_bytes(export_onnx(network, [example]))
    return files
