"""A histogram of everything a tensor held, made batch by batch in constant memory: the base of our own observers."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.ao.quantization.observer import UniformQuantizationObserverBase

from qtorch_relay.errors import CalibrationError

# Bins on each side of zero. The codes of 8 bits are at most 256 steps, so a range 128 times smaller than the largest
# value still has 256 bins.
BINS = 1 << 15
_CHUNK = 1 << 20  # elements binned at a time: bounds the indices to 8 MB
_LEAST_EXPONENT = -150  # 2**-150 is below every float32 that is not 0

Counts = npt.NDArray[np.int64]
Edges = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts [2 * BINS] of values, whose bin i covers [(i - BINS) * width, (i - BINS + 1) * width).

    least, greatest: the extreme values themselves.
    """

    counts: Counts
    width: float
    least: float
    greatest: float

    @property
    def lower_edges(self) -> Edges:
        """The lower edge of each bin, exact: width is a power of two."""
        return np.arange(-BINS, BINS, dtype=np.float64) * self.width

    def of_magnitudes(self) -> Counts:
        """Returns counts [BINS] of absolute values: bin i covers i * width to (i + 1) * width."""
        folded: Counts = self.counts[BINS:] + self.counts[:BINS][::-1]
        return folded


class HistogramRangeObserver(UniformQuantizationObserverBase):
    """Bins a tensor's values and leaves the choice of a range to its subclasses.

    Bins reach from -2**e to 2**e, the least power of two above every magnitude seen. When a larger value comes, e grows
    and 2**k neighbours become one bin. Bin edges are multiples of a power of two, so a value's bin never depends on
    rounding, and floor(floor(v / w) / 2) == floor(v / (2 * w)): the histogram of many batches equals the histogram of
    all their values at once, whatever their order.

    Args: as UniformQuantizationObserverBase; the scheme is per_tensor_affine or per_tensor_symmetric.
    Raises: CalibrationError on NaN and infinite values.
    """

    min_val: Tensor
    max_val: Tensor
    counts: Tensor
    exponent: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.qscheme not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            raise CalibrationError(f"{type(self).__name__} takes per-tensor schemes only, not {self.qscheme}")
        self.register_buffer("min_val", torch.tensor(float("inf")))
        self.register_buffer("max_val", torch.tensor(float("-inf")))
        self.register_buffer("counts", torch.zeros(2 * BINS, dtype=torch.int64))
        self.register_buffer("exponent", torch.tensor(_LEAST_EXPONENT))

    @abstractmethod
    def choose_range(self, histogram: Histogram) -> tuple[float, float]:
        """Returns the least and the greatest value that the codes should cover."""

    def forward(self, x_orig: Tensor) -> Tensor:
        """Counts the values of a tensor of any shape and returns it."""
        if x_orig.numel() == 0:
            return x_orig
        x = x_orig.detach().to(torch.float32).flatten()
        least, greatest = torch.aminmax(x)
        if not (torch.isfinite(least) and torch.isfinite(greatest)):
            raise CalibrationError("a tensor holds NaN or infinite values, which no range covers")
        self.min_val.copy_(torch.minimum(self.min_val, least))
        self.max_val.copy_(torch.maximum(self.max_val, greatest))
        self._grow(max(-least.item(), greatest.item()))
        bins_per_unit = math.ldexp(BINS, -int(self.exponent))
        for chunk in x.split(_CHUNK):
            # Exact: float64 holds a float32 times a power of two.
            index = torch.floor(chunk.to(torch.float64) * bins_per_unit).to(torch.int64) + BINS
            self.counts += torch.bincount(index, minlength=2 * BINS)
        return x_orig

    def _grow(self, magnitude: float) -> None:
        """Merges bins until they reach beyond a magnitude."""
        exponent = math.frexp(magnitude)[1] if magnitude else _LEAST_EXPONENT  # magnitude < 2 ** exponent
        doublings = exponent - int(self.exponent)
        if doublings <= 0:
            return
        shift = min(doublings, BINS.bit_length())  # further doublings change nothing: all is in the middle bins
        merged = (torch.arange(-BINS, BINS) >> shift) + BINS
        self.counts.copy_(torch.zeros_like(self.counts).index_add_(0, merged, self.counts))
        self.exponent.fill_(exponent)

    def histogram(self) -> Histogram:
        """Returns what was seen so far."""
        width = math.ldexp(1.0, int(self.exponent)) / BINS
        return Histogram(self.counts.numpy(), width, self.min_val.item(), self.max_val.item())

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns scale and zero point, [1] each; 1 and 0 where nothing was seen, as PyTorch's observers give."""
        if self.min_val > self.max_val:
            return torch.ones(1), torch.zeros(1, dtype=torch.int64)
        least, greatest = self.choose_range(self.histogram())
        scale, zero_point = self._calculate_qparams(torch.tensor(least), torch.tensor(greatest))
        return scale, zero_point

    def extra_repr(self) -> str:
        """Returns the extremes, for printing."""
        return f"min_val={self.min_val}, max_val={self.max_val}"

    @property
    def is_symmetric(self) -> bool:
        """Whether the range is the same on both sides of zero."""
        return bool(self.qscheme == torch.per_tensor_symmetric)
