"""MSE: the clipping with the least squared error, by grid search, for activations (streamed) and for weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.ao.quantization.observer import UniformQuantizationObserverBase

from calibration.observers.histogram import BINS, Histogram, HistogramRangeObserver

# Shares of an end that are tried first, down to 1/1024, then finer ones around the best.
COARSE = tuple(2.0 ** (-i / 4) for i in range(41))
_FINE = tuple(2.0 ** (i / 32) for i in range(-7, 8))
# Weights have no extremes as activations do.
WEIGHT_SHARES = tuple(1 - i / 100 for i in range(80))

Floats = npt.NDArray[np.float64]


class MSEObserver(HistogramRangeObserver):
    """Chooses the range [a * min, b * max] whose quantization has the least squared error.

        E(a, b) = sum over bins of count * (v - dequantize(quantize(v)))**2,   v = the bin's middle

    with the scale and zero point that the range gives. a and b (one share, where the scheme is symmetric) are searched
    over COARSE, all pairs, then over finer steps around the best pair; of equals the widest range is taken.

    Source: R. Banner et al. 2019, "Post training 4-bit quantization of convolutional networks for rapid-deployment"
    (clipping that minimizes the squared error); the search over a grid: PyTorch's HistogramObserver and OpenVINO.
    """

    def choose_range(self, histogram: Histogram) -> tuple[float, float]:
        """Returns the range with the least error."""
        sums = _PrefixSums(histogram)
        coarse = [(a, b) for a in COARSE for b in COARSE]
        a, b = coarse[self._best(histogram, sums, coarse)]
        fine = [(min(a * f, 1.0), min(b * g, 1.0)) for f in (1.0, *_FINE) for g in (1.0, *_FINE)]
        a, b = fine[self._best(histogram, sums, fine)]
        return self._range(histogram, a, b)

    def _best(self, histogram: Histogram, sums: _PrefixSums, shares: list[tuple[float, float]]) -> int:
        """Returns which shares have the least error, the first of equals."""
        ranges = list(dict.fromkeys(self._range(histogram, a, b) for a, b in shares))
        least, greatest = torch.tensor(ranges, dtype=torch.float32).T
        # every range at once: the formulas of per-tensor schemes are element by element
        scales, zero_points = self._calculate_qparams(least, greatest)
        errors = sums.errors(scales.double().numpy(), zero_points.numpy(), self.quant_min, self.quant_max)
        best = ranges[int(np.argmin(errors))]
        return next(i for i, (a, b) in enumerate(shares) if self._range(histogram, a, b) == best)

    def _range(self, histogram: Histogram, a: float, b: float) -> tuple[float, float]:
        if self.is_symmetric:
            bound = b * max(-histogram.least, histogram.greatest)
            return -bound, bound
        return a * min(histogram.least, 0.0), b * max(histogram.greatest, 0.0)


class _PrefixSums:
    """Sums over the first k bins of count, count * v and count * v**2: the error of a code is a few differences."""

    def __init__(self, histogram: Histogram) -> None:
        self.width = histogram.width
        middles = histogram.lower_edges + histogram.width / 2
        self.sums: list[Floats] = [
            np.concatenate([[0.0], np.cumsum(histogram.counts * middles**power)]) for power in range(3)
        ]

    def errors(self, scales: Floats, zero_points: Any, quant_min: int, quant_max: int) -> Floats:
        """Returns sum(count * (v - dequantize(quantize(v)))**2) over the bins' middles v, for each scale.

        A code k stands for the values within half a step of (k - zero_point) * scale, the first and the last for all
        beyond. At a border both codes have the same error, so it does not matter whose it is.
        """
        codes = np.arange(quant_min, quant_max + 1)
        values = (codes - zero_points[:, None]) * scales[:, None]
        borders = (values[:, :-1] + values[:, 1:]) / 2
        inner = (np.clip(np.ceil(borders / self.width - 0.5), -BINS, BINS) + BINS).astype(np.int64)
        ends = np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 2 * BINS)))
        count, first, second = (np.diff(sums[ends], axis=1) for sums in self.sums)
        summed: Floats = (second - 2 * values * first + values**2 * count).sum(axis=1)
        return summed


class MSEWeightObserver(UniformQuantizationObserverBase):
    """Chooses for a weight the share a of its largest magnitude m, per channel where the scheme is, that minimizes

        sum((w - dequantize(quantize(w)))**2) with the range [-a * m, a * m],   a in WEIGHT_SHARES

    Per channel: each channel has its own a. Symmetric schemes only: PyTorch's kernels take no other weights.

    Args:
        ch_axis: the axis of the output channels, for per-channel schemes.
    Source: as MSEObserver.
    """

    min_val: Tensor
    max_val: Tensor

    def __init__(self, ch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ch_axis = ch_axis
        self.register_buffer("min_val", torch.tensor([]))
        self.register_buffer("max_val", torch.tensor([]))

    @property
    def is_per_channel(self) -> bool:
        """Whether each channel has a range of its own."""
        return bool(self.qscheme == torch.per_channel_symmetric)

    def forward(self, x_orig: Tensor) -> Tensor:
        """Searches the ranges of a weight (the last one seen counts) and returns it."""
        x = x_orig.detach().to(torch.float32)
        rows = x.movedim(self.ch_axis, 0).flatten(1) if self.is_per_channel else x.reshape(1, -1)
        largest = rows.abs().amax(dim=1)
        best, least_error = largest, torch.full_like(largest, torch.inf)
        for share in WEIGHT_SHARES:
            bound = largest * share
            scale, _ = self._calculate_qparams(-bound, bound)
            codes = torch.clamp(torch.round(rows / scale[:, None]), self.quant_min, self.quant_max)
            error = (rows - codes * scale[:, None]).square().sum(dim=1)
            best = torch.where(error < least_error, bound, best)
            least_error = torch.minimum(error, least_error)
        found = best if self.is_per_channel else best[0]
        self.min_val, self.max_val = -found, found
        return x_orig

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns scales and zero points, [channels] or [1]."""
        scale, zero_point = self._calculate_qparams(self.min_val, self.max_val)
        return scale, zero_point
