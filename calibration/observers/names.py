"""Observers by the names users give: `--observer percentile:99.99`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.ao.quantization.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)

from calibration.observers.entropy import EntropyObserver
from calibration.observers.mse import MSEObserver, MSEWeightObserver
from calibration.observers.percentile import PercentileObserver
from qtorch_relay.errors import CalibrationError

ACTIVATION_OBSERVERS: dict[str, Callable[..., Any]] = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageMinMaxObserver,
    "histogram": HistogramObserver,
    "percentile": PercentileObserver,
    "entropy": EntropyObserver,
    "mse": MSEObserver,
}
WEIGHT_OBSERVERS = ("minmax", "mse")
DEFAULT_ACTIVATION, DEFAULT_WEIGHT = "histogram", "minmax"
_PER_TENSOR: dict[str, Callable[..., Any]] = {"minmax": MinMaxObserver, "mse": MSEWeightObserver}
_PER_CHANNEL: dict[str, Callable[..., Any]] = {"minmax": PerChannelMinMaxObserver, "mse": MSEWeightObserver}


@dataclass(frozen=True)
class ObserverName:
    """An observer of activations, and its parameter: the percentile, None elsewhere.

    Raises: CalibrationError for unknown names and for parameters they do not take.
    """

    name: str
    percentile: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ACTIVATION_OBSERVERS:
            raise CalibrationError(f"observer {self.name!r} is unknown; accepted are {_accepted()}")
        if self.percentile is not None and self.name != "percentile":
            raise CalibrationError(f"observer {self.name} takes no number; accepted are {_accepted()}")
        self.make()  # whether the percentile is accepted

    def make(self, **options: Any) -> Any:
        """Returns an observer. options: dtype, qscheme, quant_min, quant_max."""
        number = {} if self.percentile is None else {"percentile": self.percentile}
        return ACTIVATION_OBSERVERS[self.name](**number, **options)

    def __str__(self) -> str:
        return self.name if self.percentile is None else f"{self.name}:{self.percentile:g}"


def parse_observer(text: str) -> ObserverName:
    """Returns what NAME or percentile:NUMBER means.

    Raises: CalibrationError if it means nothing.
    """
    name, colon, number = text.partition(":")
    try:
        return ObserverName(name, float(number) if colon else None)
    except ValueError:
        raise CalibrationError(f"'{text}': '{number}' is no number; write percentile:99.99") from None


def check_weight_observer(name: str) -> str:
    """Returns the name. Raises: CalibrationError if it is unknown."""
    if name not in WEIGHT_OBSERVERS:
        raise CalibrationError(f"weight observer {name!r} is unknown; accepted are {', '.join(WEIGHT_OBSERVERS)}")
    return name


def weight_observer(name: str, *, per_channel: bool) -> Any:
    """Returns a factory of symmetric int8 weight observers; channels are axis 0."""
    kind = (_PER_CHANNEL if per_channel else _PER_TENSOR)[check_weight_observer(name)]
    scheme = torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric
    return kind.with_args(dtype=torch.qint8, qscheme=scheme)  # type: ignore[attr-defined]


def _accepted() -> str:
    return ", ".join("percentile:NUMBER" if name == "percentile" else name for name in ACTIVATION_OBSERVERS)
