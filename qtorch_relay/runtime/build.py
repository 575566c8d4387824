"""Builds a Relax module into a CompiledModel. The only part of the runtime that needs TVM's compiler."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import TensorType, relax, tvm
from qtorch_relay.dimensions import is_fixed, linear_text
from qtorch_relay.errors import QTorchRelayError, VerifyError
from qtorch_relay.qparams import QuantParams
from qtorch_relay.runtime import ffi
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.interface import Interface, ModuleInterface
from qtorch_relay.runtime.linker import find_linker, link
from qtorch_relay.runtime.specs import Dimension, TensorSpec
from qtorch_relay.runtime.tensors import side_by_side
from qtorch_relay.target import CPU_DESCRIPTION_FUNCTION, Target, missing_on_host
from qtorch_relay.tir.cpu_description import cpu_description
from qtorch_relay.tir.pipeline import NAME as TIR_PIPELINE


class _BuiltProgram:
    """Code as LLVM has optimized it. Machine code is made once, as a library that is both run and saved.

    Where no linker works LLVM's JIT makes it instead, and the program can be run but not saved.
    """

    def __init__(self, executable: Any, target: Target) -> None:
        self._executable = executable
        self._target = target
        self._library: bytes | None = None
        self._module: Any = None
        self._lock = RLock()

    def module(self) -> Any:
        """Returns the Relax executable's module."""
        with self._lock:
            if self._module is None:
                try:
                    self._module = ffi.load_library(self.library())
                except QTorchRelayError:
                    # The JIT needs neither a linker nor a folder for code; `save` tells what is wrong with them.
                    self._module = self._executable.mod
            return self._module

    def library(self) -> bytes:
        """Returns the code as a shared library."""
        with self._lock:
            if self._library is None:
                linker = find_linker(self._target)
                with tempfile.TemporaryDirectory(prefix="qtorch_relay_") as folder:
                    path = Path(folder) / "lib.so"
                    pack = partial(_pack_imports, str(self._target.to_tvm()))
                    self._executable.export_library(str(path), fcompile=partial(link, linker), fpack_imports=pack)
                    self._library = path.read_bytes()
            return self._library


def build(
    mod: Any,
    weights: Mapping[str, Any],
    target: Target,
    said: ModuleInterface | None = None,
    *,
    engine: str | None = None,
    report: dict[str, Any] | None = None,
    relax_pipeline: Any = "default",
) -> CompiledModel:
    """Returns the compiled model of a Relax module.

    Args:
        mod: its "main" takes the inputs, then the weights, and returns a tensor or a flat tuple; all sizes are numbers
            or follow from the names in the inputs' shapes.
        weights: numpy arrays or TVM tensors by the name of main's parameter; the parameters before them are the inputs.
        target: what to compile for; it need not be this host.
        said: what the types of main do not say of its inputs and outputs.
        engine: the PyTorch engine whose codes it gives.
        report: numbers and messages to keep with the model, as JSON data.
        relax_pipeline: what TVM applies before it generates code; None if mod is ready for the virtual machine.

    Raises:
        VerifyError: main's signature is not of that form.
    """
    inputs, weight_specs = _split_parameters(mod["main"], weights)
    types = _output_types(mod["main"])
    said = said or ModuleInterface()
    if said.input_qparams is not None:
        inputs = tuple(replace(spec, qparams=q) for spec, q in zip(inputs, said.input_qparams, strict=True))
    qparams, layouts = said.output_qparams or (None,) * len(types), said.channels_last or (False,) * len(types)
    outputs = tuple(
        replace(_spec(f"output{i}", found, q), channels_last=last)
        for i, (found, q, last) in enumerate(zip(types, qparams, layouts, strict=True))
    )
    arrays = side_by_side({spec.name: _weight_array(weights[spec.name], spec) for spec in weight_specs})
    structure = said.structure
    if structure is None:
        returns_tuple = isinstance(mod["main"].ret_ty, relax.TupleType)
        structure = {"tuple": list(range(len(outputs)))} if returns_tuple else 0
    interface = Interface(inputs, outputs, structure, target, engine, report or {}, said.arguments)
    mod = mod.clone()
    mod[CPU_DESCRIPTION_FUNCTION] = cpu_description(target.machine)
    executable = relax.build(mod, target=target.to_tvm(), relax_pipeline=relax_pipeline, tir_pipeline=TIR_PIPELINE)
    program = _BuiltProgram(executable, target)
    if missing_on_host(target) is None:
        # Machine code is made now, so that the first call is as fast as the others.
        program.module()
    return CompiledModel(program, arrays, interface)


def _pack_imports(llvm_target: str, module: Any, is_system_lib: bool, prefix: str, folder: str) -> str:
    """Writes the bytecode and the constants of an executable as an object file, as TVM does by default, but quietly."""
    path = str(Path(folder) / "imports.o")
    pack = tvm.get_global_func("runtime.ModulePackImportsToLLVM")
    with ffi.without_scope_messages():
        packed = pack(module, is_system_lib, llvm_target, prefix)
    packed.write_to_file(path)
    return path


def _split_parameters(main: Any, weights: Mapping[str, Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    names = [parameter.name for parameter in main.params]
    specs = tuple(_spec(parameter.name, parameter.ty, None) for parameter in main.params)
    count = len(names) - len(weights)
    if len(set(names)) != len(names) or set(names[count:]) != set(weights):
        raise VerifyError(
            f"main takes {names}; its last {len(weights)} parameters must be the weights {sorted(weights)}"
        )
    return specs[:count], specs[count:]


def _output_types(main: Any) -> list[Any]:
    returned = main.ret_ty
    return list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]


def _spec(name: str, found: Any, qparams: QuantParams | None) -> TensorSpec:
    if not isinstance(found, TensorType) or not isinstance(found.shape, relax.ShapeExpr):
        raise VerifyError(f"'{name}' of main is {found}, not a tensor of known shape")
    return TensorSpec(name, tuple(_dimension(size) for size in found.shape.values), str(found.dtype), qparams)


def _dimension(size: Any) -> Dimension:
    """Returns a size as the specs write it: a number, a name, or a multiple of one and a rest."""
    return int(size) if is_fixed(size) else linear_text(size)


def _weight_array(weight: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    array = weight if isinstance(weight, np.ndarray) else np.from_dlpack(weight)
    if array.shape != spec.shape or str(array.dtype) != spec.dtype:
        raise VerifyError(f"weight {spec} of main was given as {array.dtype} {list(array.shape)}")
    return array
