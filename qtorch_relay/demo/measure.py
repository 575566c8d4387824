"""Runs the whole demo: train, quantize, save, compile, then every program on every test image."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.demo import BUNDLE_FILE, FLOAT_FILE, IMAGE_FILE, INT8_FILE
from qtorch_relay.demo.digits import Digits, Track, load_digits, quantize, torch_threads, train
from qtorch_relay.demo.programs import (
    INPUT_INFOS,
    compiled_program,
    float_program,
    int8_program,
    onnx_program,
    save_model,
)
from qtorch_relay.errors import QTorchRelayError
from qtorch_relay.output_files import atomic_write
from qtorch_relay.peers import Logits, PeerUnavailableError, Program
from qtorch_relay.pipeline import compile as compile_for
from qtorch_relay.runtime import CompiledModel, set_num_threads

_WARM_UP_IMAGES = 50


@dataclass(frozen=True)
class Row:
    """What a program achieved on the test images.

    latency_ms: median per image, batch 1; accuracy: share of right answers.
    differing: outputs that differ from PyTorch's int8 model, in codes; None where a program has no codes.
    differing_floats: the same for the dequantized logits, compared bit for bit.
    problem: why there are no numbers.
    """

    program: str
    accuracy: float | None = None
    latency_ms: float | None = None
    differing: int | None = None
    differing_floats: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class DemoResult:
    """The table of the demo. codes: how many output codes were compared."""

    engine: str
    target: str
    num_threads: int
    images: int
    codes: int
    rows: tuple[Row, ...]
    messages: tuple[str, ...]

    @property
    def ours(self) -> Row:
        """Our own row."""
        return next(row for row in self.rows if row.program == "qtorch_relay")

    @property
    def is_exact(self) -> bool:
        """Whether none of our codes and floats differs from PyTorch's."""
        return self.ours.differing == 0 and self.ours.differing_floats == 0

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON data."""
        return asdict(self) | {"is_exact": self.is_exact}


def run_demo(engine: str, num_threads: int, track: Track, folder: Path | None = None) -> DemoResult:
    """Returns the demo's table.

    track: shows progress; folder: where to keep KEPT, None = nowhere.
    """
    set_num_threads(num_threads)
    with tempfile.TemporaryDirectory(prefix="qtorch_relay_demo_") as temporary, quantized_engine(engine):
        model_file = (folder or Path(temporary)) / INT8_FILE
        digits = load_digits()
        with torch_threads(num_threads):
            network = train(digits, track)
            with torch.inference_mode():
                quantized = quantize(network, digits, engine, track)
                save_model(quantized, model_file, engine)
                compiled = _compile(model_file, engine, track)
                if folder is not None:
                    _keep(folder, network, compiled, digits.test_images[:1])
                reference = int8_program(model_file)
                expected, _ = _run(reference, digits, track, "reference codes")
                programs = [float_program(network), reference, compiled_program(compiled)]
                rows = [_measure(program, digits, expected, track) for program in programs]
                rows.append(_measure_onnx(quantized, num_threads, digits, expected, track))
    return DemoResult(
        engine,
        compiled.target.name,
        num_threads,
        len(digits.test_images),
        sum(logits.floats.size for logits in expected),
        tuple(rows),
        tuple(map(str, compiled.report.get("messages", ()))),
    )


def _keep(folder: Path, network: torch.nn.Module, compiled: CompiledModel, image: torch.Tensor) -> None:
    save_model(network, folder / FLOAT_FILE)
    compiled.save(folder / BUNDLE_FILE)
    with atomic_write(folder / IMAGE_FILE) as file:
        np.save(file, image.numpy())


def _compile(model_file: Path, engine: str, track: Track) -> CompiledModel:
    [compiled] = [compile_for(str(file), INPUT_INFOS, engine=engine) for file in track([model_file], "compiling")]
    return compiled


def _measure_onnx(
    quantized: torch.nn.Module, num_threads: int, digits: Digits, expected: list[Logits], track: Track
) -> Row:
    logits = quantized(digits.test_images[:1])[0]
    try:
        program = onnx_program(quantized, logits.q_scale(), logits.q_zero_point(), num_threads)
    except PeerUnavailableError as error:
        return Row("ONNX Runtime QDQ", problem=str(error))
    return _measure(program, digits, expected, track)


def _measure(program: Program, digits: Digits, expected: list[Logits], track: Track) -> Row:
    found, latencies_ms = _run(program, digits, track, program.name)
    answers = np.array([logits.floats.argmax() for logits in found])
    differing = differing_floats = None
    if found[0].codes is not None:
        differing = sum(_count_unequal(a.codes, b.codes) for a, b in zip(found, expected, strict=True))
        differing_floats = sum(_count_unequal(a.floats, b.floats) for a, b in zip(found, expected, strict=True))
    accuracy = float((answers == digits.test_labels.numpy()).mean())
    return Row(program.name, accuracy, median(latencies_ms), differing, differing_floats)


def _run(program: Program, digits: Digits, track: Track, description: str) -> tuple[list[Logits], list[float]]:
    """Returns the logits and the latency of every test image."""
    images = [program.convert(image) for image in digits.test_images.split(1)]
    for image in images[:_WARM_UP_IMAGES]:
        program.call(image)
    found, latencies_ms = [], []
    for image in track(images, description):
        start = time.perf_counter()
        out = program.call(image)
        latencies_ms.append((time.perf_counter() - start) * 1e3)
        found.append(program.read(out))
    return found, latencies_ms


def _count_unequal(found: Any, expected: Any) -> int:
    if found is None or expected is None or found.shape != expected.shape:
        raise QTorchRelayError("the demo's programs give outputs of different form")
    return int(np.count_nonzero(found != expected))
