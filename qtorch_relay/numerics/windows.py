"""Where the windows of PyTorch's pools lie, one dimension at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Windows:
    """Half-open windows along one dimension, clipped to the image, and their lengths with padding counted."""

    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    padded_length: npt.NDArray[np.int64]

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """How many elements of the image each window has."""
        return self.stop - self.start

    @property
    def count(self) -> int:
        """How many windows there are."""
        return len(self.start)


def pooled_length(extent: int, kernel: int, stride: int, padding: int, *, dilation: int = 1, ceil_mode: bool) -> int:
    """Returns the extent of a pooled dimension.

    With ceil_mode a last window may reach past the padding, but must not start there.
    Source: aten/src/ATen/native/Pool.h, pooling_output_shape.
    """
    span = extent + 2 * padding - dilation * (kernel - 1) - 1
    count = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= extent + padding else count


def pool_windows(extent: int, kernel: int, stride: int, padding: int, *, ceil_mode: bool) -> Windows:
    """Returns the windows of an average pool."""
    begin = np.arange(pooled_length(extent, kernel, stride, padding, ceil_mode=ceil_mode)) * stride - padding
    end = np.minimum(begin + kernel, extent + padding)
    return Windows(np.maximum(begin, 0), np.minimum(end, extent), end - begin)


def adaptive_windows(extent: int, count: int) -> Windows:
    """Returns the windows of an adaptive pool, which overlap where count does not divide extent.

    Source: aten/src/ATen/native/quantized/cpu/AdaptiveAveragePooling.cpp start_index, in float32.
    """
    edges = (np.arange(count + 1) * extent).astype(np.float32) / np.float32(count)
    start, stop = np.floor(edges[:-1]).astype(np.int64), np.ceil(edges[1:]).astype(np.int64)
    return Windows(start, stop, stop - start)
