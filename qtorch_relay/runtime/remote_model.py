"""RemoteModel: a compiled program on a board, called from the desk like one in this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BoardLostError, InvalidInputError, RemoteError, TargetError
from qtorch_relay.runtime import ffi
from qtorch_relay.runtime.bundle import Variant
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.model import Model
from qtorch_relay.runtime.remote_session import Session
from qtorch_relay.runtime.variants import most_able
from qtorch_relay.target import (
    CPU_DESCRIPTION_BYTES,
    CPU_DESCRIPTION_FUNCTION,
    TARGETS,
    HostCpu,
    Target,
    described_cpu,
    host_cpu,
)

# What the virtual machine there calls main with its weights, and that with the inputs of a call.
_BOUND, _READY, _TIMED = "main with its weights", "main with its arguments", "main with its arguments, output dropped"
_INDEX_ERROR = "qtorch_relay.raise_index_error"
# The first measurement says how long a call takes; then the board is asked for about so much work at a time.
_SECONDS_A_REQUEST = 5.0
_names = count()


class RemoteModel(Model):
    """A compiled model on a board. Calls of several threads take turns.

    session: the connection, which may hold several models. cpu: the board's.
    """

    def __init__(self, session: Session, variant: Variant, library: Any, cpu: HostCpu) -> None:
        """Takes a variant whose library is loaded there, and uploads its weights, once."""
        super().__init__(variant.interface, variant.golden)
        self.session, self.cpu = session, cpu
        self._lock = Lock()
        machine = session.call("starting a virtual machine", session.method(library, "vm_load_executable"))
        self._machine = machine
        initialize = session.method(machine, "vm_initialization")
        session.call("starting a virtual machine", initialize, ffi.CPU, 0, ffi.POOLED_ALLOCATOR)
        self._save = session.method(machine, "save_function")
        weights = [session.tensor(array) for array in variant.weights.values()]
        session.call("binding the weights", self._save, "main", _BOUND, True, *weights)
        self._tuple_item = session.function("vm.builtin.tuple_getitem")
        self._shapes: tuple[tuple[int, ...], ...] | None = None
        self._inputs: list[Any] = []

    def time_calls(
        self,
        inputs: Sequence[npt.NDArray[Any]] | Mapping[str, npt.NDArray[Any]],
        runs: int,
        progress: Callable[[float], None] | None = None,
    ) -> list[float]:
        """Returns how long each of so many calls takes in ms by the board's own clock, without the network.

        progress: called with the share that is done, from 0 to 1.
        """
        with self._lock:
            self._bind_call(self.flat_inputs(inputs), _TIMED, with_output=False)
            times_ms: list[float] = []
            while len(times_ms) < runs:
                least = min(times_ms, default=_SECONDS_A_REQUEST * 1e3)
                batch = max(1, int(_SECONDS_A_REQUEST * 1e3 / max(least, 1e-3)))
                times_ms += self.session.time(self._machine, _TIMED, min(batch, runs - len(times_ms)))
                if progress is not None:
                    progress(len(times_ms) / runs)
        return times_ms

    def __repr__(self) -> str:
        inputs, outputs = "; ".join(map(str, self.inputs)), "; ".join(map(str, self.outputs))
        return f"RemoteModel({inputs} -> {outputs}; target {self.target.name}, {self.session.name})"

    def _call(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        with self._lock:
            self._bind_call(arrays, _READY, with_output=True)
            try:
                result = self.session.call("running", self.session.method(self._machine, _READY))
            except RemoteError as error:
                if _INDEX_ERROR in str(error):  # a stock server does not have what would say which
                    raise InvalidInputError("the model cannot run on these inputs: an index is out of range") from error
                raise
            if isinstance(result, ffi.tvm_ffi().Tensor):
                return [self.session.read(result)]
            items = [self.session.call("running", self._tuple_item, result, i) for i in range(len(self.outputs))]
            return [self.session.read(item) for item in items]

    def _bind_call(self, arrays: Sequence[npt.NDArray[Any]], name: str, *, with_output: bool) -> None:
        """Makes `name` a function of the board's virtual machine that calls main on these inputs."""
        shapes = tuple(array.shape for array in arrays)
        if shapes != self._shapes:
            self._inputs = [self.session.tensor(array) for array in arrays]
            self._shapes = shapes
        else:
            for tensor, array in zip(self._inputs, arrays, strict=True):
                self.session.write(tensor, array)
        self.session.call("taking inputs", self._save, _BOUND, name, with_output, *self._inputs)


def place(session: Session, variants: Sequence[Variant], name: str) -> RemoteModel:
    """Returns the most able of a model's variants that a board runs, loaded there. Its CPU is asked before.

    name: the model, for messages.

    Raises:
        TargetError: the board runs none of them.
        RemoteError: the board fails.
    """
    loaded, cpu = _load_any(session, variants, name)
    targets = [variant.interface.target for variant in variants]
    found = most_able(targets, lambda target: missing_on(cpu, target))
    if found is None:
        able = [row.name for row in TARGETS if row.machine == cpu.machine and cpu.missing(row) is None]
        wanted = "; ".join(f"{target.name} ({target.isa}) needs {missing_on(cpu, target)}" for target in targets)
        raise TargetError(
            f"{name} cannot run on {session.name} ({cpu.model}): {wanted}; "
            f"the board can run {', '.join(able) or 'generic'}"
        )
    best = variants[found]
    library = loaded.get(id(best)) or _load(session, best)
    return RemoteModel(session, best, library, cpu)


def place_compiled(session: Session, model: CompiledModel) -> RemoteModel:
    """Returns a model that was just compiled, on a board; like `place`."""
    variants = [Variant(one.interface, one.weights, one.program.library(), model.golden) for one in model.variants]
    return place(session, variants, "the model")


def missing_on(cpu: HostCpu, target: Target) -> str | None:
    """Returns what a board's CPU lacks to run a target, or None."""
    if cpu.missing(target) is None and "amx_tile" in target.cpu_flags:
        return "Linux's permission to use AMX, for which a stock RPC server does not ask"
    return cpu.missing(target)


def _load_any(session: Session, variants: Sequence[Variant], name: str) -> tuple[dict[int, Any], HostCpu]:
    """Loads the first variant whose machine code the board takes at all, and lets it read the board's CPU."""
    refusals = []
    for variant in variants:
        machine = variant.interface.target.machine or host_cpu().machine
        try:
            library = _load(session, variant)
        except BoardLostError:
            raise
        except RemoteError as error:
            refusals.append(f"to its machine code for {machine} the board says '{_of_dlopen(str(error))}'")
            continue
        return {id(variant): library}, described_cpu(machine, _describe_cpu(session, library, name))
    raise TargetError(
        f"{name} cannot be loaded on {session.name}: {'; '.join(refusals)}; "
        "compile it for the board's machine (--target), and let the board have apache-tvm 0.27"
    )


def _of_dlopen(text: str) -> str:
    """Returns the reason the C library gave, without the paths before it."""
    return re.split(r"\.so: ", text)[-1]


def _load(session: Session, variant: Variant) -> Any:
    file = f"qtorch_relay_{next(_names)}.so"
    library = session.load_library(variant.library, file)
    session.remove(file)
    return library


def _describe_cpu(session: Session, library: Any, name: str) -> bytes:
    memory = session.tensor(np.zeros(CPU_DESCRIPTION_BYTES, np.uint8))
    try:
        describe = session.method(library, CPU_DESCRIPTION_FUNCTION)
    except BoardLostError:
        raise
    except RemoteError as error:
        raise RemoteError(f"{name} cannot ask a board for its CPU: compile it again with this qtorch_relay") from error
    session.call("reading its CPU", describe, memory)
    return session.read(memory).tobytes()
