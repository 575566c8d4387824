"""A row of the op matrix: one op in one dtype, scheme and shape, with the inputs it is run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
MAX_ULP = 2


@dataclass(frozen=True, eq=False)
class Case:
    """One row.

    op: the dispatcher's name without the overload ("quantized::conv1d"); also: other ops that the row proves with it.
    variant: what tells it from the op's others.
    make: builds the module under test, called with the engine set; it quantizes its float inputs itself.
    inputs: one array per input of the module. engines: those it runs on; left_out says why for each of the others.
    ulp: how many float32 steps at the result's scale a float output may differ, with the reason; codes never differ.
    """

    op: str
    variant: str
    make: Callable[[], nn.Module]
    inputs: tuple[npt.NDArray[Any], ...]
    engines: tuple[str, ...] = ENGINES
    left_out: Mapping[str, str] = field(default_factory=dict)
    ulp: int = 0
    reason: str = ""
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if set(self.engines) | set(self.left_out) != set(ENGINES) or set(self.engines) & set(self.left_out):
            raise ValueError(f"{self.id}: every engine is either in engines or in left_out with a reason")
        if not all(self.left_out.values()):
            raise ValueError(f"{self.id}: an engine is left out without a reason")
        if not 0 <= self.ulp <= MAX_ULP or (self.ulp > 0) != bool(self.reason):
            raise ValueError(f"{self.id}: ulp is 0, or at most {MAX_ULP} with a reason")

    @property
    def ops(self) -> tuple[str, ...]:
        """All ops that the row proves."""
        return (self.op, *self.also)

    @property
    def id(self) -> str:
        """The row's name: op and variant."""
        return f"{self.op}[{self.variant}]"


def uniform(shape: tuple[int, ...], seed: int, low: float = -3.0, high: float = 3.0) -> npt.NDArray[np.float32]:
    """Returns seeded float32 values between low and high."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


class Apply(nn.Module):
    """Calls function(*inputs, **parameters); parameters become attributes, where a trace finds packed weights."""

    def __init__(self, function: Callable[..., Any], **parameters: Any) -> None:
        super().__init__()
        self.function = function
        self.names = tuple(parameters)
        for name, value in parameters.items():
            setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs, **{name: getattr(self, name) for name in self.names})
