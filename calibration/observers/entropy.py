"""Entropy: the clipping that changes a tensor's distribution least, as TensorRT calibrates."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.observers.histogram import Counts, Histogram, HistogramRangeObserver

_BINS = 2048


class EntropyObserver(HistogramRangeObserver):
    """Chooses the magnitude T that minimizes KL(P || Q) over candidates T_i = (i + 0.5) * width, levels <= i <= bins.

    The magnitudes' histogram has at most 2048 bins h[0] ... up to the largest magnitude. For each i:

        P = h[0 .. i-1], the outliers' count sum(h[i ..]) added to its last bin
        Q = h[0 .. i-1] quantized to `levels` levels: bins j * i // levels to (j + 1) * i // levels share one level,
            whose count is spread evenly over those of its bins that are not empty
        KL = sum(P / sum(P) * log((P / sum(P)) / (Q / sum(Q)))) over P > 0; infinite where Q is 0 and P is not

    h[0] is set to h[1]: zero, of which a ReLU gives many, has a code of its own in every range. The range is
    [max(min, -T), min(max, T)]; symmetric schemes take -T to T.

    Args:
        levels: how many codes share the magnitudes; None: those of the dtype, half of them where both signs occur
            (128 for int8, as TensorRT has it).
    Source: S. Migacz 2017, "8-bit inference with TensorRT" (GTC, slides 36 to 38 with the pseudocode); the first bin:
    NVIDIA TensorRT tools/pytorch-quantization, pytorch_quantization/calib/histogram.py.
    """

    def __init__(self, levels: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = levels

    def choose_range(self, histogram: Histogram) -> tuple[float, float]:
        """Returns the range up to the best threshold."""
        counts, width = _coarsen(histogram)
        threshold = (best_bin(counts, self._levels(histogram)) + 0.5) * width
        if self.is_symmetric:
            return -threshold, threshold
        return max(histogram.least, -threshold), min(histogram.greatest, threshold)

    def _levels(self, histogram: Histogram) -> int:
        if self.levels is not None:
            return self.levels
        codes = int(self.quant_max - self.quant_min + 1)
        has_both_signs = self.is_symmetric or histogram.least < 0 < histogram.greatest
        return codes // 2 if has_both_signs else codes


def best_bin(counts: Counts, levels: int) -> int:
    """Returns the i, levels <= i <= len(counts), whose divergence is least: the first such.

    counts: [bins] of magnitudes. With no more bins than levels nothing is lost, and all are kept.
    """
    bins = counts.astype(np.float64)
    if len(bins) <= levels:
        return len(bins)
    bins[0] = bins[1]
    divergences = [_divergence(bins, i, levels) for i in range(levels, len(bins) + 1)]
    return levels + int(np.argmin(divergences))


def _divergence(bins: npt.NDArray[np.float64], i: int, levels: int) -> float:
    kept = bins[:i]
    total = float(kept.sum())
    if total == 0:
        return float("inf")
    starts = np.arange(levels) * i // levels
    sums = np.add.reduceat(kept, starts)
    filled = np.add.reduceat((kept > 0).astype(np.float64), starts)
    sizes = np.diff(starts, append=i)
    level = np.repeat(np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0), sizes)
    q = np.where(kept > 0, level, 0.0) / total
    p = kept.copy()
    p[-1] += bins[i:].sum()
    p /= p.sum()
    occurs = p > 0
    if not q[occurs].all():
        return float("inf")
    return float(np.sum(p[occurs] * np.log(p[occurs] / q[occurs])))


def _coarsen(histogram: Histogram) -> tuple[Counts, float]:
    """Returns at most 2048 bins of magnitudes that end with the largest one, and their width."""
    counts = histogram.of_magnitudes()
    used = int(np.flatnonzero(counts)[-1]) + 1
    factor = -(-used // _BINS)
    padded = np.zeros(-(-used // factor) * factor, np.int64)
    padded[:used] = counts[:used]
    return padded.reshape(-1, factor).sum(axis=1), histogram.width * factor
