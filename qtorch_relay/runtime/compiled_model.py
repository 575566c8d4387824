"""CompiledModel: a compiled program with its weights, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import InvalidInputError
from qtorch_relay.runtime import ffi, tensors
from qtorch_relay.runtime.call_times import CallTime, call_times
from qtorch_relay.runtime.interface import Golden, Interface, Program
from qtorch_relay.runtime.model import Model
from qtorch_relay.runtime.specs import empty_aligned
from qtorch_relay.runtime.threads import prepare_thread
from qtorch_relay.runtime.variants import most_able
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


class CompiledModel(Model):
    """A compiled model in this process. Several threads may call one at once; they share its weights.

    not_loaded: names of the targets for which the bundle that this was loaded from has other programs.
    """

    def __init__(
        self,
        program: Program,
        weights: Mapping[str, npt.NDArray[Any]],
        interface: Interface,
        golden: Golden | None = None,
        not_loaded: Sequence[str] = (),
    ) -> None:
        """Takes the weights in the order of the program's parameters, without a copy of those TVM can use in place."""
        super().__init__(interface, golden)
        self.not_loaded = tuple(not_loaded)
        self._variants: tuple[CompiledModel, ...] = ()
        self.program = program
        self.weights = {name: tensors.aligned(array) for name, array in weights.items()}
        self._weight_tensors = tuple(tensors.borrow(array) for array in self.weights.values())
        self._weight_addresses = frozenset(array.ctypes.data for array in self.weights.values() if array.size)
        # Workers at rest; deque's append and pop are atomic.
        self._workers: deque[_Worker] = deque()

    @property
    def variants(self) -> tuple[CompiledModel, ...]:
        """The programs for several targets that are saved together, this one among them."""
        return self._variants or (self,)

    @staticmethod
    def joined(variants: Sequence[CompiledModel]) -> CompiledModel:
        """Returns the one of several variants that this host runs best, or else the first; `save` writes all of them.

        They are one model, compiled for several targets.
        """
        first = variants[0].interface
        same = [replace(variant.interface, target=first.target, report=first.report) == first for variant in variants]
        assert all(same), "variants take and give the same"
        found = most_able([variant.target for variant in variants])
        chosen = variants[0 if found is None else found]
        chosen._variants = tuple(variants)
        return chosen

    def call_times(self, inputs: Sequence[npt.NDArray[Any]], runs: int = 30) -> list[CallTime]:
        """Returns how long each function of the program takes on these inputs, call by call; medians over runs."""
        arrays = self.flat_inputs(inputs)
        check_runnable(self.target)
        prepare_thread()
        worker = _Worker(self.program.module(), self._weight_tensors)
        worker.fill(arrays)
        return call_times(self.program.module(), worker.tensors, self._weight_tensors, runs)

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

    def _call(self, arrays: Sequence[npt.NDArray[Any]]) -> list[Any]:
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

    def _own(self, output: Any, worker: _Worker) -> Any:
        """Returns the output, copied if it is a weight or an input: its memory must not be used again."""
        address = output.data_ptr()
        if address not in self._weight_addresses and address not in worker.addresses:
            return output
        copy = empty_aligned(tuple(output.shape), str(output.dtype))
        np.copyto(copy, np.from_dlpack(output))
        return tensors.borrow(copy)
