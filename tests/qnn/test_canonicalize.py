"""Each canonicalization, twice: as a before/after pair of text, and in numbers against numerics, tolerance 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qtorch_relay._tvm import relax
from qtorch_relay.qnn.printer import to_text
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.transform.rules import RULES
from qtorch_relay.qnn.verify import qnn_ops_in, verify
from tests.qnn.build import body_lines, module, run
from tests.qnn.cases import Case
from tests.qnn.relay_rows import ALL_CASES as CASES

GOLDEN = Path(__file__).parent / "canonicalize.golden.txt"
IDS = [case.name for case in CASES]


def _module(case: Case) -> object:
    return module({name: (array.shape, str(array.dtype)) for name, array in case.inputs.items()}, case.body)


def _pairs() -> str:
    """Returns all before/after pairs as text."""
    parts = []
    for case in CASES:
        before = _module(case)
        after = CanonicalizeOps()(before)
        lines = [f"==== {case.name}", *body_lines(to_text(before))[:1], "----", *body_lines(to_text(after))[:-1]]
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n"


def test_pairs_are_the_golden_ones(request: pytest.FixtureRequest) -> None:
    text = _pairs()
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_codes_equal_the_numerics(case: Case) -> None:
    before = _module(case)
    verify(before)
    after = CanonicalizeOps()(before)
    assert qnn_ops_in(after) == []
    ours, expected = run(after, *case.inputs.values()), case.expected(*case.inputs.values())
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_canonicalizing_twice_changes_nothing(case: Case) -> None:
    once = CanonicalizeOps()(_module(case))
    assert to_text(CanonicalizeOps()(once)) == to_text(once)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_module_is_well_formed_before_and_after(case: Case) -> None:
    before = _module(case)
    for mod in (before, CanonicalizeOps()(before)):
        assert relax.analysis.well_formed(mod) is not False


def test_every_op_has_a_case() -> None:
    used = {name for case in CASES for name in qnn_ops_in(_module(case))}
    assert used == set(RULES)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_types_are_inferred_before_as_after(case: Case) -> None:
    before = _module(case)
    after = CanonicalizeOps()(before)
    assert str(before["main"].ret_ty) == str(after["main"].ret_ty)
