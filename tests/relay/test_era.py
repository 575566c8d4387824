"""Relay text in a real TVM with Relay: parsed, type-checked, built, run, compared with PyTorch.

Small programs; `make relay-era` runs whole networks, and every row of the op matrix.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from accuracy_reports.relay_era.job import RelayEraError, check_texts, interpreter, run_text
from accuracy_reports.relay_era.networks import DEFAULT, EXACT, LAYERS, PEER, run_network
from qtorch_relay.frontend.importer import ImportedModule
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.text import imported_text
from tests.matrix.case import Case
from tests.matrix.families import FAMILIES
from tests.qnn.relay_cases import CASES, RelayCase
from tests.qnn.test_relay_era import program
from tests.relay.programs import SHAPE, digits_network
from tests.relay.rows import Result, results, text_of

pytestmark = pytest.mark.skipif(
    not interpreter(), reason="QTORCH_RELAY_ERA_PYTHON names no interpreter of a TVM that has Relay"
)
EVERY_ROW = bool(os.environ.get("QTORCH_RELAY_ALL_ROWS"))
ROWS_IN_A_PROGRAM = 24
# Each stands for a way that ops are written. The last: a float bias, an overflow in int16, an int8 input.
CHOSEN = {
    "quantized::conv2d": 0,
    "quantized::linear": 0,
    "quantized::add_relu": 3,
    "quantized::mul": 0,
    "quantized::cat": 1,
    "quantized::hardswish": 0,
    "aten::avg_pool2d": 2,
    "quantized::linear_dynamic": 0,
}


def rows() -> list[Case]:
    """Returns the rows to run: all that have a text, or one of each op that is chosen."""
    cases = [case for cases in FAMILIES.values() for case in cases() if "fbgemm" in case.engines]
    if EVERY_ROW:
        return [case for case in cases if text_of(case, "fbgemm", exact=False) is not None]
    return [[case for case in cases if case.op == op][place] for op, place in CHOSEN.items()]


def wrong(found: list[Result]) -> list[str]:
    return [f"{row.id}: {row.error or f'{row.differing} of {row.elements} {row.kind}'}" for row in found if _off(row)]


def _off(row: Result) -> bool:
    return bool(row.error) or row.differing > 0


@pytest.mark.skipif(not EVERY_ROW, reason="builds take minutes; `make relay-era` runs it (QTORCH_RELAY_ALL_ROWS=1)")
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "default"])
def test_rows_of_the_matrix(exact: bool) -> None:
    cases = rows()
    found = [
        row
        for start in range(0, len(cases), ROWS_IN_A_PROGRAM)
        for row in results(cases[start : start + ROWS_IN_A_PROGRAM], "fbgemm", exact=exact)
    ]
    assert len(found) == len(cases)
    assert [row.id for row in found if row.error] == []
    if exact:
        assert wrong(found) == []
    codes = [row for row in found if row.kind == "codes" and "-large-" not in row.id]
    assert sum(row.differing for row in codes) <= 0.001 * sum(row.elements for row in codes), wrong(found)


def test_rows_are_well_typed() -> None:
    step = 1 if EVERY_ROW else 40
    cases = [case for cases in FAMILIES.values() for case in list(cases())[::step] if "fbgemm" in case.engines]
    texts = {
        f"{case.id} {'exact' if exact else 'default'}": text
        for case in cases
        for exact in (False, True)
        if (text := text_of(case, "fbgemm", exact=exact)) is not None
    }
    errors = check_texts(list(texts.values()))
    assert [f"{name}: {error}" for name, error in zip(texts, errors, strict=True) if error] == []


def test_relays_own_ops_are_well_typed() -> None:
    cases = {(case.op, case.variant): case for cases in CASES.values() for case in cases}
    errors = check_texts([relay_text(case) for case in cases.values()])
    assert [f"{name}: {error}" for name, error in zip(cases, errors, strict=True) if error] == []


def relay_text(case: RelayCase) -> str:
    """Returns the text of a call of an op of the dialect with Relay's arithmetic."""
    mod, _ = program([case])
    return imported_text(ImportedModule(mod, {}, ()), Options())[0]


def test_the_demos_network() -> None:
    images = np.random.default_rng(1).normal(size=(32, *SHAPE[1:])).astype(np.float32)
    runs = {
        run.program: run
        for run in run_network("digits", digits_network(), images, "fbgemm", (DEFAULT, EXACT, LAYERS, PEER))
    }
    for name in (DEFAULT, EXACT):
        assert (runs[name].error, runs[name].differing, runs[name].same_top1) == ("", 0, True)
    assert runs[LAYERS].error == ""
    assert runs[LAYERS].differing <= 0.001 * runs[LAYERS].elements
    assert runs[PEER].error or runs[PEER].differing > 0


def test_a_program_that_relay_refuses_is_an_error_with_its_words() -> None:
    text = '#[version = "0.0.5"]\ndef @main(%x: Tensor[(2), float32]) { no_such_op(%x) }'
    with pytest.raises(RelayEraError, match="no_such_op"):
        run_text(text, b"\xb7\x9c\x04\x05\x4f\x8d\xe5\xf7" + bytes(24), {"x": np.zeros(2, np.float32)})
