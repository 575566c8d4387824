"""Our canonicalization gives Relay's own integers, for every op: the same calls made by a Relay-era TVM.

Runs when QTORCH_RELAY_ERA_PYTHON names the interpreter of a TVM that still has Relay (0.17 or so).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from qtorch_relay import qnn
from tests.qnn.relay_cases import CASES
from tests.qnn.relay_comparison import PYTHON, compare

PAGE = Path(__file__).parents[2] / "docs" / "relay_canonicalization.md"
# qnn.contrib_dense_pack has no canonicalization in Relay.
NOT_IN_RELAY = {"contrib_dense_pack"}
OURS = {"choose_qparams", "lookup", "requantize_add", "transform", "current_requantize_config", "requantize_config"}
OURS |= {"save_module", "load_module"}


def test_every_op_of_relay_is_compared() -> None:
    compared = {case.op for cases in CASES.values() for case in cases}
    assert compared | NOT_IN_RELAY == set(qnn.__all__) - OURS
    assert len(compared | NOT_IN_RELAY) == 26


@pytest.mark.skipif(not PYTHON, reason="QTORCH_RELAY_ERA_PYTHON names no interpreter of a TVM that has Relay")
@pytest.mark.parametrize("family", CASES)
def test_codes_are_relays_own(family: str, tmp_path: Path) -> None:
    found = list(compare(CASES[family], tmp_path))
    assert found
    assert [each for each in found if each.differing] == []


def test_the_page_tells_every_op() -> None:
    made: Counter[str] = Counter()
    for cases in CASES.values():
        for case in cases:
            made[case.op] += len(case.configs)
    rows = re.findall(r"^\| `qnn\.(\w+)` \| \d+ \| (\d+) \| \d+ \| \d+ \|$", PAGE.read_text(), re.MULTILINE)
    assert {op: int(count) for op, count in rows} == made, (
        "make it anew: python -m tests.qnn.relay_comparison > docs/relay_canonicalization.md"
    )
