"""The golden run of a bundle: seeded inputs, the outputs a right program gives for them, and whether one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BundleError
from qtorch_relay.runtime import tensors
from qtorch_relay.runtime.interface import PROGRAM, SOURCES, Golden, Interface
from qtorch_relay.runtime.random_inputs import random_inputs
from qtorch_relay.runtime.specs import TensorSpec

# What named dimensions are in the golden run.
GOLDEN_SIZE = 2
# Golden floats are -127 to 127 of these steps, which a bundle keeps as int8: a quarter of the size.
_STEP = np.float32(1 / 32)
# How far a float may be from another program's, in steps of its dtype at the output's largest value. A code of an 8-bit
# tensor is at least 1/255 of that value, which is thousands of steps: no differing code passes as rounding.
FLOAT_STEPS = 32.0


@dataclass(frozen=True)
class SelfTest:
    """A self-test that was passed: elements of all outputs, and how many of them are floats that are rounded otherwise.

    source: where the golden output is from, one of interface.SOURCES.
    """

    source: str
    elements: int
    rounded: int

    def __str__(self) -> str:
        rounding = f", {self.rounded} floats differ by their rounding" if self.rounded else ""
        return f"{self.elements - self.rounded} of {self.elements} elements equal {SOURCES[self.source]}{rounding}"


def golden_inputs(interface: Interface) -> tuple[npt.NDArray[Any], ...]:
    """Returns seeded inputs of a program."""
    specs = interface.tensors_at(GOLDEN_SIZE)[: len(interface.inputs)]
    arrays = random_inputs((spec.fixed_shape, spec.dtype) for spec in specs)
    return tuple(rounded_to_steps(array) if array.dtype.kind == "f" else array for array in arrays)


def rounded_to_steps(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns floats rounded to what a bundle keeps as int8."""
    return from_steps(np.clip(np.rint(array / _STEP), -127, 127).astype(np.int8), array.dtype)


def to_steps(array: npt.NDArray[Any]) -> npt.NDArray[np.int8] | None:
    """Returns floats as int8 numbers of steps, from which from_steps makes them to the bit; None if they are others."""
    if array.dtype.kind != "f" or not (np.abs(array) <= 127 * _STEP).all():
        return None
    steps = np.rint(array / _STEP).astype(np.int8)
    return steps if (tensors.as_bits(from_steps(steps, array.dtype)) == tensors.as_bits(array)).all() else None


def from_steps(steps: npt.NDArray[np.int8], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns the floats of numbers of steps."""
    # exact in float16 too: a step is a power of two, and 127 has seven bits
    return (steps * _STEP).astype(dtype)


def compare_golden(golden: Golden, specs: Sequence[TensorSpec], outputs: Sequence[npt.NDArray[Any]]) -> SelfTest:
    """Compares outputs with the golden ones: codes and integers exactly, and floats, unless the program itself gave the
    golden ones, within FLOAT_STEPS.

    Raises:
        BundleError: an output differs.
    """
    rounded = 0
    for spec, found, expected in zip(specs, outputs, golden.outputs, strict=True):
        differing = int(np.count_nonzero(tensors.as_bits(found) != tensors.as_bits(expected)))
        if not differing:
            continue
        steps = _steps(found, expected)
        if golden.source == PROGRAM or found.dtype.kind != "f" or steps > FLOAT_STEPS:
            how_far = f", by up to {steps:.3g} float steps" if found.dtype.kind == "f" else ""
            rounding = "" if golden.source == PROGRAM else "; floats within a model, rounded otherwise, move codes"
            raise BundleError(
                f"self-test: output {spec} differs from the golden output in {differing} of {found.size} elements"
                f"{how_far}; golden is {SOURCES[golden.source]}{rounding}"
            )
        rounded += differing
    return SelfTest(golden.source, sum(output.size for output in outputs), rounded)


def _steps(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Returns the largest difference in steps at the largest magnitude; infinite if one alone is NaN or infinite."""
    different = (found != expected) & ~((found != found) & (expected != expected))
    largest = np.abs(expected[np.isfinite(expected)], dtype=expected.dtype).max(initial=0)
    differences = np.abs(found[different].astype(np.float64) - expected[different].astype(np.float64))
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max(initial=0.0) / float(np.spacing(largest)))
