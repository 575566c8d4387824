"""Percentile: the range that all but a stated share of the values lie in."""

from __future__ import annotations

from typing import Any

import numpy as np

from calibration.observers.histogram import Counts, Histogram, HistogramRangeObserver
from qtorch_relay.errors import CalibrationError


class PercentileObserver(HistogramRangeObserver):
    """Clips the rare extremes: with n values, rank r = ceil(percentile / 100 * n) counted from either end.

        greatest = the r-th value in ascending order, least = the r-th in descending order
        symmetric schemes: +-the r-th magnitude

    Both are rounded outwards to the edge of their bin, and never reach beyond the extremes. Percentile 100 is min-max.

    Args:
        percentile: above 50, up to 100.
    Source: J. L. McKinstry et al. 2018, "Discovering low-precision networks close to full-precision networks for
    efficient embedded inference" (99.99 and 99.999); H. Wu et al. 2020, "Integer quantization for deep learning
    inference", section 5.
    """

    def __init__(self, percentile: float = 99.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 50 < percentile <= 100:
            raise CalibrationError(f"the percentile is {percentile:g}; accepted is above 50, up to 100")
        self.percentile = percentile

    def choose_range(self, histogram: Histogram) -> tuple[float, float]:
        """Returns the range between the percentiles."""
        edges, width = histogram.lower_edges, histogram.width
        if self.is_symmetric:
            folded = histogram.of_magnitudes()
            bound = min((_first_at(folded, self.percentile) + 1) * width, max(-histogram.least, histogram.greatest))
            return -bound, bound
        greatest = edges[_first_at(histogram.counts, self.percentile)] + width
        least = edges[len(edges) - 1 - _first_at(histogram.counts[::-1], self.percentile)]
        return max(float(least), histogram.least), min(float(greatest), histogram.greatest)


def _first_at(counts: Counts, percentile: float) -> int:
    """Returns the first bin with which the count reaches a percentile of all."""
    cumulative = np.cumsum(counts)
    rank = int(np.ceil(percentile / 100 * int(cumulative[-1])))
    return int(np.searchsorted(cumulative, rank))
