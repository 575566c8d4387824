"""What a compiled model is made of besides its weights: code, what it takes and gives, and a run to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from qtorch_relay.errors import VerifyError
from qtorch_relay.qparams import PerTensor
from qtorch_relay.runtime.specs import TensorSpec
from qtorch_relay.runtime.structure import Structure, indices
from qtorch_relay.target import Target


class Program(Protocol):
    """Compiled code, in memory or in a shared library."""

    def module(self) -> Any:
        """Returns the Relax executable's module."""
        ...

    def library(self) -> bytes:
        """Returns the code as a shared library."""
        ...


# Where the outputs of a golden run are from.
PROGRAM, PYTORCH, HOST_PROGRAM = "program", "pytorch", "host program"
SOURCES = {
    PROGRAM: "what the program gave on the machine that compiled it",
    PYTORCH: "PyTorch's own output",
    HOST_PROGRAM: "what the same module gave, compiled for the machine that compiled it",
}


@dataclass(frozen=True)
class Golden:
    """An input and the right output for it, flat; codes where the output is quantized.

    source: one of SOURCES. The program gives its own outputs bit for bit; floats of another may be rounded otherwise.
    """

    inputs: tuple[npt.NDArray[Any], ...]
    outputs: tuple[npt.NDArray[Any], ...]
    source: str = PROGRAM


@dataclass(frozen=True)
class ModuleInterface:
    """What the types of a Relax module's main do not say of its inputs and outputs; None is as the types say.

    arguments: the name of each argument of a call and how its tensors nest; None where each input is one.
    input_qparams, output_qparams: for each tensor, the quantization parameters if it is codes of a quantized one.
    structure: how the outputs nest; None is the tensor alone, or a tuple of all outputs.
    channels_last: for each output, whether PyTorch gives it in that memory layout; None where it gives none so.
    """

    arguments: tuple[tuple[str, Structure], ...] | None = None
    input_qparams: tuple[PerTensor | None, ...] | None = None
    structure: Structure = None
    output_qparams: tuple[PerTensor | None, ...] | None = None
    channels_last: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Interface:
    """What a program takes and gives.

    structure: how the flat outputs nest in what a call returns.
    arguments: the name of each argument of a call and how its tensors nest, in the order of inputs; None where each
        input is an argument.
    engine: the PyTorch engine whose rounding it reproduces, or None where that does not apply.
    report: numbers and messages of the compilation, as JSON data.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: Structure
    target: Target
    engine: str | None
    report: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[tuple[str, Structure], ...] | None = None

    def __post_init__(self) -> None:
        if any(not 0 <= index < len(self.outputs) for index in indices(self.structure)):
            raise VerifyError(
                f"output structure {self.structure} names an output beyond the program's {len(self.outputs)}"
            )
        if self.arguments is not None:
            count = sum(len(indices(structure)) for _, structure in self.arguments)
            if count != len(self.inputs):
                raise VerifyError(f"the arguments hold {count} tensors, the program takes {len(self.inputs)}")
        names = dict.fromkeys(self.dimension_names, 1)
        for spec in self.outputs:
            spec.at(names)  # raises if a name is not one of the inputs'

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """The names that stand for any size, in the inputs' shapes."""
        return tuple(dict.fromkeys(d for spec in self.inputs for d in spec.shape if isinstance(d, str)))

    def tensors_at(self, size: int) -> tuple[TensorSpec, ...]:
        """Returns the inputs, then the outputs, where all names of dimensions stand for this size."""
        sizes = dict.fromkeys(self.dimension_names, size)
        return tuple(spec.at(sizes) for spec in (*self.inputs, *self.outputs))
