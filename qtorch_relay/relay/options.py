"""How Relay text is written."""

from __future__ import annotations

from dataclasses import dataclass

from qtorch_relay.errors import InvalidInputError

ROUNDINGS = ("UPWARD", "TONEAREST")
COMPUTE_DTYPES = ("float32", "float64", "int64")
REQUANTIZE_FORMS = ("plain", "qnn")
# What a form may be written in: with --exact, by default, with --requantize qnn.
EXACT, DEFAULT, QNN = "exact", "default", "qnn"
MODES = (EXACT, DEFAULT, QNN)


@dataclass(frozen=True)
class Options:
    """The default keeps PyTorch's codes: ops of qnn where Relay's give the same, plain ops elsewhere.

    exact: no op whose codes hang on the libraries of the machine that builds the text.
    requantize: "plain", or "qnn": qnn.requantize, qnn.quantize and qnn.mul also where they cost codes. None is "qnn" if
    rounding or compute_dtype is given, else "plain".
    rounding: of "qnn", "TONEAREST" (ties away from zero), which None stands for, or "UPWARD" (ties towards +inf).
    compute_dtype: what "qnn" multiplies in; None stands for "float32".

    Raises: InvalidInputError for a value that is not accepted, and for exact together with any of the others.
    """

    exact: bool = False
    requantize: str | None = None
    rounding: str | None = None
    compute_dtype: str | None = None

    def __post_init__(self) -> None:
        _check("requantize", self.requantize, REQUANTIZE_FORMS)
        _check("rounding", self.rounding, ROUNDINGS)
        _check("compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        modes = [name for name in ("rounding", "compute_dtype") if getattr(self, name) is not None]
        if modes and self.requantize == "plain":
            raise InvalidInputError(f"{modes[0]} is for requantize 'qnn': plain ops round as PyTorch; leave one out")
        if self.exact and (modes or self.requantize == "qnn"):
            name = modes[0] if modes else "requantize 'qnn'"
            raise InvalidInputError(f"{name} costs codes, and exact text may cost none; leave one of them out")

    @property
    def mode(self) -> str:
        """One of MODES."""
        asked = self.requantize == "qnn" or self.rounding is not None or self.compute_dtype is not None
        return EXACT if self.exact else (QNN if asked else DEFAULT)

    @property
    def relay_rounding(self) -> str:
        """The rounding that qnn ops are written with."""
        return self.rounding or "TONEAREST"

    @property
    def relay_compute_dtype(self) -> str:
        """The compute type that qnn ops are written with."""
        return self.compute_dtype or "float32"


def _check(name: str, value: str | None, accepted: tuple[str, ...]) -> None:
    if value is not None and value not in accepted:
        listed = ", ".join(accepted[:-1])
        raise InvalidInputError(f"{name} is '{value}'; accepted are {listed} and {accepted[-1]}")
