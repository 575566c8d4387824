"""CompiledModel: a compiled program with its weights, called like the PyTorch model it came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BundleError, InvalidInputError
from qtorch_relay.runtime import ffi, tensors
from qtorch_relay.runtime.call_times import CallTime, call_times
from qtorch_relay.runtime.interface import Golden, Interface, Program
from qtorch_relay.runtime.specs import TensorSpec, empty_aligned
from qtorch_relay.runtime.structure import flatten, unflatten
from qtorch_relay.runtime.threads import prepare_thread
from qtorch_relay.target import check_runnable


class _Worker:
    """A virtual machine and memory for its inputs; one call at a time.

    Inputs are copied there: TVM's code assumes 64-byte alignment, which numpy's memory rarely has, and copying the
    input of an image network takes a hundredth of its run time.
    """

    def __init__(self, module: Any, weights: Sequence[Any]) -> None:
        self.entry = ffi.make_entry(module, weights)
        self.shapes: tuple[tuple[int, ...], ...] | None = None
        self.tensors: list[Any] = []
        self.addresses: frozenset[int] = frozenset()
        self._buffers: list[npt.NDArray[Any]] = []

    def fill(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Copies a call's inputs into the memory for them, which is made anew if their shapes are not the last's."""
        shapes = tuple(array.shape for array in arrays)
        if shapes != self.shapes:
            self._buffers = [empty_aligned(array.shape, str(array.dtype)) for array in arrays]
            self.tensors = [tensors.borrow(buffer) for buffer in self._buffers]
            self.addresses = frozenset(buffer.ctypes.data for buffer in self._buffers if buffer.size)
            self.shapes = shapes
        for buffer, array in zip(self._buffers, arrays, strict=True):
            np.copyto(buffer, array)


class CompiledModel:
    """A compiled model. Several threads may call one at once; they share its weights.

    inputs, outputs: the flat tensors it takes and gives, as TensorSpec.
    target: the Target it is compiled for; engine: the PyTorch engine whose codes it gives.
    report: numbers and messages of the compilation.
    """

    def __init__(
        self,
        program: Program,
        weights: Mapping[str, npt.NDArray[Any]],
        interface: Interface,
        golden: Golden | None = None,
    ) -> None:
        """Takes the weights in the order of the program's parameters, without a copy of those TVM can use in place."""
        self.inputs = interface.inputs
        self.outputs = interface.outputs
        self.target = interface.target
        self.engine = interface.engine
        self.report = interface.report
        self.interface = interface
        self.program = program
        self.golden = golden
        self.weights = {name: tensors.aligned(array) for name, array in weights.items()}
        arguments = interface.arguments or [(spec.name, index) for index, spec in enumerate(self.inputs)]
        self._argument_names = [name for name, _ in arguments]
        self._weight_tensors = tuple(tensors.borrow(array) for array in self.weights.values())
        self._weight_addresses = frozenset(array.ctypes.data for array in self.weights.values() if array.size)
        # Workers at rest; deque's append and pop are atomic.
        self._workers: deque[_Worker] = deque()

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
        outputs = self._run(values)
        as_torch = any(tensors.is_torch(value) for value in values)
        convert = tensors.to_torch if as_torch else tensors.to_numpy
        leaves = [convert(output, spec) for output, spec in zip(outputs, self.outputs, strict=True)]
        return unflatten(self.interface.structure, leaves)

    def run_flat(
        self, inputs: Sequence[npt.NDArray[Any]] | Mapping[str, npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[Any], ...]:
        """Returns the flat outputs, as numpy arrays, for inputs in order or by name."""
        names = [spec.name for spec in self.inputs]
        values = self._bind((), inputs, names) if isinstance(inputs, Mapping) else self._bind(tuple(inputs), {}, names)
        outputs = self._run(values)
        return tuple(tensors.to_numpy(output, spec) for output, spec in zip(outputs, self.outputs, strict=True))

    def call_times(self, inputs: Sequence[npt.NDArray[Any]], runs: int = 30) -> list[CallTime]:
        """Returns how long each function of the program takes on these inputs, call by call; medians over runs."""
        arrays = [tensors.to_array(value, spec) for value, spec in zip(inputs, self.inputs, strict=True)]
        self._check_sizes(arrays)
        check_runnable(self.target)
        prepare_thread()
        worker = _Worker(self.program.module(), self._weight_tensors)
        worker.fill(arrays)
        return call_times(self.program.module(), worker.tensors, self._weight_tensors, runs)

    def self_test(self) -> None:
        """Runs the golden input and compares the output bit for bit.

        Raises:
            BundleError: there is no golden input, or an output differs.
            TargetError: this host cannot run the target.
        """
        if self.golden is None:
            raise BundleError("the bundle has no golden output: it was made on a host that cannot run its target")
        outputs = self.run_flat(self.golden.inputs)
        for spec, found, golden in zip(self.outputs, outputs, self.golden.outputs, strict=True):
            differing = np.count_nonzero(tensors.as_bits(found) != tensors.as_bits(golden))
            if differing:
                raise BundleError(
                    f"self-test: output {spec} differs from the golden output in {differing} of {found.size} elements"
                )

    def save(self, path: str | Path) -> None:
        """Writes a one-file bundle, whole or not at all; `qtorch_relay.load` reads it.

        Raises:
            OutputPathError: the file cannot be written there.
            TargetError: the linker for the target is missing.
        """
        from qtorch_relay.runtime import bundle

        bundle.save(self, Path(path))

    def __repr__(self) -> str:
        inputs, outputs = "; ".join(map(str, self.inputs)), "; ".join(map(str, self.outputs))
        return f"CompiledModel({inputs} -> {outputs}; target {self.target.name}, engine {self.engine})"

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

    def _run(self, values: Sequence[Any]) -> list[Any]:
        arrays = [tensors.to_array(value, spec) for value, spec in zip(values, self.inputs, strict=True)]
        self._check_sizes(arrays)
        prepare_thread()
        try:
            worker = self._workers.pop()
        except IndexError:
            check_runnable(self.target)
            worker = _Worker(self.program.module(), self._weight_tensors)
        worker.fill(arrays)
        try:
            result = worker.entry(*worker.tensors)
        except IndexError as error:  # raised by kernels that check what they index with
            raise InvalidInputError(f"the model cannot run on these inputs: {error}") from error
        outputs = [result] if isinstance(result, ffi.tvm_ffi().Tensor) else list(result)
        outputs = [self._own(output, worker) for output in outputs]
        # Not reached when the call raises: a virtual machine that was interrupted is not used again.
        self._workers.append(worker)
        return outputs

    def _check_sizes(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Refuses inputs in which one name of a dimension stands for different sizes."""
        seen: dict[str, tuple[int, TensorSpec]] = {}
        for name in self.interface.dimension_names:
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

    def _own(self, output: Any, worker: _Worker) -> Any:
        """Returns the output, copied if it is a weight or an input: its memory must not be used again."""
        address = output.data_ptr()
        if address not in self._weight_addresses and address not in worker.addresses:
            return output
        copy = empty_aligned(tuple(output.shape), str(output.dtype))
        np.copyto(copy, np.from_dlpack(output))
        return tensors.borrow(copy)
