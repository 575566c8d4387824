"""TorchScript in, Graph out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from qtorch_relay.capture.convert import to_graph
from qtorch_relay.capture.engine import quantized_engine, resolve_engine
from qtorch_relay.capture.files import load_model
from qtorch_relay.capture.graph import Graph
from qtorch_relay.capture.input_arguments import name_outputs, replace_inputs
from qtorch_relay.capture.inputs import (
    EXAMPLE_SIZE,
    InputArgument,
    InputSpec,
    check_count,
    check_order,
    dimension_names,
    parse_input_infos,
)
from qtorch_relay.capture.mutation import refuse_state, rename_mutated
from qtorch_relay.capture.notes import noted_engine
from qtorch_relay.capture.observers import drop_idle_observers
from qtorch_relay.capture.packed import UnreadableParamsError
from qtorch_relay.capture.passes import answer_modes, drop_messages, fold, inline, resolve_attributes
from qtorch_relay.capture.provenance import SourceMap
from qtorch_relay.capture.specialize import layouts_of, specialize
from qtorch_relay.capture.written_views import open_out_forms, write_back
from qtorch_relay.errors import InvalidInputError

# How torch.jit.trace says that it cannot record what a model returns.
_OUTPUT_WORDS = ("Tracer cannot infer type of", "can be output from traced functions")
_ACCEPTED = (
    "accepted are a torch.jit.ScriptModule, an nn.Module, a torch.export.ExportedProgram, or the path of a TorchScript "
    "or .pt2 file"
)


@dataclass(frozen=True, eq=False)
class CapturedModel:
    """A neutral graph and the torch graph it was made from; their values have the same names."""

    graph: Graph
    torch_graph: Any


def from_torch(
    model: Any, input_infos: Any, engine: str | None = None, sizes: Mapping[str, int] | None = None
) -> Graph:
    """Returns the neutral graph of a model for inputs of the given shapes.

    model: torch.jit.ScriptModule (traced, scripted, frozen or not), nn.Module (traced here in eval mode),
        torch.export.ExportedProgram, or the path of a .pt or .pt2 file. The model is not changed.
    input_infos: [("x", (1, 3, 224, 224))], [("x", ((1, 3, 224, 224), "float32"))], or example tensors or arrays;
        capture.inputs.parse_input_infos has all forms.
    engine: "fbgemm", "onednn", "x86" or "qnnpack"; None = the one a file names (capture.notes), else
        torch.backends.quantized.engine.
    sizes: what the named dimensions of input_infos are in this graph.
    Raises: EngineError, InvalidInputError, ModelFileError, UnsupportedOpError, UnsupportedQuantSchemeError.
    """
    engine = noted_engine(model, engine)
    try:
        return capture_model(model, input_infos, engine, sizes).graph
    except UnreadableParamsError:
        # The codes of a weight are the same in every engine's packing. A file, or a model packed for fbgemm, is packed
        # for the engine that is set while it is captured.
        graph = capture_model(model, input_infos, "fbgemm", sizes).graph
        return replace(graph, engine=resolve_engine(engine))


def capture_model(
    model: Any, input_infos: Any, engine: str | None = None, sizes: Mapping[str, int] | None = None
) -> CapturedModel:
    """Returns what from_torch returns, with the torch graph that run_reference runs. Arguments as in from_torch."""
    arguments = parse_input_infos(input_infos)
    sizes = dict.fromkeys(dimension_names(arguments), EXAMPLE_SIZE) | dict(sizes or {})
    with quantized_engine(noted_engine(model, engine)) as name, torch.no_grad():
        script, returned = _as_script(model, [argument.named(argument.name or "x", sizes) for argument in arguments])
        sources = SourceMap(script)
        torch_graph = inline(script)
        resolve_attributes(torch_graph, script, sources)
        arguments = _name_inputs(torch_graph, script, arguments, sizes)
        replace_inputs(torch_graph, arguments)
        specs = [spec for argument in arguments for spec in argument.leaves]
        answer_modes(torch_graph)
        fold(torch_graph, functionalize=False)
        drop_idle_observers(torch_graph)
        refuse_state(torch_graph, sources)
        fold(torch_graph)
        drop_messages(torch_graph, sources)
        values = specialize(torch_graph, specs, sources)
        if open_out_forms(torch_graph, values):
            values = specialize(torch_graph, specs, sources)
        understood = write_back(torch_graph, values, sources)
        if understood:
            values = specialize(torch_graph, specs, sources)
        rename_mutated(torch_graph, sources, understood)
        graph = to_graph(torch_graph, specs, name, sources, layouts_of(values))
        arguments_of = tuple((argument.name or "", argument.structure) for argument in arguments)
        graph = replace(graph, arguments=arguments_of, output=name_outputs(graph.output, returned))
        return CapturedModel(graph, torch_graph)


def _as_script(model: Any, arguments: Sequence[InputArgument]) -> tuple[Any, Any]:
    """Returns the torch._C.ScriptModule of a model, and what it returned if it is an nn.Module, which is traced."""
    is_exported = False
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    if isinstance(model, torch.export.ExportedProgram):
        # The module that runs the program; its trace has the program's ops, one for one. It has no eval().
        model, is_exported = model.module(), True
    if not isinstance(model, torch.nn.Module):
        raise InvalidInputError(f"the model is a {type(model).__name__}; {_ACCEPTED}")
    if isinstance(model, torch.jit.ScriptModule):
        script, returned = model, None
    else:
        script, returned = _trace(model, arguments) if is_exported else _trace_in_eval_mode(model, arguments)
    if not script._c._has_method("forward"):
        raise InvalidInputError("the model has no forward method; script or trace the module that has one")
    return script._c, returned


def _trace_in_eval_mode(
    model: torch.nn.Module, arguments: Sequence[InputArgument]
) -> tuple[torch.jit.ScriptModule, Any]:
    """Returns the trace of a model in eval mode, and what the model returned; the model's mode stays what it is."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        return _trace(model, arguments)
    finally:
        for module in training:
            module.training = True


def _trace(model: torch.nn.Module, arguments: Sequence[InputArgument]) -> tuple[torch.jit.ScriptModule, Any]:
    """Returns the trace of a model, and what the model returned."""
    returned: list[Any] = []
    # The tracer calls forward once. A trace makes tuples of named tuples; the hook sees what the model itself returns.
    hook = model.register_forward_hook(lambda _module, _inputs, output: returned.append(output))
    try:
        with warnings.catch_warnings(), _readable_attention(model):
            # Tracing is done here on purpose; the caller cannot act on this. Tracer warnings pass.
            warnings.filterwarnings("ignore", "`torch.jit.trace", DeprecationWarning)
            examples = tuple(argument.example() for argument in arguments)
            script = torch.jit.trace(model, examples, check_trace=False, strict=False)
            return script, returned[0] if returned else None
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:  # the model's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if any(words in str(error) for words in _OUTPUT_WORDS):
            raise InvalidInputError(
                "the model cannot be traced, because of what it returns: a trace returns tensors, or tuples, lists or "
                "dicts of tensors; return one of these, or script the model with torch.jit.script"
            ) from error
        specs: list[InputSpec] = [spec for argument in arguments for spec in argument.leaves]
        raise InvalidInputError(
            f"the model cannot be traced with {'; '.join(map(str, specs)) or 'no inputs'}: {reason}; "
            "check input_infos (--input)"
        ) from error
    finally:
        hook.remove()


@contextmanager
def _readable_attention(model: torch.nn.Module) -> Iterator[None]:
    """Keeps nn.TransformerEncoder off its fast path, where that would read weights of quantized layers as tensors.

    A quantized nn.Linear has a method `weight`, at which PyTorch's check for the fast path fails; without it the layers
    are run one by one, as in `torch.backends.mha.set_fastpath_enabled(False)`, which is set back afterwards.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    packed = any(callable(getattr(module, "weight", None)) for module in model.modules())
    torch.backends.mha.set_fastpath_enabled(enabled and not packed)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _name_inputs(
    torch_graph: Any, script: Any, given: Sequence[InputArgument], sizes: Mapping[str, int]
) -> tuple[InputArgument, ...]:
    """Returns the arguments with the caller's names, or the model's own; fills those left out with their defaults."""
    arguments = script._get_method("forward").schema.arguments[1:]
    values = list(torch_graph.inputs())[-len(arguments) :] if arguments else []
    while len(arguments) > len(given) and arguments[-1].has_default_value():
        with torch_graph.insert_point_guard(next(torch_graph.nodes(), torch_graph.return_node())):
            values.pop().replaceAllUsesWith(torch_graph.insertConstant(arguments.pop().default_value))
        torch_graph.eraseInput(len(list(torch_graph.inputs())) - 1)
    names = [argument.name for argument in arguments]
    check_count(given, names)
    check_order(given, names)
    named = tuple(item.named(item.name or name, sizes) for item, name in zip(given, names, strict=True))
    for item, argument in zip(named, arguments, strict=True):
        item.check_type(argument.name, argument.type)
    return named
