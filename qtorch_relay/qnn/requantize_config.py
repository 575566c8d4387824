"""How Relay's arithmetic rounds where an op does not say it: requantize_config, with Relay's names and defaults."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from qtorch_relay._tvm import target_has_feature, tvm
from qtorch_relay.errors import VerifyError

RELAY_ROUNDINGS = ("UPWARD", "TONEAREST")
COMPUTE_DTYPES = ("int64", "float32", "float64")
# "None", a string as in Relay: ask the config.
UNSET = "None"

_STACK = threading.local()


def _entered() -> list[RequantizeConfig]:
    if not hasattr(_STACK, "configs"):
        _STACK.configs = []
    configs: list[RequantizeConfig] = _STACK.configs
    return configs


@dataclass(frozen=True)
class RequantizeConfig:
    """rounding: "UPWARD" (ties towards +inf) or "TONEAREST" (ties away from zero); compute_dtype: a COMPUTE_DTYPES."""

    rounding: str
    compute_dtype: str

    def __post_init__(self) -> None:
        if self.rounding not in RELAY_ROUNDINGS:
            raise VerifyError(f"requantize_config: rounding must be one of {RELAY_ROUNDINGS}, found {self.rounding!r}")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise VerifyError(
                f"requantize_config: compute_dtype must be one of {COMPUTE_DTYPES}, found {self.compute_dtype!r}"
            )

    def __enter__(self) -> RequantizeConfig:
        _entered().append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _entered().pop()


def requantize_config(**options: Any) -> RequantizeConfig:
    """Returns a context in which ops that leave rounding or compute_dtype open are canonicalized with these.

    Left out, rounding is "UPWARD", and compute_dtype "float32" for an LLVM target with SSE4.1, else "int64"; the target
    is the current one (`with target:`) when this function is called, as in Relay.
    """
    unknown = set(options) - {"rounding", "compute_dtype"}
    if unknown:
        raise VerifyError(f"requantize_config takes rounding and compute_dtype, found {', '.join(sorted(unknown))}")
    return RequantizeConfig(options.get("rounding", "UPWARD"), options.get("compute_dtype") or _default_compute_dtype())


def current_requantize_config() -> RequantizeConfig:
    """Returns the innermost config entered in this thread, or the defaults for the current target."""
    return _entered()[-1] if _entered() else requantize_config()


def resolve(rounding: str = UNSET, compute_dtype: str = UNSET) -> tuple[str, str]:
    """Returns an op's rounding and compute_dtype, taken from the current config where the op leaves them open.

    TONEAREST_EVEN (ours) is not defined in fixed point: left open, it is computed in float32.
    """
    if rounding == "TONEAREST_EVEN" and compute_dtype == UNSET:
        return rounding, "float32"
    config = current_requantize_config()
    return (
        config.rounding if rounding == UNSET else rounding,
        config.compute_dtype if compute_dtype == UNSET else compute_dtype,
    )


def _default_compute_dtype() -> str:
    target = tvm.target.Target.current(allow_none=True)
    is_llvm = target is not None and target.kind.name == "llvm"
    return "float32" if is_llvm and target_has_feature("sse4.1", target) else "int64"
