"""A program for the Relay-era TVM: started in a process of its own, since that TVM cannot live beside ours."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import InvalidInputError, QTorchRelayError

VARIABLE = "QTORCH_RELAY_ERA_PYTHON"
SCRIPT = Path(__file__).parent / "script.py"
TIMEOUT_SECONDS = 1800
Arrays = dict[str, npt.NDArray[Any]]


class RelayEraError(QTorchRelayError):
    """The Relay-era TVM refused a program; the message is its own last words."""


@dataclass(frozen=True, eq=False)
class Ran:
    """What a program gave: outputs in order, seconds of "import", "build" and "run", the ops of the module."""

    outputs: tuple[npt.NDArray[Any], ...]
    seconds: Mapping[str, float]
    ops: tuple[str, ...]


def interpreter() -> str:
    """Returns the Python of a TVM that has Relay, "" if the environment names none."""
    return os.environ.get(VARIABLE, "")


def run_text(text: str, params: bytes, inputs: Arrays, opt_level: int = 3, target: str = "llvm") -> Ran:
    """Parses, type-checks, builds and runs Relay text.

    Raises: RelayEraError if that TVM refuses it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.relay").write_text(text)
        (folder / "model.params").write_bytes(params)
        files = {"text": str(folder / "model.relay"), "params": str(folder / "model.params")}
        return _run(folder, inputs, {**files, "opt_level": opt_level, "target": target})


def run_torchscript(model: Path, inputs: Arrays, opt_level: int = 3, target: str = "llvm") -> Ran:
    """Imports a TorchScript file with that TVM's own relay.frontend.from_pytorch, builds and runs it.

    Raises: RelayEraError if that TVM refuses it.
    """
    with tempfile.TemporaryDirectory() as name:
        return _run(Path(name), inputs, {"torchscript": str(model), "opt_level": opt_level, "target": target})


def check_texts(texts: Sequence[str]) -> list[str]:
    """Returns for each text what that TVM's parser or type checker has against it, "" for nothing; builds nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{i}.relay" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        errors: list[str] = json.loads(_start(folder, {"check": [str(path) for path in paths]}))
        return errors


def run_texts(programs: Sequence[tuple[str, bytes, Arrays]]) -> list[tuple[str, tuple[npt.NDArray[Any], ...]]]:
    """Builds and runs many programs in one process; returns for each what went wrong, "" for nothing, and its outputs.

    Raises: RelayEraError if the process itself dies.
    """
    with tempfile.TemporaryDirectory() as name:
        jobs: list[dict[str, Any]] = []
        for i, (text, params, inputs) in enumerate(programs):
            folder = Path(name) / str(i)
            folder.mkdir()
            (folder / "model.relay").write_text(text)
            (folder / "model.params").write_bytes(params)
            np.savez(folder / "inputs.npz", allow_pickle=False, **inputs)
            files = {"text": "model.relay", "params": "model.params", "inputs": "inputs.npz", "result": "results.npz"}
            jobs.append({**{key: str(folder / file) for key, file in files.items()}, "opt_level": 3, "target": "llvm"})
        errors: list[str] = json.loads(_start(Path(name), {"programs": jobs}))
        return [(error, () if error else _outputs(job["result"])) for error, job in zip(errors, jobs, strict=True)]


def _outputs(path: str | Path) -> tuple[npt.NDArray[Any], ...]:
    with np.load(path) as results:
        return tuple(results[f"out{i}"] for i in range(len(results.files)))


def _run(folder: Path, inputs: Arrays, description: Mapping[str, Any]) -> Ran:
    np.savez(folder / "inputs.npz", allow_pickle=False, **inputs)
    report = json.loads(_start(folder, {**description, "inputs": str(folder / "inputs.npz")}))
    return Ran(_outputs(folder / "results.npz"), report["seconds"], tuple(report["ops"]))


def _start(folder: Path, job: Mapping[str, Any]) -> str:
    """Returns the last line that the script prints."""
    python = interpreter()
    if not python:
        raise InvalidInputError(f"{VARIABLE} is not set; it names the Python of a TVM that has Relay")
    (folder / "job.json").write_text(json.dumps(job))
    command = [python, str(SCRIPT), str(folder / "job.json"), str(folder / "results.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise RelayEraError(_last_words(done.stderr) or f"exit status {done.returncode}")
    return done.stdout.strip().splitlines()[-1]


def _last_words(stderr: str) -> str:
    """Returns the lines that say what went wrong: the parser's diagnostics, or the last line of a traceback."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("error:", "InternalError", "TVMError"))]
    return "; ".join([*said[:2], *lines[-1:]])[:600]
