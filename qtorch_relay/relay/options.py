"""How Relay text is written."""

from __future__ import annotations

from dataclasses import dataclass

from qtorch_relay.errors import InvalidInputError

ROUNDINGS = ("UPWARD", "TONEAREST")
COMPUTE_DTYPES = ("float32", "float64", "int64")


@dataclass(frozen=True)
class Options:
    """exact: plain Relay ops where a qnn op would round otherwise than PyTorch.

    rounding: qnn.requantize's, "UPWARD" (ties towards +inf) or "TONEAREST" (ties away from zero).
    compute_dtype: what it multiplies in.
    """

    exact: bool = False
    rounding: str = "TONEAREST"
    compute_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise InvalidInputError(f"rounding is '{self.rounding}'; accepted are {' and '.join(ROUNDINGS)}")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise InvalidInputError(
                f"compute_dtype is '{self.compute_dtype}'; accepted are {', '.join(COMPUTE_DTYPES)}"
            )
