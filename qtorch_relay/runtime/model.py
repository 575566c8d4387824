"""Model: what a compiled program is called like, wherever it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from qtorch_relay.errors import BundleError, InvalidInputError
from qtorch_relay.runtime import tensors
from qtorch_relay.runtime.golden import SelfTest, compare_golden
from qtorch_relay.runtime.interface import Golden, Interface
from qtorch_relay.runtime.specs import TensorSpec
from qtorch_relay.runtime.structure import flatten, unflatten


class Model(ABC):
    """A compiled program that is called like the PyTorch model it came from.

    inputs, outputs: the flat tensors it takes and gives, as TensorSpec.
    target: the Target it is compiled for; engine: the PyTorch engine whose codes it gives.
    report: numbers and messages of the compilation.
    """

    def __init__(self, interface: Interface, golden: Golden | None = None) -> None:
        self.inputs = interface.inputs
        self.outputs = interface.outputs
        self.target = interface.target
        self.engine = interface.engine
        self.report = interface.report
        self.interface = interface
        self.golden = golden
        arguments = interface.arguments or [(spec.name, index) for index, spec in enumerate(self.inputs)]
        self._argument_names = [name for name, _ in arguments]
        self._dimension_names = interface.dimension_names

    @abstractmethod
    def _call(self, arrays: Sequence[npt.NDArray[Any]]) -> Sequence[Any]:
        """Returns the flat outputs, as arrays or TVM's tensors, for inputs of the right dtypes and shapes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the model's outputs, nested as the model nests them.

        Inputs are numpy arrays or torch tensors on the CPU, by position or by name. With a torch tensor among them the
        outputs are torch tensors (quantized where the model's are), else numpy arrays (codes where they are quantized).

        Raises:
            InvalidInputError: wrong number, name, type, shape or dtype of the inputs.
            TargetError: this host cannot run the target.
        """
        values = self._bind(args, kwargs)
        if self.interface.arguments is not None:
            nested = zip(self.interface.arguments, values, strict=True)
            values = [leaf for (name, structure), value in nested for leaf in flatten(structure, value, name)]
        outputs = self._call(self._to_arrays(values))
        as_torch = any(tensors.is_torch(value) for value in values)
        convert = tensors.to_torch if as_torch else tensors.to_numpy
        leaves = [convert(output, spec) for output, spec in zip(outputs, self.outputs, strict=True)]
        return unflatten(self.interface.structure, leaves)

    def run_flat(
        self, inputs: Sequence[npt.NDArray[Any]] | Mapping[str, npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[Any], ...]:
        """Returns the flat outputs, as numpy arrays, for inputs in order or by name."""
        outputs = self._call(self.flat_inputs(inputs))
        return tuple(tensors.to_numpy(output, spec) for output, spec in zip(outputs, self.outputs, strict=True))

    def flat_inputs(
        self, inputs: Sequence[npt.NDArray[Any]] | Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """Returns inputs that are given in order or by name, in order.

        Raises:
            InvalidInputError: wrong number, name, type, shape or dtype of the inputs.
        """
        names = [spec.name for spec in self.inputs]
        values = self._bind((), inputs, names) if isinstance(inputs, Mapping) else self._bind(tuple(inputs), {}, names)
        return self._to_arrays(values)

    def self_test(self) -> SelfTest:
        """Runs the golden input and compares the output with the golden one; see runtime.golden.compare.

        Raises:
            BundleError: there is no golden input, or an output differs.
            TargetError: this host cannot run the target.
        """
        if self.golden is None:
            raise BundleError("the bundle has no golden output: it was made on a host that cannot run its target")
        return compare_golden(self.golden, self.outputs, self.run_flat(self.golden.inputs))

    def _bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], names: Sequence[str] | None = None
    ) -> Sequence[Any]:
        """Returns one value for each name, those of the arguments if none are given."""
        names = self._argument_names if names is None else names
        if not kwargs and len(args) == len(names):
            return args
        takes = (
            f"the model takes {len(names)} input{'' if len(names) == 1 else 's'} ({'; '.join(map(str, self.inputs))})"
        )
        unknown = [name for name in kwargs if name not in names]
        if unknown:
            raise InvalidInputError(f"no input is named {', '.join(unknown)}; {takes}")
        twice = [name for name in names[: len(args)] if name in kwargs]
        if twice:
            raise InvalidInputError(f"input {', '.join(twice)} is given by position and by name; {takes}")
        given = len(args) + len(kwargs)
        if given != len(names):
            raise InvalidInputError(f"{given} {'was' if given == 1 else 'were'} given; {takes}")
        return [*args, *(kwargs[name] for name in names[len(args) :])]

    def _to_arrays(self, values: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Returns the inputs as arrays, of sizes that fit each other."""
        arrays = [tensors.to_array(value, spec) for value, spec in zip(values, self.inputs, strict=True)]
        if self._dimension_names:
            self._check_sizes(arrays)
        return arrays

    def _check_sizes(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Refuses inputs in which one name of a dimension stands for different sizes."""
        seen: dict[str, tuple[int, TensorSpec]] = {}
        for name in self._dimension_names:
            for spec, array in zip(self.inputs, arrays, strict=True):
                sizes = spec.sizes_in(array.shape) or {}
                if name not in sizes:
                    continue
                size, first = seen.setdefault(name, (sizes[name], spec))
                if size != sizes[name]:
                    raise InvalidInputError(
                        f"{name} is {size} in input {first.name} and {sizes[name]} in input {spec.name}; "
                        "it must be the same in all"
                    )
