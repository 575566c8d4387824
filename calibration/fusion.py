"""Which layers become one: chains of a convolution or linear layer, batch normalization and ReLU in eager models."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.ao import quantization as q
from torch.ao.quantization.fuser_method_mappings import _DEFAULT_OP_LIST_TO_FUSER_METHOD

from qtorch_relay.errors import CalibrationError

_FUSED = set(_DEFAULT_OP_LIST_TO_FUSER_METHOD)
_LONGEST = max(map(len, _FUSED))


class _Tracer(fx.Tracer):
    """FX's tracer, which also takes modules that return several tensors."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(operator.getitem,))


def trace(model: nn.Module) -> fx.GraphModule:
    """Returns the graph of a model in terms of its own modules.

    Raises: CalibrationError if FX cannot trace it.
    """
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # a model's forward may raise anything when its inputs are proxies
        raise CalibrationError(
            f"torch.fx cannot trace the model ({type(error).__name__}: {first_line(error)}); mark what is to be "
            "quantized with torch.ao.quantization.QuantStub and DeQuantStub instead, and it is quantized in eager mode"
        ) from error


def first_line(error: Exception) -> str:
    """Returns an error's first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def fuse_eager(model: nn.Module, *, training: bool) -> nn.Module:
    """Returns a copy of an eager model whose chains are fused; training: for quantization-aware training.

    A model that has fuse_model, as torchvision's, fuses itself. In others chains are found by FX, or between neighbours
    in nn.Sequential where FX cannot trace the model.
    """
    fused = copy.deepcopy(model).train(training)
    own: Any = getattr(fused, "fuse_model", None)
    if callable(own):
        own(is_qat=training)
        return fused
    chains = find_chains(fused)
    if not chains:
        return fused
    fuse = q.fuse_modules_qat if training else q.fuse_modules
    return fuse(fused, chains, inplace=True)


def find_chains(model: nn.Module) -> list[list[str]]:
    """Returns the paths of layers that PyTorch can fuse: each feeds the next one only, and runs once."""
    try:
        runs = list(_runs_in_graph(trace(model)))
    except CalibrationError:
        runs = list(_runs_in_sequences(model))
    modules = dict(model.named_modules())
    chains = []
    for run in runs:
        while run:
            length = next((n for n in range(min(_LONGEST, len(run)), 1, -1) if _kinds(modules, run[:n]) in _FUSED), 0)
            if length:
                chains.append(run[:length])
            run = run[length or 1 :]
    return chains


def _kinds(modules: dict[str, nn.Module], names: list[str]) -> tuple[type[nn.Module], ...]:
    return tuple(type(modules[name]) for name in names)


def _runs_in_graph(graph: fx.GraphModule) -> Iterator[list[str]]:
    """Yields the longest runs of modules that feed one another and nothing else."""
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    times = [node.target for node in calls]
    single = {node for node in calls if times.count(node.target) == 1}
    follower = {
        node: next(iter(node.users)) for node in single if len(node.users) == 1 and next(iter(node.users)) in single
    }
    for node in calls:
        if node in single and node not in set(follower.values()):
            run = [node]
            while run[-1] in follower:
                run.append(follower[run[-1]])
            yield [str(link.target) for link in run]


def _runs_in_sequences(model: nn.Module) -> Iterator[list[str]]:
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            yield [f"{path}.{name}" if path else name for name, _ in module.named_children()]
