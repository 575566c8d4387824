"""A classifier as whoever runs it sees it: an array of images in, logits out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Logits:
    """The logits of images, [n, classes]; codes are None where a program gives floats only."""

    floats: npt.NDArray[np.float32]
    codes: npt.NDArray[np.integer] | None


@dataclass(frozen=True, eq=False)
class Program:
    """call runs the program on what convert makes of images, read makes Logits of the result. Only call is timed."""

    name: str
    convert: Callable[[Any], Any]
    call: Callable[[Any], Any]
    read: Callable[[Any], Logits]
