"""Rows of ops in which the engine has no part: PyTorch runs the same kernel whatever engine is set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.matrix.case import ENGINES, Case

REASON = "the engine has no part in this op; every row is run on fbgemm, some on all engines"


def thinned(cases: Iterable[Case], step: int) -> Iterator[Case]:
    """Yields all rows; only one in so many runs on every engine, the others on fbgemm alone."""
    left_out = {engine: REASON for engine in ENGINES if engine != "fbgemm"}
    for number, case in enumerate(cases):
        yield case if number % step == 0 else replace(case, engines=("fbgemm",), left_out=left_out)
