"""What a caller says about a model's inputs: names, shapes and dtypes, or example values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qtorch_relay.errors import InvalidInputError

DTYPES = {
    "float32": torch.float32, "float64": torch.float64, "float16": torch.float16,
    "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64,
    "bool": torch.bool,
}  # fmt: skip
ACCEPTED = (
    'accepted are [("x", (1, 3, 224, 224))], [("x", ((1, 3, 224, 224), "float32"))] or example tensors, one per input'
)


@dataclass(frozen=True)
class InputSpec:
    """One model input. name is None where the caller gave an example value: the model's own name is used."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.name is not None and re.fullmatch(r"[A-Za-z_][\w.]*", self.name) is None:
            raise InvalidInputError(
                f"input name {self.name!r} must start with a letter or _ and hold only letters, digits, _ and ."
            )
        label = "an input" if self.name is None else f"input {self.name!r}"
        if not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in self.shape):
            raise InvalidInputError(f"{label} has shape {self.shape}; every dimension must be an integer above 0")
        if self.dtype not in DTYPES:
            raise InvalidInputError(f"{label} has dtype {self.dtype!r}; accepted are {', '.join(DTYPES)}")

    def example(self) -> torch.Tensor:
        """Returns a tensor to trace with: seeded normal floats, zeros for the other dtypes (any index is valid).

        Raises: InvalidInputError if there is not the memory for it.
        """
        dtype = DTYPES[self.dtype]
        try:
            if not dtype.is_floating_point:
                return torch.zeros(self.shape, dtype=dtype)
            generator = torch.Generator().manual_seed(0)
            return torch.randn(self.shape, generator=generator).to(dtype)
        except (RuntimeError, MemoryError) as error:  # torch has no class of its own for this
            raise InvalidInputError(f"there is not the memory for {self}; check its shape") from error

    def __str__(self) -> str:
        return f"{'an input' if self.name is None else f'input {self.name!r}'}, {self.dtype} {list(self.shape)}"


def parse_input_infos(input_infos: Any) -> tuple[InputSpec, ...]:
    """Returns one InputSpec per input.

    input_infos: a list of (name, shape), (name, (shape, dtype)) or example torch tensors or numpy arrays, which may
    be mixed; or a single example.
    Raises: InvalidInputError if an entry is none of these, or two inputs have one name.
    """
    entries = [input_infos] if isinstance(input_infos, torch.Tensor | np.ndarray) else input_infos
    if not isinstance(entries, list | tuple):
        raise InvalidInputError(f"input_infos is a {type(input_infos).__name__}; {ACCEPTED}")
    if len(entries) == 2 and isinstance(entries[0], str):
        raise InvalidInputError(f"input_infos is one (name, shape) pair; put it into a list; {ACCEPTED}")
    specs = tuple(_parse_entry(entry) for entry in entries)
    names = [spec.name for spec in specs if spec.name is not None]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"input names must differ, found {', '.join(names)}")
    return specs


def _parse_entry(entry: Any) -> InputSpec:
    if isinstance(entry, torch.Tensor):
        if entry.is_quantized:
            raise InvalidInputError(f"an example input is a quantized tensor; accepted dtypes are {', '.join(DTYPES)}")
        return InputSpec(None, tuple(entry.shape), str(entry.dtype).removeprefix("torch."))
    if isinstance(entry, np.ndarray):
        return InputSpec(None, entry.shape, str(entry.dtype))
    if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)):
        raise InvalidInputError(f"an entry of input_infos is {_short(entry)}; {ACCEPTED}")
    name, info = entry
    if isinstance(info, torch.Tensor | np.ndarray):
        spec = _parse_entry(info)
        return InputSpec(name, spec.shape, spec.dtype)
    if isinstance(info, list | tuple) and len(info) == 2 and isinstance(info[0], list | tuple | torch.Size):
        return InputSpec(name, _shape(name, info[0]), _dtype_name(info[1]))
    return InputSpec(name, _shape(name, info), "float32")


def _dtype_name(dtype: Any) -> str:
    """Returns the name of a torch or numpy dtype, or of numpy's class of its elements."""
    if isinstance(dtype, type) and issubclass(dtype, np.generic):
        return dtype.__name__
    return str(dtype).removeprefix("torch.")


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list | tuple) or not all(isinstance(d, int | np.integer) for d in shape):
        raise InvalidInputError(f"input {name!r} has shape {_short(shape)}; a shape is a tuple of integers; {ACCEPTED}")
    return tuple(int(d) for d in shape)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_count(specs: Sequence[InputSpec], model_names: Sequence[str]) -> None:
    """Raises InvalidInputError unless there is one InputSpec per input of the model's forward."""
    if len(specs) != len(model_names):
        raise InvalidInputError(
            f"the model takes {len(model_names)} input{'' if len(model_names) == 1 else 's'} "
            f"({', '.join(model_names) or 'none'}), input_infos describes {len(specs)}; describe each of them once"
        )


def check_order(specs: Sequence[InputSpec], model_names: Sequence[str]) -> None:
    """Raises InvalidInputError if an input has the name of another of the model's: order counts, names are labels."""
    for i, (spec, name) in enumerate(zip(specs, model_names, strict=True)):
        if spec.name is not None and spec.name != name and spec.name in model_names:
            raise InvalidInputError(
                f"input {i} of the model is {name!r}, input_infos calls it {spec.name!r}, the name of another; "
                f"describe the inputs in the model's order: {', '.join(model_names)}"
            )
