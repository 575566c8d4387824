"""How far values are from others, summed up over images: memory does not grow with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from accuracy_reports.record import CODES, CodeCounts, Gap
from qtorch_relay.numerics.core import dequantize_f32, quantize_f32
from qtorch_relay.qparams import PerTensor, QuantizedTensor, code_range

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class View:
    """A layer's values in both forms: real float64, and codes where the layer has any (else None)."""

    real: npt.NDArray[np.float64]
    codes: npt.NDArray[np.integer] | None


def view_floats(values: Array, qparams: PerTensor | None) -> View:
    """Returns floats and the codes that quantizing makes of them; qparams: None where the layer has no codes."""
    codes = None if qparams is None else quantize_f32(values.astype(np.float32), qparams)
    return View(values.astype(np.float64), codes)


@dataclass
class GapSums:
    """The sums that a Gap from a to b is made of. Elements of which one is not finite count as differing alone.

    scale: of the layer; None where it has none.
    """

    scale: float | None
    signal: float = 0.0
    other: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0
    differing: int = 0
    of: int = 0

    def add(self, a: View, b: View) -> None:
        """Adds the values of a batch."""
        coded = a.codes is not None and b.codes is not None
        unequal = a.codes != b.codes if coded else (a.real != b.real) & ~(np.isnan(a.real) & np.isnan(b.real))
        self.differing += int(np.count_nonzero(unequal))
        self.of += a.real.size
        left, right = a.real.ravel(), b.real.ravel()
        finite = np.isfinite(left) & np.isfinite(right)
        if not finite.all():
            left, right = left[finite], right[finite]
        error = left - right
        self.signal += float(left @ left)
        self.other += float(right @ right)
        self.product += float(left @ right)
        self.noise += float(error @ error)
        np.abs(error, out=error)
        self.absolute += float(error.sum())
        self.largest = max(self.largest, float(error.max(initial=0.0)))

    def add_equal(self, a: View) -> None:
        """Adds a batch in which both are the same, in a fraction of the time."""
        real = a.real.ravel()
        real = real[np.isfinite(real)]
        power = float(real @ real)
        self.signal, self.other, self.product = self.signal + power, self.other + power, self.product + power
        self.of += a.real.size

    def gap(self) -> Gap:
        """Returns what the sums say."""
        sqnr_db = 10 * math.log10(self.signal / self.noise) if self.signal > 0 and self.noise > 0 else None
        norm = math.sqrt(self.signal) * math.sqrt(self.other)
        cosine = max(-1.0, min(1.0, self.product / norm)) if norm > 0 else None
        steps = None if self.scale is None else self.largest / self.scale
        mean = None if self.scale is None or self.of == 0 else self.absolute / self.of / self.scale
        return Gap(sqnr_db, cosine, steps, mean, self.differing, self.of)


@dataclass
class CodeSums:
    """How often each 8-bit code occurs."""

    qparams: PerTensor
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(CODES, np.int64))

    def add(self, codes: npt.NDArray[np.integer]) -> None:
        """Adds the codes of a batch."""
        least, _ = code_range(self.qparams.dtype)
        self.counts += np.bincount(codes.ravel().astype(np.int64) - least, minlength=CODES)

    def code_counts(self) -> CodeCounts:
        """Returns the histogram, and how many codes are at an end that is not the zero point."""
        least, greatest = code_range(self.qparams.dtype)
        ends = [end - least for end in (least, greatest) if end != self.qparams.zero_point]
        return CodeCounts(tuple(self.counts.tolist()), int(self.counts[ends].sum()))


def has_histogram(qparams: PerTensor | None) -> bool:
    """Says whether a layer has codes of 8 bits."""
    return qparams is not None and qparams.dtype in ("uint8", "int8")


def real_of(value: Any) -> Any:
    """Returns what a value of a reference run stands for, float32 for codes; lists and tuples item by item."""
    if isinstance(value, QuantizedTensor):
        qparams = value.qparams
        if isinstance(qparams, PerTensor):
            return dequantize_f32(value.codes, qparams)
        shape = [-1 if axis == qparams.axis else 1 for axis in range(value.codes.ndim)]
        steps = value.codes.astype(np.int64) - qparams.zero_points.reshape(shape)
        return (steps * qparams.scales.reshape(shape)).astype(np.float32)
    if isinstance(value, list | tuple):
        return type(value)(real_of(item) for item in value)
    return value
