"""What each of PyTorch's engines takes, as data: the codes of activations, and how weights may be scaled."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from qtorch_relay.errors import CalibrationError


@dataclass(frozen=True)
class EngineLimits:
    """The codes an engine's kernels compute with exactly, and why they are those.

    quant_max: the largest code of quint8 activations; the least is 0.
    """

    name: str
    quant_max: int
    reason: str


# Source: torch/ao/quantization/qconfig.py, get_default_qconfig.
ENGINE_LIMITS = {
    limits.name: limits
    for limits in (
        EngineLimits(
            "fbgemm", 127, "its kernels add pairs of u8 * s8 products in int16: 2 * 127 * 128 fits, 255 does not"
        ),
        EngineLimits("x86", 127, "some of its convolutions are fbgemm's"),
        EngineLimits("onednn", 255, "its kernels add in int32 where the CPU has VNNI"),
        EngineLimits("qnnpack", 255, "its kernels add in int32"),
    )
}


def scrambled_layers(engine: str, model: nn.Module) -> list[str]:
    """Returns a message about layers whose results PyTorch's own kernels get wrong on an engine.

    qnnpack's clamp permutes channels-last maps, which results of its convolutions are: shown by
    tests/numerics/test_inconsistent.py.
    """
    names = [path for path, module in model.named_modules() if isinstance(module, nn.Hardtanh)]  # ReLU6 is one
    if engine != "qnnpack" or not names:
        return []
    return [
        f"PyTorch's qnnpack scrambles channels-last results of ReLU6 and Hardtanh ({', '.join(names)}); the compiled "
        "program computes them right, so codes differ: take ReLU, keep these layers in float, or choose another engine"
    ]


def engine_limits(engine: str) -> EngineLimits:
    """Returns an engine's limits.

    Raises: CalibrationError if it is unknown.
    """
    if engine not in ENGINE_LIMITS:
        raise CalibrationError(f"engine {engine!r} is unknown; accepted are {', '.join(ENGINE_LIMITS)}")
    return ENGINE_LIMITS[engine]
