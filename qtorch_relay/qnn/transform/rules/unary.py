"""Canonicalization of Relay's unary ops: one look-up in a table of 256 codes."""

from __future__ import annotations

from qtorch_relay.expressions import look_up
from qtorch_relay.qnn.op_def import Expr, Operands
from qtorch_relay.qnn.transform.rules.common import canonicalization
from qtorch_relay.qnn.unary import FUNCTIONS, relay_table


def _rule(operands: Operands) -> Expr:
    """table[x - least code]."""
    table = relay_table(
        operands.op.name.removeprefix("qnn."),
        operands.dtype("x"),
        operands.scalar("scale"),
        int(operands.scalar("zero_point")),
        operands.scalar("output_scale"),
        int(operands.scalar("output_zero_point")),
    )
    return look_up(operands["x"], table)


for _function in FUNCTIONS:
    canonicalization(f"qnn.{_function}")(_rule)
