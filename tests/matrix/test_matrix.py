"""Every row of the op matrix against PyTorch's own kernels: integer codes, tolerance 0.

x86 has fbgemm's or onednn's arithmetic, op by op; there the optimized program with its kernels is run, which takes ten
times as long to compile. So it gets every eighth row, or all of them with QTORCH_RELAY_ALL_ROWS=1.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice

import pytest

from tests.matrix.case import ENGINES, Case
from tests.matrix.families import FAMILIES
from tests.matrix.run import failures

ROWS_IN_A_PROGRAM = 32
STEP = {"x86": 1 if os.environ.get("QTORCH_RELAY_ALL_ROWS") else 8}


def _programs() -> list[tuple[str, str, int, list[Case]]]:
    programs = []
    for family, cases in FAMILIES.items():
        rows = list(cases())
        for engine in ENGINES:
            chosen = iter([case for case in rows if engine in case.engines][:: STEP.get(engine, 1)])
            number = 0
            while batch := list(islice(chosen, ROWS_IN_A_PROGRAM)):
                programs.append((family, engine, number, batch))
                number += 1
    return programs


PROGRAMS = _programs()


@pytest.mark.parametrize(
    ("engine", "cases"),
    [(engine, batch) for _, engine, _, batch in PROGRAMS],
    ids=[f"{family}-{engine}-{number}" for family, engine, number, _ in PROGRAMS],
)
def test_rows_equal_pytorch(engine: str, cases: list[Case]) -> None:
    assert failures(cases, engine) == []


def test_rows_have_names_of_their_own() -> None:
    names = Counter(case.id for cases in FAMILIES.values() for case in cases())
    assert [name for name, count in names.items() if count > 1] == []
