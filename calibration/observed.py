"""The tensors a prepared model watches, by the name of what makes them: the same names in eager mode and in FX."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.quantization import FakeQuantizeBase, FixedQParamsObserver, ObserverBase
from torch.ao.quantization.observer import NoopObserver, PlaceholderObserver, ReuseInputObserver

from qtorch_relay.errors import CalibrationError

ATTRIBUTE = "activation_post_process"
# The stub that quantizes what a layer kept in float returns, see calibration.eager.
FLOAT_ISLAND_STUB = "requantize"


@dataclass(frozen=True, eq=False)
class ObservedTensor:
    """A tensor of a prepared model.

    name: the layer that makes it, or FX's name of the operation or input.
    also: what shares its observer: the results of ops that only move its values.
    paths: where the observer is.
    """

    name: str
    also: tuple[str, ...]
    observer: nn.Module
    paths: tuple[str, ...]


@dataclass(frozen=True)
class TensorRange:
    """How a tensor is quantized, and those that share its range (also).

    least, greatest: the extremes that were seen; None where none are kept.
    """

    name: str
    also: tuple[str, ...]
    scale: float
    zero_point: int
    quant_min: int
    quant_max: int
    dtype: str
    scheme: str
    least: float | None
    greatest: float | None

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf") or not self.quant_min <= self.zero_point <= self.quant_max:
            raise CalibrationError(
                f"{self.name}: scale {self.scale} and zero point {self.zero_point} are no parameters"
            )
        if self.dtype not in ("quint8", "qint8") or self.scheme not in ("per_tensor_affine", "per_tensor_symmetric"):
            raise CalibrationError(f"{self.name}: {self.dtype}, {self.scheme} is not supported")

    @property
    def covered(self) -> tuple[float, float]:
        """The least and the greatest value that has a code of its own."""
        return (self.quant_min - self.zero_point) * self.scale, (self.quant_max - self.zero_point) * self.scale


def observed_tensors(prepared: nn.Module) -> dict[str, ObservedTensor]:
    """Returns the tensors whose ranges are wanted, in the order in which the model makes (eager: holds) them."""
    pairs = _in_graph(prepared) if isinstance(prepared, fx.GraphModule) else _in_modules(prepared)
    names: dict[int, dict[str, None]] = {}
    paths: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    for name, path, observer in pairs:
        if isinstance(observer, PlaceholderObserver | NoopObserver | ReuseInputObserver):
            continue
        names.setdefault(id(observer), {})[name] = None
        paths.setdefault(id(observer), []).append(path)
        modules[id(observer)] = observer
    found = [(*names[key], modules[key], tuple(paths[key])) for key in names]
    return {name: ObservedTensor(name, tuple(also), module, where) for name, *also, module, where in found}


def _in_graph(prepared: fx.GraphModule) -> Iterator[tuple[str, str, nn.Module]]:
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        if node.op == "call_module" and is_observer(modules[node.target]):
            maker = node.args[0]
            yield (maker.target if maker.op == "call_module" else maker.name), node.target, modules[node.target]


def _in_modules(prepared: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    for path, module in prepared.named_modules(remove_duplicate=False):
        name, _, attribute = path.rpartition(".")
        # a fake quantization has an observer of its own inside
        if attribute == ATTRIBUTE and is_observer(module) and not is_observer(prepared.get_submodule(name)):
            yield name.removesuffix(f".{FLOAT_ISLAND_STUB}"), path, module


def is_observer(module: nn.Module) -> bool:
    """Whether a module watches a tensor, or simulates its quantization."""
    return isinstance(module, ObserverBase | FakeQuantizeBase)


def replace_observer(prepared: nn.Module, tensor: ObservedTensor, module: nn.Module) -> None:
    """Puts a module in an observer's place, everywhere."""
    for path in tensor.paths:
        parent, _, attribute = path.rpartition(".")
        setattr(prepared.get_submodule(parent), attribute, module)


def never_seen(tensor: ObservedTensor) -> bool:
    """Whether an observer saw nothing: its layer never ran."""
    least = getattr(tensor.observer, "min_val", None)
    return isinstance(least, Tensor) and (least.numel() == 0 or bool(torch.isinf(least).all()))


def read_range(tensor: ObservedTensor) -> TensorRange:
    """Returns what an observer of a whole tensor decides.

    Raises: CalibrationError if it decides per channel.
    """
    observer: Any = tensor.observer
    scale, zero_point = observer.calculate_qparams()
    if scale.numel() != 1:
        raise CalibrationError(f"{tensor.name} is quantized per channel, which a table of activations does not hold")
    seen = getattr(observer, "activation_post_process", observer)
    known = isinstance(getattr(seen, "min_val", None), Tensor) and not never_seen(tensor)
    return TensorRange(
        tensor.name,
        tensor.also,
        float(scale),
        int(zero_point),
        int(observer.quant_min),
        int(observer.quant_max),
        str(observer.dtype).removeprefix("torch."),
        str(observer.qscheme).removeprefix("torch."),
        float(seen.min_val) if known else None,
        float(seen.max_val) if known else None,
    )


def fix_ranges(prepared: nn.Module, ranges: dict[str, TensorRange]) -> list[str]:
    """Puts decided ranges in the observers' places; returns the names of tensors that have none."""
    missing = []
    by_name = {name: found for found in ranges.values() for name in (found.name, *found.also)}
    for name, tensor in observed_tensors(prepared).items():
        if name not in by_name:
            missing.append(name)
            continue
        found = by_name[name]
        replace_observer(
            prepared,
            tensor,
            FixedQParamsObserver(
                found.scale,
                found.zero_point,
                dtype=getattr(torch, found.dtype),
                qscheme=getattr(torch, found.scheme),
                quant_min=found.quant_min,
                quant_max=found.quant_max,
            ),
        )
    return missing


@contextmanager
def refusing_nonfinite(prepared: nn.Module) -> Iterator[None]:
    """While the block runs, a NaN or infinite value in an observed tensor is an error that names the layer.

    Raises: CalibrationError.
    """

    def check(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            least, greatest = torch.aminmax(args[0].detach()) if args[0].numel() else (torch.zeros(1), torch.zeros(1))
            if not (torch.isfinite(least) and torch.isfinite(greatest)):
                what = "NaN" if torch.isnan(least) else "infinite values"
                raise CalibrationError(
                    f"the output of '{name}' holds {what} on the calibration data; no range covers that: "
                    "check the data's preprocessing and the model's weights"
                )

        return hook

    handles = [
        tensor.observer.register_forward_pre_hook(check(name)) for name, tensor in observed_tensors(prepared).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
