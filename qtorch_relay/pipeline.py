"""The whole path, top to bottom: a PyTorch model in, a compiled program out. Phases are numbered; each leaves a valid
module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qtorch_relay import target as target_table
from qtorch_relay._tvm import relax, tvm
from qtorch_relay.capture.inputs import dimension_names as dimension_names_of
from qtorch_relay.capture.inputs import parse_input_infos
from qtorch_relay.capture.torchscript import from_torch
from qtorch_relay.errors import FloatModelWarning, InvalidInputError, PortablePathWarning
from qtorch_relay.frontend.importer import ENGINE_ATTRIBUTE, ImportedModule, import_graph
from qtorch_relay.frontend.interface import read_interface
from qtorch_relay.frontend.pair import import_pair
from qtorch_relay.generalize import dimension_names, generalize, instantiate, same_cuts, same_params
from qtorch_relay.golden import golden_by, golden_by_pytorch
from qtorch_relay.kernels.conv2d_plan import use_tiles
from qtorch_relay.kernels.tuning import Tuned
from qtorch_relay.kernels.tuning import tune as find_tiles
from qtorch_relay.kernels.tuning_cache import TuningCache
from qtorch_relay.lowering.channels_last import convert_to_channels_last
from qtorch_relay.lowering.fold_constants import FoldConstants
from qtorch_relay.lowering.inline_stages import InlineStages
from qtorch_relay.lowering.lift_constants import lift_constants
from qtorch_relay.lowering.rebuild import bindings_of, op_name
from qtorch_relay.lowering.select_kernels import Samples, SelectionReport, select_kernels
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.verify import verify
from qtorch_relay.runtime.build import build
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.threads import one_thread
from qtorch_relay.target import Target
from qtorch_relay.tir.matmul import legalize_matmul

# Sizes for which a model with a named dimension is imported and lowered: small ones show whether shapes grow evenly,
# the large one whether a number of the model's own comes between, as in min(n, 20).
IMPORTED_SIZES = (2, 3, 1, 37)
LOWERED_SIZES = (2, 3)


def from_pytorch(
    model: Any, input_infos: Any, engine: str | None = None, strict: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Imports a PyTorch int8 model.

    Args:
        model: a torch.jit.ScriptModule (traced, scripted, frozen or not), an nn.Module (traced here), a
        torch.export.ExportedProgram, or the path of a .pt or .pt2 file.
        input_infos: one entry per input of the model, (name, info) or an example tensor or array. info is a shape,
        (shape, dtype), (shape, "quint8", scale, zero_point) for a quantized tensor, an example, None for an optional
        input that is left out, or a list, tuple or dict of these, nested as the input is. One dimension can be a name,
        as in ("x", ("n", 3, 224, 224)): the program then runs for any size of it, the same in all inputs.
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
    imported = import_model(model, input_infos, engine)
    return imported.mod, {name: tvm.runtime.tensor(array) for name, array in imported.params.items()}


def import_model(model: Any, input_infos: Any, engine: str | None = None) -> ImportedModule:
    """Returns the imported module of a PyTorch model; arguments as in from_pytorch.

    A model with a named dimension is imported for some sizes of it, 1 among them; all must be one program.
    """
    names = dimension_names_of(parse_input_infos(input_infos))
    if not names:
        imported = import_graph(from_torch(model, input_infos, engine))
        verify(imported.mod)
        return imported
    if len(names) > 1:
        raise InvalidInputError(f"the sizes {', '.join(names)} are names; one can be, give the others as numbers")
    found = [import_graph(from_torch(model, input_infos, engine, {names[0]: size})) for size in IMPORTED_SIZES]
    for imported in found:
        verify(imported.mod)
    same_cuts(names[0], [imported.cut_short for imported in found])
    mod = generalize([imported.mod for imported in found], names[0], IMPORTED_SIZES)
    same_params(names[0], [imported.params for imported in found])
    return ImportedModule(mod, found[0].params, ())


def compile(
    model: Any,
    input_infos: Any = None,
    target: Any = "host",
    engine: str | None = None,
    *,
    kernels: bool = True,
    tune: float | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> CompiledModel:
    """Compiles a PyTorch model, or what from_pytorch returned, for a target.

    Args:
        model: as in from_pytorch, or a pair (mod, params).
        input_infos: as in from_pytorch; left out for a pair.
        target: a name of targets(), a tvm.target.Target, or a list of them: programs for all are then saved in one
        bundle, and the best one for a CPU is taken when it is loaded there.
        engine: as in from_pytorch; left out for a pair.
        kernels: False takes the portable path (canonicalization and generic code) on any target; the codes are the
        same.
        tune: seconds to time kernels on this host, those of layers that are not in the tuning cache; 0 takes what is
        there, None nothing. The codes are the same.
        progress: told the share of these seconds that is gone.

    A target that this host cannot run gets PyTorch's own output as the golden one of its bundle.

    Warns: FloatModelWarning if nothing in a PyTorch model is int8; PortablePathWarning if the target has no int8
        kernels.
    """
    resolved = target_table.resolve_all(target)
    if tune is not None:
        _check_tuning(resolved, tune, kernels=kernels)
    for one in resolved:
        if kernels and one.kernels is None:
            warnings.warn(PortablePathWarning(one.name), stacklevel=2)
    if isinstance(model, tuple):
        imported = import_pair(model)
        if not dimension_names(imported.mod):
            verify(imported.mod)
    else:
        imported = import_model(model, input_infos, engine)
        if not _has_codes(imported.mod):
            warnings.warn(FloatModelWarning(), stacklevel=2)
    if tune is not None:
        return _compile_tuned(imported, resolved[0], tune, progress)
    compiled = CompiledModel.joined([compile_imported(imported, one, kernels=kernels) for one in resolved])
    if any(target_table.missing_on_host(one) is not None for one in resolved):
        if isinstance(model, tuple):
            compiled.golden = golden_by(compile_imported(imported, "host"))
        else:
            _add_golden(compiled, model, input_infos)
    return compiled


def _add_golden(compiled: CompiledModel, model: Any, input_infos: Any) -> None:
    """Gives a program PyTorch's output as its golden one, or says why there is none."""
    try:
        compiled.golden = golden_by_pytorch(model, input_infos, compiled.interface)
    except (RuntimeError, LookupError) as error:  # PyTorch's own: seeded indices may fit no table of the model
        reason = str(error).splitlines()[0]
        compiled.report["messages"].append(f"no self-test: PyTorch fails on the seeded inputs for it ({reason})")


def _compile_tuned(
    imported: ImportedModule, target: Target, seconds: float, progress: Callable[[float], None]
) -> CompiledModel:
    tuned = _tune(imported, target, seconds, progress)
    with use_tiles(tuned.tiles):
        compiled = compile_imported(imported, target)
    compiled.report["messages"].append(
        f"tuning: {tuned.changed} of {tuned.layers} distinct layers take other tiles than planned; "
        f"{tuned.timed} choices timed in {tuned.seconds:.0f} s, the others are known from before or were not reached"
    )
    return compiled


def _check_tuning(targets: Sequence[Target], seconds: float, *, kernels: bool) -> None:
    """Refuses to tune what has no kernels, cannot run here, for a time that is none, or for several targets."""
    if len(targets) > 1:
        raise InvalidInputError(f"tune times kernels for one target, and {len(targets)} are given; compile for each")
    target = targets[0]
    if not seconds >= 0:
        raise InvalidInputError(f"tune is {seconds}; accepted are seconds, 0 or more")
    if not kernels or target.kernels is None:
        raise InvalidInputError("tune times int8 kernels, and the portable path has none; leave it out")
    target_table.check_runnable(target)


def _tune(imported: ImportedModule, target: Target, seconds: float, progress: Callable[[float], None]) -> Tuned:
    """Returns the tiles of the layers for which kernels are selected."""
    name = next(iter(dimension_names(imported.mod)), None)
    mod, samples = imported.mod, None
    if name is not None:
        mod, samples = instantiate(mod, {name: LOWERED_SIZES[0]}), Samples(LOWERED_SIZES[0])
    assert target.kernels is not None
    with target.to_tvm():
        bound = relax.transform.BindParams("main", dict(imported.params))(mod)
        _, selection = _select(bound, target.kernels, samples)
    with one_thread():
        return find_tiles(target.kernels, selection.specs.values(), seconds, TuningCache(), progress)


def compile_imported(imported: ImportedModule, target: Any = "host", *, kernels: bool = True) -> CompiledModel:
    """Compiles an imported module; compile has the arguments."""
    resolved = target_table.resolve(target)
    lowered, weights, report = lower(imported, resolved, kernels=kernels)
    return build(
        lowered,
        weights,
        resolved,
        read_interface(imported.mod),
        engine=str(imported.mod.attrs[ENGINE_ATTRIBUTE]) if ENGINE_ATTRIBUTE in imported.mod.attrs else None,
        report=report,
        relax_pipeline=None,
    )


def lower(
    imported: ImportedModule, target: Target, *, kernels: bool = True
) -> tuple[Any, dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Returns the module ready to be built, its weights, and a report of what became of the ops."""
    with target.to_tvm():
        # 0 to 3. QNN ops become kernels and plain Relax.
        mod, report = _to_plain_relax(imported, target, kernels=kernels)
        # 4. Plain Relax becomes TVM's generic code, fused.
        mod = generic_passes()(mod)
        # 5. Constants leave the code.
        mod, weights = lift_constants(mod)
        # 6. Memory is planned, calls become those of the virtual machine.
        mod = machine_passes()(mod)
    return mod, weights, report


def _to_plain_relax(imported: ImportedModule, target: Target, *, kernels: bool) -> tuple[Any, dict[str, Any]]:
    """Returns a module without qnn ops, and what became of them.

    A module with a named dimension is lowered for two sizes of it; the two results make the one for every size.
    """
    isa = target.kernels if kernels else None
    name = next(iter(dimension_names(imported.mod)), None)
    if name is None:
        mod, selection = _lower_qnn(imported.mod, imported.params, isa, None)
        return mod, _report(selection, target, kernels)
    mods = [instantiate(imported.mod, {name: size}) for size in LOWERED_SIZES]
    generic: frozenset[int] = frozenset()
    while True:
        samples = [Samples(size, generic) for size in LOWERED_SIZES]
        lowered = [_lower_qnn(mod, imported.params, isa, count) for mod, count in zip(mods, samples, strict=True)]
        first, second = ({} if selection is None else selection.specs for _, selection in lowered)
        differing = {number for number in {*first, *second} if first.get(number) != second.get(number)}
        if not differing:
            break
        generic |= differing
    report = _report(lowered[0][1], target, kernels)
    if lowered[0][1] is not None:
        report["messages"].insert(0, f"{name} is any size: kernels compute one sample after the other")
    return generalize([mod for mod, _ in lowered], name, LOWERED_SIZES), report


def _lower_qnn(
    mod: Any, params: dict[str, np.ndarray[Any, Any]], isa: str | None, samples: Samples | None
) -> tuple[Any, SelectionReport | None]:
    """Returns a module of fixed shapes without qnn ops, and which kernels were selected if any are wanted."""
    # 0. Weights become constants: kernels pack them, canonicalization folds their sums.
    mod = relax.transform.BindParams("main", dict(params))(mod)
    verify(mod)
    selection = None
    if isa is not None:
        mod, selection = _select(mod, isa, samples)
    # 3. What is left becomes plain Relax.
    return CanonicalizeOps()(mod), selection


def _select(mod: Any, isa: str, samples: Samples | None) -> tuple[Any, SelectionReport]:
    """Returns a module whose weights are constants with kernels in it, and which they are."""
    # 1. Channels last, the layout of the kernels.
    mod = convert_to_channels_last(mod)
    verify(mod)
    # 2. Kernels in place of what they compute, constants packed.
    mod, selection = select_kernels(mod, isa, samples)
    verify(mod)
    return mod, selection


def generic_passes() -> Any:
    """Passes from plain Relax to fused TIR functions, mostly TVM's own; kernels are opaque to them."""
    return tvm.transform.Sequential(
        [
            relax.transform.EliminateCommonSubexpr(),
            FoldConstants(),
            # a reshape of dense memory is a view, which the virtual machine makes without code
            relax.transform.LegalizeOps({"relax.matmul": legalize_matmul}, skip_ops=["relax.reshape"]),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            InlineStages(),
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
    """Says whether an imported module takes, computes or gives anything quantized, or has weights of 8-bit codes
    (embeddings).
    """
    main = mod["main"]
    interface = read_interface(mod)
    if interface is not None and any((*(interface.input_qparams or ()), *(interface.output_qparams or ()))):
        return True
    weights = main.params[int(main.attrs["num_input"]) :]
    if any(str(weight.ty.dtype) in ("uint8", "int8") for weight in weights):
        return True
    return any(op_name(binding.value).startswith("qnn.") for binding in bindings_of(main))


def _portable_messages(target: Target, kernels: bool) -> list[str]:
    if not kernels:
        return ["the portable path was asked for: generic code, the same codes, slower"]
    return [str(PortablePathWarning(target.name))]


def _report(selection: SelectionReport | None, target: Target, kernels: bool) -> dict[str, Any]:
    if selection is None:
        return {"path": "portable", "messages": _portable_messages(target, kernels)}
    return {
        "path": "kernels",
        "kernels": dict(selection.kernels),
        "functions": selection.functions,
        "products": dict(selection.products),
        "messages": [f"{name} runs as generic code: {reason}" for name, reason in selection.refused],
    }
