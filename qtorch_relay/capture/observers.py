"""Observers that are switched off: what is left of them is fake quantization, which changes no state."""

from __future__ import annotations

from typing import Any

import torch

from qtorch_relay.capture.passes import all_nodes

_OBSERVE_AND_QUANTIZE = "aten::fused_moving_avg_obs_fake_quant"


def drop_idle_observers(graph: Any) -> None:
    """Replaces each fused observer that is off by the fake quantization it does, or by its input if that is off too.

    Before: %y = aten::fused_moving_avg_obs_fake_quant(%x, %off, %on, %min, %max, %scale, %zero_point, ...)
    After:  %y = aten::fake_quantize_per_tensor_affine(%x, %scale, %zero_point, %quant_min, %quant_max)
    """
    for node in list(all_nodes(graph)):
        if node.kind() != _OBSERVE_AND_QUANTIZE:
            continue
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
        values = dict(zip(names, node.inputs(), strict=True))
        if _number(values["observer_on"]) != 0:
            continue
        quantizes, by_row = _number(values["fake_quant_on"]), _number(values["per_row_fake_quant"])
        if quantizes is None or by_row is None:
            continue
        if not quantizes:
            node.output().replaceAllUsesWith(values["self"])
            node.destroy()
            continue
        kind = "channel" if by_row else "tensor"
        taken = ["self", "scale", "zero_point", *(["ch_axis"] if by_row else []), "quant_min", "quant_max"]
        quantize = graph.create(f"aten::fake_quantize_per_{kind}_affine", [values[name] for name in taken], 1)
        quantize.insertBefore(node)
        quantize.copyMetadata(node)
        node.output().replaceAllUsesWith(quantize.output())
        node.destroy()


def _number(value: Any) -> float | None:
    """Returns a constant of one number, None for anything else."""
    if value.node().kind() != "prim::Constant":
        return None
    constant = value.toIValue()
    if isinstance(constant, torch.Tensor):
        return float(constant.reshape(-1)[0]) if constant.numel() == 1 else None
    return float(constant) if isinstance(constant, bool | int | float) else None
