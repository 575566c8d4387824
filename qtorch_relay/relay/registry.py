"""The table of Relay forms: for every op of the module what it becomes in Relay text, and what that costs in codes.

An op of Relax has one form. An op of the dialect may have several, for some of its arithmetics or operands: the first
that applies is taken. Where none does, its canonicalization into plain ops is written, which computes the same codes.
So it is where the form costs codes, unless such forms are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qtorch_relay.qnn.op_def import OPS, Operands
from qtorch_relay.relay.options import DEFAULT, MODES, QNN
from qtorch_relay.relay.writer import Writer

NO_COST = "none"
CANONICAL = "plain ops, as `CanonicalizeOps` writes them"


@dataclass(frozen=True, eq=False)
class Form:
    """How one op is written.

    op: its name in the module. arithmetics: the values of its attribute "arithmetic" that this is for, none for all.
    becomes, cost: for the table. modes: the options' modes that it is for.
    """

    op: str
    arithmetics: tuple[str, ...]
    becomes: str
    cost: str
    modes: tuple[str, ...]
    write: Callable[[Writer, Any], str]
    applies: Callable[[Operands], bool]


RELAX_FORMS: dict[str, Form] = {}
QNN_FORMS: dict[str, list[Form]] = {}


def relax_form(
    *ops: str, becomes: str, cost: str = NO_COST
) -> Callable[[Callable[[Writer, Any], str]], Callable[[Writer, Any], str]]:
    """Registers how calls of plain ops are written: (writer, call) -> text of the value."""

    def register(write: Callable[[Writer, Any], str]) -> Callable[[Writer, Any], str]:
        for op in ops:
            if op in RELAX_FORMS:
                raise ValueError(f"{op} has two Relay forms")
            RELAX_FORMS[op] = Form(op, (), becomes, cost, MODES, write, lambda _: True)
        return write

    return register


def qnn_form(
    *ops: str,
    becomes: str,
    cost: str = NO_COST,
    arithmetics: Sequence[str] = (),
    applies: Callable[[Operands], bool] = lambda _: True,
    on_this_machine: bool = False,
) -> Callable[[Callable[[Writer, Operands], str]], Callable[[Writer, Operands], str]]:
    """Registers how calls of ops of the dialect are written: (writer, operands) -> text of the value.

    What costs codes is written only if it is asked for. on_this_machine: the cost is none where the text is built by
    the libraries that are here, so that all but exact text has the form.
    """
    modes = MODES if cost == NO_COST else ((DEFAULT, QNN) if on_this_machine else (QNN,))

    def register(write: Callable[[Writer, Operands], str]) -> Callable[[Writer, Operands], str]:
        for op in ops:
            if op not in OPS:
                raise ValueError(f"{op} is no op of the dialect")
            form = Form(op, tuple(arithmetics), becomes, cost, modes, write, applies)
            QNN_FORMS.setdefault(op, []).append(form)
        return write

    return register


def find_qnn_form(operands: Operands, mode: str) -> Form | None:
    """Returns the form of a call, None where it is written as its canonicalization."""
    arithmetic = operands.attrs.get("arithmetic", "relay")
    for form in QNN_FORMS.get(operands.op.name, ()):
        if form.arithmetics and arithmetic not in form.arithmetics:
            continue
        if mode in form.modes and form.applies(operands):
            return form
    return None
