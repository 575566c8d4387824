"""The table of ops: complete against PyTorch's dispatcher, and each op in it proved by a row of the matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtorch_relay.capture.dispatcher import quantized_op_names
from qtorch_relay.frontend.registry import CONVERTERS, FOLDINGS, REFUSALS, converter, fold
from qtorch_relay.frontend.supported import UNKNOWN, ops_page, supported_ops
from tests.matrix.families import FAMILIES

PAGE = Path(__file__).parent.parent / "docs" / "ops.md"
QUANTIZED = [name for name in quantized_op_names() if name.startswith("quantized::")]


def _known(name: str) -> bool:
    return any(op in table for op in (name, name.split(".")[0]) for table in (CONVERTERS, FOLDINGS, REFUSALS))


def test_the_dispatcher_is_walked() -> None:
    assert len(QUANTIZED) > 150
    assert {"quantized::conv2d.new", "quantized::linear_dynamic"} <= set(QUANTIZED)


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_quantized_op_is_converted_folded_or_refused(name: str) -> None:
    assert _known(name), f"{name} has no converter, is not folded and is not refused with a reason"


def test_every_converted_quantized_op_has_a_row() -> None:
    proved = {op for cases in FAMILIES.values() for case in cases() for op in case.ops}
    converted = {name.split(".")[0] for name in QUANTIZED if {name, name.split(".")[0]} & CONVERTERS.keys()}
    assert sorted(converted - proved) == []


def test_refusals_have_reasons() -> None:
    assert all(refusal.reason for refusal in REFUSALS.values())


def test_an_op_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        fold("quantized::conv2d.new", how="")
    with pytest.raises(ValueError, match="registered twice"):
        converter("quantized::conv2d_prepack", lowering="")(lambda context, node: None)


def test_no_op_with_a_quantized_kernel_is_missing_from_the_table() -> None:
    rows = {row["op"]: row["kind"] for row in supported_ops()}
    missing = [op for op, kind in rows.items() if kind == UNKNOWN]
    assert missing == []


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == ops_page(), "make it anew: qtorch-relay ops --markdown > docs/ops.md"
