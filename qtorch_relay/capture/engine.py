"""The quantized engine: which of PyTorch's int8 backends a model is loaded, traced and run with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qtorch_relay.errors import EngineError

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")


def resolve_engine(engine: str | None) -> str:
    """Returns the engine's name; None stands for torch.backends.quantized.engine.

    Raises: EngineError if the engine is unknown, or missing from this build of PyTorch.
    """
    name = torch.backends.quantized.engine if engine is None else engine
    available = [e for e in ENGINES if e in _supported()]
    if name not in ENGINES:
        found = "torch.backends.quantized.engine is" if engine is None else "engine is"
        raise EngineError(f"{found} {name!r}; accepted are {', '.join(available)}")
    if name not in available:
        raise EngineError(f"engine {name!r} is missing from this build of PyTorch, which has {', '.join(available)}")
    return name


def _supported() -> list[str]:
    return list(torch.backends.quantized.supported_engines)


@contextmanager
def quantized_engine(engine: str | None) -> Iterator[str]:
    """Sets torch.backends.quantized.engine within the block, and restores it; yields the resolved name.

    Packed weights are packed for the engine that is set while they are made or loaded.
    Raises: EngineError as resolve_engine does.
    """
    name = resolve_engine(engine)
    previous = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield name
    finally:
        torch.backends.quantized.engine = previous
