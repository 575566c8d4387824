"""What a compiled model is made of besides its weights: code, what it takes and gives, and a run to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from qtorch_relay.errors import VerifyError
from qtorch_relay.runtime.specs import Structure, TensorSpec, indices
from qtorch_relay.target import Target


class Program(Protocol):
    """Compiled code, in memory or in a shared library."""

    def module(self) -> Any:
        """Returns the Relax executable's module."""
        ...

    def library(self) -> bytes:
        """Returns the code as a shared library."""
        ...


@dataclass(frozen=True)
class Golden:
    """An input and the output this program gives for it, flat; codes where the output is quantized."""

    inputs: tuple[npt.NDArray[Any], ...]
    outputs: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True)
class Interface:
    """What a program takes and gives.

    structure: how the flat outputs nest in what a call returns.
    engine: the PyTorch engine whose rounding it reproduces, or None where that does not apply.
    report: numbers and messages of the compilation, as JSON data.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: Structure
    target: Target
    engine: str | None
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(not 0 <= index < len(self.outputs) for index in indices(self.structure)):
            raise VerifyError(
                f"output structure {self.structure} names an output beyond the program's {len(self.outputs)}"
            )
