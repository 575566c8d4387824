"""Where things stand in a plot, in percent of its width and height: the templates draw them, at any size of screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accuracy_reports.record import CODES

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
HISTOGRAM_BINS = 64


@dataclass(frozen=True)
class Tick:
    """A mark on an axis. at: percent of its length from its start."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear axis from low to high."""

    low: float
    high: float
    step: float

    def at(self, value: float) -> float:
        """Returns where a value lies, in percent, within the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 3)

    @property
    def ticks(self) -> list[Tick]:
        """The marks, low and high among them."""
        count = round((self.high - self.low) / self.step)
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        if digits and round(self.step, digits) != self.step:
            digits += 1  # steps of 0.25
        values = (self.low + i * self.step for i in range(count + 1))
        return [Tick(self.at(value), f"{value:.{digits}f}") for value in values]


def axis(values: Iterable[float], *, start: float | None = None, end: float | None = None, marks: int = 4) -> Axis:
    """Returns an axis of about so many marks that holds all values.

    start, end: where it begins and ends at the latest, such as 0 and 100 for percent; None = as the values need it.
    """
    known = list(values) or [0.0]
    low, high = min(known), max(known)
    if start is not None and end is None:
        low = start
    if high <= low:
        high = low + (abs(low) or 1.0) * 0.1
    raw = (high - low) / marks
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * unit for nice in _NICE if nice * unit >= raw - 1e-12)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if start is not None:
        low = max(low, start)
    if end is not None and high > end:
        high = end
        low = end - math.ceil((end - low) / step - 1e-9) * step
        low = low if start is None else max(low, start)
    return Axis(low, high, step)


def line(values: Sequence[float | None], vertical: Axis) -> str:
    """Returns the path of a line through values at even distances; it is interrupted where there is none."""
    parts, drawing = [], False
    for i, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        parts.append(f"{'L' if drawing else 'M'}{place(i, len(values)):g} {100 - vertical.at(value):g}")
        drawing = True
    return "".join(parts)


def place(index: int, count: int) -> float:
    """Returns where an item of a row stands, in percent, half a place from the ends."""
    return round(100 * (index + 0.5) / count, 3)


def histogram_path(counts: Sequence[int]) -> str:
    """Returns the outline of a histogram of codes; heights grow with the root, so that rare codes show."""
    sums = _bins(counts)
    top = max(sums) or 1
    parts = ["M0 100"]
    for i, count in enumerate(sums):
        parts.append(f"V{100 - 100 * math.sqrt(count / top):.3g}H{100 * (i + 1) / HISTOGRAM_BINS:.4g}")
    return "".join(parts) + "V100Z"


def tallest_bar(counts: Sequence[int]) -> float:
    """Returns the share of all codes that the tallest bar of a histogram stands for."""
    return max(_bins(counts)) / (sum(counts) or 1)


def _bins(counts: Sequence[int]) -> list[int]:
    width = CODES // HISTOGRAM_BINS
    return [sum(counts[i : i + width]) for i in range(0, CODES, width)]
