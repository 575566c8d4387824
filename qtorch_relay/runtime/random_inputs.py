"""Seeded inputs for a program of which only shapes and dtypes are known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

DEFAULT_SEED = 0


def random_inputs(tensors: Iterable[tuple[tuple[int, ...], str]], seed: int = DEFAULT_SEED) -> list[npt.NDArray[Any]]:
    """Returns an array for each (shape, dtype): standard normal floats, codes below 128, other integers below 2."""
    rng = np.random.default_rng(seed)
    return [_random_array(rng, shape, dtype) for shape, dtype in tensors]


def _random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    if dtype in ("uint8", "int8"):
        return rng.integers(0, 128, shape).astype(dtype)
    # Wider integers are mostly indices, where 0 and 1 are legal in all but the smallest tables, or offsets, which must
    # not decrease.
    return np.sort(rng.integers(0, 2, shape), axis=None).reshape(shape).astype(dtype)
