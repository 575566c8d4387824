"""`qtorch-relay compare --float`: what every layer loses, by quantization or by the compiler."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtorch_relay.cli.console import print_table, progress
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.output_files import check_output_path
from qtorch_relay.runtime.random_inputs import DEFAULT_SEED, random_inputs

if TYPE_CHECKING:
    from accuracy_reports.record import Gap, Layers


@dataclass(frozen=True)
class ThreeWaysRequest:
    """What is compared. given: the inputs, None = random ones; images: how often these are drawn."""

    model: Path
    float_model: Path
    input_infos: Any
    engine: str
    target: Any
    kernels: bool
    given: list[Any] | None
    images: int


def check_three_ways(float_model: Path | None, output: Path | None) -> None:
    """Raises before any work what would be raised after most of it.

    Raises:
        ModelFileError: the float model cannot be read.
        InvalidInputError: a record of layers is asked for without a float model.
        OutputPathError: it cannot be written.
    """
    if output is not None:
        if float_model is None:
            raise InvalidInputError("-o writes the layers compared with the float model; give that with --float")
        check_output_path(output)
    if float_model is not None:
        from qtorch_relay.capture.files import load_model

        load_model(float_model)


def compare_layers(request: ThreeWaysRequest, place: Any, output: Path | None) -> Layers:
    """Returns the layers three ways, and writes a record of them if output says where.

    Raises: QTorchRelayError if a model cannot be read or run; nothing is written then.
    """
    from accuracy_reports.environment import describe_environment
    from accuracy_reports.layers.three_ways import compare_three_ways
    from accuracy_reports.record import Dataset, Model, Record, write_record

    with progress() as bars:
        count = 1 if request.given is not None else request.images
        task = bars.add_task("layers three ways", total=count, detail="")
        batches = _counted(_batches(request), lambda done: bars.update(task, completed=done, detail=f"{done}/{count}"))
        layers = compare_three_ways(
            str(request.model), str(request.float_model), request.input_infos, batches, request.engine, request.target,
            kernels=request.kernels, float_name=request.float_model.name, place=place,
        )  # fmt: skip
    if output is not None:
        path = "kernels" if request.kernels else "portable"
        record = Record(
            describe_environment(shlex.join(["qtorch-relay", *sys.argv[1:]])),
            Model(request.model.name, request.engine, request.target.name, path),
            Dataset("given inputs" if request.given is not None else "random inputs", layers.images),
            layers=layers,
        )
        write_record(record, output)
    return layers


def _batches(request: ThreeWaysRequest) -> Iterator[list[Any]]:
    if request.given is not None:
        yield request.given
        return
    from qtorch_relay.capture.torchscript import from_torch

    inputs = from_torch(str(request.model), request.input_infos, request.engine).inputs
    for i in range(request.images):
        yield list(random_inputs(((item.shape, item.dtype) for item in inputs), DEFAULT_SEED + i))


def _counted(items: Iterator[Any], tell: Any) -> Iterator[Any]:
    for done, item in enumerate(items):
        tell(done)
        yield item
        tell(done + 1)


def print_layers(layers: Layers) -> None:
    """Prints the layers, the worst first, and what they say."""
    from accuracy_reports.layers.blame import describe, sentences, worst_first

    print_table(
        f"three ways on {layers.images} images, the worst layer first; SQNR in dB, errors in steps",
        (
            "layer", "alone dB>", "float to int8 dB>", "float to ours dB>", "largest error>", "mean error>",
            "compiler differs>", "made here>", "saturated>", "in float",
        ),
        [
            (
                describe(layer),
                _db(layer.own_quantization),
                _db(layer.quantization),
                _db(layer.total),
                _steps(layer.total, "largest_error_steps"),
                _steps(layer.total, "mean_error_steps"),
                layer.compiler.differing,
                layer.own_compiler,
                "-" if layer.theirs is None else f"{layer.theirs.saturated_share:.2%}",
                layer.counterpart or layer.missing,
            )
            for layer in worst_first(layers.layers)
        ],
    )  # fmt: skip
    for line in sentences(layers):
        print(line)


def to_json(layers: Layers) -> dict[str, Any]:
    """Returns the layers as JSON data."""
    from accuracy_reports.layers.blame import sentences

    return asdict(layers) | {"findings": sentences(layers)}


def _db(gap: Gap | None) -> str:
    return "-" if gap is None or gap.sqnr_db is None else f"{gap.sqnr_db:.1f}"


def _steps(gap: Gap | None, name: str) -> str:
    value = None if gap is None else getattr(gap, name)
    return "-" if value is None else f"{value:.2f}"
