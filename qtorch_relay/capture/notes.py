"""What a TorchScript file says about itself: its engine and its inputs, in a small JSON member beside the code."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qtorch_relay.errors import ModelFileError

# The name torch.jit.save takes in _extra_files; the member of the archive is NAME/extra/qtorch_relay.json.
MEMBER = "qtorch_relay.json"
_MOST_BYTES = 1 << 20
_MOST_ELEMENTS = 1 << 28
_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class NotedInput:
    """An input of the model: its name, a shape that it takes, its dtype as torch spells it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Notes:
    """The engine whose codes the model was quantized for, and its inputs in order."""

    engine: str
    inputs: tuple[NotedInput, ...]

    def to_text(self) -> str:
        """Returns the notes as JSON."""
        return json.dumps({"version": 1, **asdict(self)})

    @property
    def input_infos(self) -> list[tuple[str, tuple[Any, ...]]]:
        """The inputs as `qtorch_relay.from_pytorch` takes them."""
        return [(noted.name, (noted.shape, noted.dtype)) for noted in self.inputs]


def read_notes(path: Path) -> Notes | None:
    """Returns the notes in a model file; None if it has none, or is no archive at all.

    Raises: ModelFileError if there are notes, and they cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.split("/", 1)[-1] == f"extra/{MEMBER}"]
            if not members:
                return None
            if members[0].file_size > _MOST_BYTES:
                raise ModelFileError(f"{path}: its member {members[0].filename} is larger than {_MOST_BYTES} bytes")
            data = json.loads(archive.read(members[0]))
    except (OSError, zipfile.BadZipFile):
        return None  # what is wrong with the file is said by what loads it
    except (ValueError, RecursionError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(f"{path} is damaged, its member {MEMBER} cannot be read: {error}") from None
    try:
        if data["version"] != 1:
            raise ModelFileError(f"{path}: its member {MEMBER} has version {data['version']}; version 1 is known")
        return Notes(str(data["engine"]), noted_inputs(data["inputs"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: its member {MEMBER} is damaged: {error!r}") from None


def noted_inputs(data: Any) -> tuple[NotedInput, ...]:
    """Returns inputs from their JSON data.

    Raises: KeyError, TypeError, ValueError if they are no inputs.
    """
    inputs = tuple(
        NotedInput(str(noted["name"]), tuple(map(int, noted["shape"])), str(noted["dtype"])) for noted in data
    )
    for noted in inputs:
        if noted.dtype not in _DTYPES or not 0 < math.prod(noted.shape) <= _MOST_ELEMENTS or min(noted.shape) < 1:
            raise ValueError(f"{noted} is no input")
    return inputs


def noted_engine(model: Any, engine: str | None) -> str | None:
    """Returns the engine that is given, else the one the model's file names; None if neither says."""
    if engine is not None or not isinstance(model, str | Path) or not Path(model).is_file():
        return engine
    notes = read_notes(Path(model))
    return None if notes is None else notes.engine
