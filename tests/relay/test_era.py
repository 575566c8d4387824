"""Relay text in a real TVM with Relay: parsed, type-checked, built, run, compared with PyTorch.

Small programs; `make relay-era` runs whole networks, and `python -m tests.relay.rows` every row of the op matrix.
"""

from __future__ import annotations

import numpy as np
import pytest

from accuracy_reports.relay_era.job import RelayEraError, check_texts, interpreter, run_text
from accuracy_reports.relay_era.networks import DEFAULT, EXACT, LAYERS, PEER, run_network
from accuracy_reports.relay_era.rows import misses_of
from qtorch_relay.frontend.importer import ImportedModule
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.text import imported_text
from tests.qnn.relay_cases import CASES, RelayCase
from tests.qnn.relay_comparison import program
from tests.relay.programs import SHAPE, digits_network
from tests.relay.rows import matrix, run_rows, type_errors

pytestmark = pytest.mark.skipif(
    not interpreter(), reason="QTORCH_RELAY_ERA_PYTHON names no interpreter of a TVM that has Relay"
)
# Each stands for a way that ops are written.
CHOSEN = ("quantized::conv2d", "quantized::add_relu", "quantized::mul", "quantized::hardswish")


def test_rows_of_the_matrix() -> None:
    cases = matrix()
    chosen = [next(case for case in cases if case.op == op) for op in CHOSEN]
    rows = run_rows(chosen)
    assert [row.id for row in rows if not row.modes] == []
    assert misses_of(rows) == []


def test_rows_are_well_typed() -> None:
    assert type_errors(matrix()[::40]) == []


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
    programs = (DEFAULT, EXACT, LAYERS, PEER)
    runs = {run.program: run for run in run_network("digits", digits_network(), images, "fbgemm", programs)}
    for run in (runs[DEFAULT], runs[EXACT]):
        assert (run.error, run.differing, run.same_top1) == ("", 0, True)
    assert runs[LAYERS].error == ""
    assert runs[LAYERS].differing <= 0.001 * runs[LAYERS].elements
    assert runs[PEER].error or runs[PEER].differing > 0


def test_a_program_that_relay_refuses_is_an_error_with_its_words() -> None:
    text = '#[version = "0.0.5"]\ndef @main(%x: Tensor[(2), float32]) { no_such_op(%x) }'
    with pytest.raises(RelayEraError, match="no_such_op"):
        run_text(text, b"\xb7\x9c\x04\x05\x4f\x8d\xe5\xf7" + bytes(24), {"x": np.zeros(2, np.float32)})
