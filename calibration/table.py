"""The calibration table: every range that was decided, as versioned JSON that can be used again without data."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.observed import TensorRange
from calibration.recipes import Scheme, scheme_of
from qtorch_relay.capture.notes import NotedInput, noted_inputs
from qtorch_relay.errors import CalibrationError
from qtorch_relay.output_files import atomic_write

FORMAT = "qtorch_relay calibration table"
VERSION = 1
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class WeightRange:
    """How a layer's weight is quantized: a scale, or one for each output channel. axis: of the channels, None = one."""

    layer: str
    scales: tuple[float, ...]
    axis: int | None


@dataclass(frozen=True)
class CalibrationTable:
    """What a calibration decided.

    mode: "eager" or "fx". model: fingerprint of the float weights. torch_version: of the program that calibrated.
    inputs: names, shapes for one sample, and dtypes. samples: how many the ranges come from. equalized: whether weights
    were equalized first. bias_corrections: what is added to each output channel's bias, by layer. in_float: layers that
    stay in float. trained: the weights were trained on, so the table tells what is, but cannot be used again.
    """

    recipe: str
    engine: str
    observer: str
    weight_observer: str
    mode: str
    model: str
    torch_version: str
    inputs: tuple[NotedInput, ...]
    samples: int
    tensors: tuple[TensorRange, ...]
    weights: tuple[WeightRange, ...]
    equalized: bool = False
    bias_corrections: dict[str, tuple[float, ...]] = field(default_factory=dict)
    in_float: tuple[str, ...] = ()
    trained: bool = False

    def scheme(self) -> Scheme:
        """Returns the scheme the table was made with."""
        return scheme_of(self.recipe, self.engine, self.observer, self.weight_observer)

    def ranges(self) -> dict[str, TensorRange]:
        """Returns the tensors' ranges by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    def example(self) -> tuple[torch.Tensor, ...]:
        """Returns inputs for one sample, of zeros."""
        return zeros(self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Returns the table as JSON data. Numbers are written so that they are read back to the bit."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def make_table(
    scheme: Scheme, mode: str, model: str, example: tuple[torch.Tensor, ...], samples: int, **found: Any
) -> CalibrationTable:
    """Returns the table of a scheme; model: a fingerprint, found: the table's other fields."""
    return CalibrationTable(
        recipe=scheme.recipe.name,
        engine=scheme.engine,
        observer=str(scheme.observer),
        weight_observer=scheme.weight_observer,
        mode=mode,
        model=model,
        torch_version=torch.__version__,
        inputs=inputs_of(example),
        samples=samples,
        **found,
    )


def inputs_of(example: tuple[torch.Tensor, ...]) -> tuple[NotedInput, ...]:
    """Returns what a model takes for one sample, given what it was called with."""
    names = ["x"] if len(example) == 1 else [f"x{i}" for i in range(len(example))]
    return tuple(
        NotedInput(name, (1, *tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in zip(names, example, strict=True)
    )


def zeros(inputs: tuple[NotedInput, ...]) -> tuple[torch.Tensor, ...]:
    """Returns tensors of zeros as the inputs say."""
    return tuple(torch.zeros(noted.shape, dtype=getattr(torch, noted.dtype)) for noted in inputs)


def fingerprint(model: nn.Module) -> str:
    """Returns a sha256 over the names, shapes, types and contents of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            array = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")
    return f"sha256:{digest.hexdigest()}"


def write_table(table: CalibrationTable, path: Path) -> None:
    """Writes a table as JSON, whole or not at all.

    Raises: OutputPathError if it cannot be written.
    """
    with atomic_write(path) as file:
        file.write((json.dumps(table.to_json(), indent=1, allow_nan=False) + "\n").encode())


def read_table(path: Path) -> CalibrationTable:
    """Returns a table.

    Raises: CalibrationError if the file is missing, or no such table, or one of another version.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CalibrationError(f"{path} is larger than {_MOST_BYTES >> 20} MiB, so it is no calibration table")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CalibrationError(f"{path} is no calibration table; `qtorch-relay calibrate` writes one")
    if data.get("version") != VERSION:
        raise CalibrationError(
            f"{path} is a calibration table of version {data.get('version')}; this program reads version {VERSION}"
        )
    try:
        return _from_json(data)
    except (KeyError, TypeError, ValueError, CalibrationError) as error:
        raise CalibrationError(f"{path} is damaged: {error}") from None


def _from_json(data: dict[str, Any]) -> CalibrationTable:
    known = {f.name for f in fields(CalibrationTable)}
    given = {name: value for name, value in data.items() if name not in ("format", "version")}
    if set(given) != known:
        raise ValueError(f"its fields are not those of a table: {', '.join(sorted(set(given) ^ known))}")
    tensors = tuple(TensorRange(**_checked(entry)) for entry in given["tensors"])
    weights = tuple(
        WeightRange(str(entry["layer"]), _numbers(entry["scales"]), entry["axis"]) for entry in given["weights"]
    )
    corrections = {str(name): _numbers(values) for name, values in given["bias_corrections"].items()}
    texts = {name: str(given[name]) for name in known if CalibrationTable.__annotations__[name] == "str"}
    return CalibrationTable(
        **texts,
        inputs=noted_inputs(given["inputs"]),
        samples=int(given["samples"]),
        tensors=tensors,
        weights=weights,
        equalized=bool(given["equalized"]),
        bias_corrections=corrections,
        in_float=tuple(map(str, given["in_float"])),
        trained=bool(given["trained"]),
    )


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a TensorRange, each of its kind."""
    numbers = {name: entry[name] for name in ("least", "greatest")}
    return {
        "name": str(entry["name"]),
        "also": tuple(map(str, entry["also"])),
        "dtype": str(entry["dtype"]),
        "scheme": str(entry["scheme"]),
        "scale": float(entry["scale"]),
        **{name: int(entry[name]) for name in ("zero_point", "quant_min", "quant_max")},
        **{name: None if value is None else float(value) for name, value in numbers.items()},
    }


def _numbers(values: Any) -> tuple[float, ...]:
    found = tuple(map(float, values))
    if not all(map(math.isfinite, found)):
        raise ValueError("it holds numbers that are not finite")
    return found
