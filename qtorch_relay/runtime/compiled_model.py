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
    """A virtual machine, and memory for inputs that are not as it reads them; one call at a time."""

    def __init__(self, module: Any, weights: Sequence[Any]) -> None:
        self.entry = ffi.make_entry(module, weights)
        self.tensor_type = ffi.tvm_ffi().Tensor
        self._copies: dict[int, npt.NDArray[Any]] = {}

    def readable(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Returns the inputs themselves where they are dense, else copies, in memory that is used again.

        Copying the image of a small network takes a twentieth of its run time. DLPack lends no read-only memory.
        """
        return [array if array.flags.carray else self._copy(index, array) for index, array in enumerate(arrays)]

    def _copy(self, index: int, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        buffer = self._copies.get(index)
        if buffer is None or buffer.shape != array.shape:
            buffer = self._copies[index] = empty_aligned(array.shape, str(array.dtype))
        np.copyto(buffer, array)
        return buffer


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
        # Which outputs are inputs or weights; found in the first call, and the same in all.
        self._shared_outputs: tuple[int, ...] | None = None
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
        return call_times(self.program.module(), list(map(tensors.aligned, arrays)), self._weight_tensors, runs)

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
        # A network leaves nothing of Python in the caches: each line here costs ten times what it does in a loop.
        prepare_thread()
        try:
            worker = self._workers.pop()
        except IndexError:
            check_runnable(self.target)
            worker = _Worker(self.program.module(), self._weight_tensors)
        arrays = worker.readable(arrays)
        try:
            result = worker.entry(*arrays)
        except IndexError as error:  # raised by kernels that check what they index with
            raise InvalidInputError(f"the model cannot run on these inputs: {error}") from error
        outputs = [result] if isinstance(result, worker.tensor_type) else list(result)
        if self._shared_outputs is None:
            self._shared_outputs = self._find_shared(arrays, outputs)
        for index in self._shared_outputs:
            outputs[index] = tensors.borrow(tensors.aligned_copy(np.from_dlpack(outputs[index])))
        # Not reached when the call raises: a virtual machine that was interrupted is not used again.
        self._workers.append(worker)
        return outputs

    def _find_shared(self, arrays: Sequence[npt.NDArray[Any]], outputs: Sequence[Any]) -> tuple[int, ...]:
        """Returns the outputs that are inputs or weights: a caller may change both what it gave and what it gets."""
        given = {array.ctypes.data for array in (*arrays, *self.weights.values()) if array.size}
        return tuple(index for index, output in enumerate(outputs) if output.data_ptr() in given)
