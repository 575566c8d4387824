"""The whole path, top to bottom: a PyTorch model in, a compiled program out. Phases are numbered; each leaves a valid
module."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from qtorch_relay import target as target_table
from qtorch_relay._tvm import relax, tvm
from qtorch_relay.capture.torchscript import from_torch
from qtorch_relay.errors import FloatModelWarning, InvalidInputError, PortablePathWarning
from qtorch_relay.frontend.importer import ENGINE_ATTRIBUTE, ImportedModule, import_graph
from qtorch_relay.frontend.interface import read_interface
from qtorch_relay.frontend.pair import import_pair
from qtorch_relay.lowering.channels_last import convert_to_channels_last
from qtorch_relay.lowering.lift_constants import lift_constants
from qtorch_relay.lowering.rebuild import bindings_of, op_name
from qtorch_relay.lowering.select_kernels import SelectionReport, select_kernels
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.verify import verify
from qtorch_relay.runtime.build import build
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.target import Target


def from_pytorch(
    model: Any, input_infos: Any, engine: str | None = None, strict: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Imports a PyTorch int8 model.

    Args:
        model: a torch.jit.ScriptModule (traced, scripted, frozen or not), an nn.Module (traced here), or the path of a
        .pt file.
        input_infos: [("x", (1, 3, 224, 224))], [("x", ((1, 3, 224, 224), "float32"))], or example tensors.
        engine: "fbgemm", "onednn", "x86" or "qnnpack", whose codes to reproduce; None =
        torch.backends.quantized.engine.
        strict: True raises if the model has ops that cannot be imported; False is reserved.

    Returns:
        The IRModule, whose main takes the inputs and then the weights, and the weights as {name: tvm tensor}.

    Raises:
        QTorchRelayError: one of its subclasses, with all unsupported ops at once.
    """
    if not strict:
        raise InvalidInputError(
            "strict=False is reserved for leaving parts to PyTorch and not available yet; pass strict=True"
        )
    imported = import_graph(from_torch(model, input_infos, engine))
    verify(imported.mod)
    return imported.mod, {name: tvm.runtime.tensor(array) for name, array in imported.params.items()}


def compile(
    model: Any, input_infos: Any = None, target: Any = "host", engine: str | None = None, *, kernels: bool = True
) -> CompiledModel:
    """Compiles a PyTorch model, or what from_pytorch returned, for a target.

    Args:
        model: as in from_pytorch, or a pair (mod, params).
        input_infos: as in from_pytorch; left out for a pair.
        target: a name of targets(), or a tvm.target.Target.
        engine: as in from_pytorch; left out for a pair.
        kernels: False takes the portable path (canonicalization and generic code) on any target; the codes are the
        same.

    Warns: FloatModelWarning if nothing in a PyTorch model is int8; PortablePathWarning if the target has no int8
        kernels.
    """
    resolved = target_table.resolve(target)
    if kernels and resolved.kernels is None:
        warnings.warn(PortablePathWarning(resolved.name), stacklevel=2)
    if isinstance(model, tuple):
        imported = import_pair(model)
        verify(imported.mod)
    else:
        imported = import_graph(from_torch(model, input_infos, engine))
        if not _has_codes(imported.mod):
            warnings.warn(FloatModelWarning(), stacklevel=2)
    return compile_imported(imported, resolved, kernels=kernels)


def compile_imported(imported: ImportedModule, target: Any = "host", *, kernels: bool = True) -> CompiledModel:
    """Compiles an imported module; compile has the arguments."""
    resolved = target_table.resolve(target)
    interface = read_interface(imported.mod)
    lowered, weights, report = lower(imported, resolved, kernels=kernels)
    return build(
        lowered,
        weights,
        resolved,
        structure=None if interface is None else interface.structure,
        arguments=None if interface is None else interface.arguments,
        input_qparams=None if interface is None else interface.input_qparams,
        output_qparams=None if interface is None else interface.output_qparams,
        output_channels_last=None if interface is None else interface.channels_last,
        engine=str(imported.mod.attrs[ENGINE_ATTRIBUTE]) if ENGINE_ATTRIBUTE in imported.mod.attrs else None,
        report=report,
        relax_pipeline=None,
    )


def lower(
    imported: ImportedModule, target: Target, *, kernels: bool = True
) -> tuple[Any, dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Returns the module ready to be built, its weights, and a report of what became of the ops."""
    with target.to_tvm():
        # 0. Weights become constants: kernels pack them, canonicalization folds their sums.
        mod = relax.transform.BindParams("main", dict(imported.params))(imported.mod)
        verify(mod)
        report = {"path": "portable", "messages": _portable_messages(target, kernels)}
        if kernels and target.kernels is not None:
            # 1. Channels last, the layout of the kernels.
            mod = convert_to_channels_last(mod)
            verify(mod)
            # 2. Kernels in place of what they compute, constants packed.
            mod, selection = select_kernels(mod, target.kernels)
            verify(mod)
            report = _kernel_report(selection)
        # 3. What is left becomes plain Relax, then TVM's generic code, fused.
        mod = CanonicalizeOps()(mod)
        mod = generic_passes()(mod)
        # 4. Constants leave the code.
        mod, weights = lift_constants(mod)
        # 5. Memory is planned, calls become those of the virtual machine.
        mod = machine_passes()(mod)
    return mod, weights, report


def generic_passes() -> Any:
    """TVM's own passes from plain Relax to fused TIR functions; kernels are opaque to them."""
    return tvm.transform.Sequential(
        [
            relax.transform.EliminateCommonSubexpr(),
            # a reshape of dense memory is a view, which the virtual machine makes without code
            relax.transform.LegalizeOps(skip_ops=["relax.reshape"]),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            relax.transform.DeadCodeElimination(),
        ]
    )


def machine_passes() -> Any:
    """TVM's passes from fused TIR functions to a program for its virtual machine, with one plan for all memory.

    TVM's default list also looks for functions that only reshape; it cannot read the int8 kernels, and there are none.
    """
    return tvm.transform.Sequential(
        [
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )


def _has_codes(mod: Any) -> bool:
    """Says whether an imported module computes anything quantized."""
    return any(op_name(binding.value).startswith("qnn.") for binding in bindings_of(mod["main"]))


def _portable_messages(target: Target, kernels: bool) -> list[str]:
    if not kernels:
        return ["the portable path was asked for: generic code, the same codes, slower"]
    return [str(PortablePathWarning(target.name))]


def _kernel_report(selection: SelectionReport) -> dict[str, Any]:
    return {
        "path": "kernels",
        "kernels": dict(selection.kernels),
        "messages": [f"{name} runs as generic code: {reason}" for name, reason in selection.refused],
    }
